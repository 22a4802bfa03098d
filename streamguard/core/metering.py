"""Output metering: the exact token count of a text that arrives in pieces.

A meter keeps the count of the settled part of the text (``pretokens``) and only the rest of
the text itself. It tokenizes lazily: while the UTF-8 bytes fed since the last count cannot
cross a limit nothing is encoded, since a token is at least one byte.
"""

from __future__ import annotations

from streamguard.core.pretokens import grammar_for
from streamguard.core.tokens import Tokenizer

_BATCH = 16_384
"""Unsettled bytes that are tokenized at once: some 0.1 ms of work."""


def utf8_bytes(text: str) -> int:
    """UTF-8 bytes of the text; a surrogate counts as the three bytes of U+FFFD."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


class TextMeter:
    """Counts one run of text, piece by piece. Pure; not safe to share between threads.

    Attributes:
        upper: an upper bound of ``count`` that costs nothing to read.
    """

    __slots__ = ("_due", "_exact", "_open", "_pending", "_settled", "_tokenizer", "upper")

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._settled = 0
        self._open = ""
        self._pending: list[str] = []
        self._exact: int | None = 0
        self.upper = 0
        self._due = _BATCH

    def feed(self, text: str) -> None:
        """Add text. Costs a fraction of a microsecond; a batch is tokenized now and then."""
        self._pending.append(text)
        self._exact = None
        self.upper += len(text) if text.isascii() else utf8_bytes(text)
        if self.upper > self._due:
            self._settle()

    @property
    def count(self) -> int:
        """Tokens of all text fed so far, exactly."""
        if self._exact is None:
            self._settle()
            self._exact = self._settled + self._tokenizer.count(self._open)
        return self._exact

    def would_exceed(self, limit: int, text: str = "") -> bool:
        """Whether all text fed and ``text`` together are over ``limit`` tokens, exactly.

        Decides by bounds where they suffice; does not feed ``text``.
        """
        if self.upper + utf8_bytes(text) <= limit:
            return False
        return self._count_with(text) > limit

    def _count_with(self, text: str) -> int:
        self._settle()
        return self._settled + self._tokenizer.count(self._open + text)

    def take(self, text: str, limit: int) -> str:
        """The longest prefix of ``text`` that keeps everything within ``limit`` tokens."""
        if not self.would_exceed(limit, text):
            return text
        for size in range(len(text) - 1, 0, -1):
            if not self.would_exceed(limit, text[:size]):
                return text[:size]
        return ""

    def _settle(self) -> None:
        """Fold the settled part of the text into a number."""
        if not self._pending:
            return
        self._open += "".join(self._pending)
        self._pending.clear()
        grammar = grammar_for(self._tokenizer.name)
        position = grammar.settled(self._open) if grammar else 0
        if position:
            self._settled += self._tokenizer.count(self._open[:position])
            self._open = self._open[position:]
        self.upper = self._settled + utf8_bytes(self._open)
        self._due = self.upper + _BATCH
