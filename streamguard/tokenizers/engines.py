"""The two engines that turn ordinary text into token ids: toktok, and tiktoken as fallback.

Both are exact. toktok is some ten times faster, linear on any text and lets other threads run
while it counts; ``benchmarks/fuzz_exactness.py`` compares the two. tiktoken is the reference,
and what is used where toktok has no wheel (musl, Windows on ARM).
"""

from __future__ import annotations

from typing import Protocol

from streamguard.errors import ConfigurationError
from streamguard.tokenizers.encodings import EncodingSpec
from streamguard.tokenizers.vocabulary import load_vocabulary, verify


class Engine(Protocol):
    """Token ids of text without lone surrogates."""

    def count(self, text: str) -> int:
        """Tokens of the text."""

    def encode_ordinary(self, text: str) -> list[int]:
        """Their ids."""


class TiktokenEngine:
    """tiktoken over this package's own vocabulary."""

    def __init__(self, spec: EncodingSpec) -> None:
        """Build it; takes some 0.2 s.

        Raises:
            ConfigurationError: the vocabulary in the package is not the published one.
        """
        import tiktoken

        ranks = {token: rank for rank, token in enumerate(load_vocabulary(spec))}
        self._encoding = tiktoken.Encoding(
            spec.name,
            pat_str=spec.pattern,
            mergeable_ranks=ranks,
            special_tokens=dict(spec.special_tokens),
        )
        self.encode_ordinary = self._encoding.encode_ordinary

    def count(self, text: str) -> int:
        """Tokens of the text."""
        return len(self.encode_ordinary(text))


def load_toktok(spec: EncodingSpec) -> Engine | None:
    """Toktok for this encoding, its built-in vocabulary verified; ``None`` if not installed.

    The vocabulary's own encoder is what its documentation names for ids; its one public
    function spends 10 µs a call on setting up a pool, 100 times the count of a short text.
    """
    try:
        import toktok  # type: ignore[import-untyped]  # it ships no types

        encoder = toktok._encoding(spec.vocabulary)  # noqa: SLF001
        tokens = encoder.token_byte_values()
    except (ImportError, AttributeError, KeyError):
        return None
    try:
        verify(spec, tokens, "toktok")
    except ConfigurationError:
        return None
    engine: Engine = encoder
    return engine


def load_engine(spec: EncodingSpec) -> Engine:
    """The fastest exact engine that is installed.

    Raises:
        ConfigurationError: neither engine has the published vocabulary.
    """
    return load_toktok(spec) or TiktokenEngine(spec)
