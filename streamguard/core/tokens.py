"""What the core asks of a tokenizer."""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Tokenizer(Protocol):
    """Counts tokens of ordinary text: special-token look-alikes count as plain text.

    Implementations take any ``str`` (lone surrogates count as U+FFFD), run in linear time,
    never raise, and are safe to call from several threads.
    """

    @property
    def name(self) -> str:
        """The encoding's name, such as ``o200k_base``."""

    @property
    def max_token_bytes(self) -> int:
        """UTF-8 bytes of the longest token: ``count >= bytes / max_token_bytes``."""

    def count(self, text: str) -> int:
        """Tokens of the whole text."""

    def encode(self, text: str) -> list[int]:
        """The token ids, equal to tiktoken's ``encode_ordinary``."""


NEVER = 1 << 40
"""``max_token_bytes`` of tokenizers that drop or join characters: no text is surely too long."""


def expansion(tokenizer: Tokenizer) -> int:
    """The most tokens that a UTF-8 byte can make: 1 for tokenizers that merge bytes.

    One that rewrites text before it cuts it can make more; it says so in ``expansion``.
    """
    found: int = getattr(tokenizer, "expansion", 1)
    return found
