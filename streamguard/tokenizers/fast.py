"""toktok: some ten times faster than tiktoken, linear on any text, other threads run meanwhile.

The two agree (``benchmarks/fuzz_exactness.py``) except on texts with certain rare characters
(``core.characters.UNSTABLE``), because they were built with different versions of Unicode and
fold case differently; such texts are left to tiktoken, which is loaded when the first turns up.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

from streamguard.core.pretokens import grammar_for
from streamguard.core.segments import pieces
from streamguard.errors import ConfigurationError
from streamguard.tokenizers.encodings import EncodingSpec
from streamguard.tokenizers.reference import ReferenceTokenizer, load_reference
from streamguard.tokenizers.turns import TURN, is_unstable, mended
from streamguard.tokenizers.vocabulary import verify


class FastTokenizer:
    """A ``Tokenizer`` over toktok."""

    __slots__ = (
        "_count", "_encode", "_loading", "_reference", "_spec", "max_token_bytes", "name",
        "token_bytes",
    )  # fmt: skip

    def __init__(self, spec: EncodingSpec, engine: Any) -> None:
        self.name = spec.name
        self.max_token_bytes = spec.max_token_bytes
        self.token_bytes = engine.decode_single_token_bytes
        self._count = engine.count
        self._encode = engine.encode_ordinary
        self._spec = spec
        self._reference: ReferenceTokenizer | None = None
        self._loading = Lock()

    def __repr__(self) -> str:
        return f"<tokenizer {self.name} by toktok>"

    def count(self, text: str) -> int:
        """Tokens of the whole text."""
        if text.isascii():
            return int(self._count(text))
        if len(text) > TURN:
            return sum(self._count_any(piece) for piece in self._pieces(text))
        return self._count_any(text)

    def encode(self, text: str) -> list[int]:
        """The token ids, equal to tiktoken's ``encode_ordinary``."""
        text, plain = _plain(text)
        ids: list[int] = self._encode(text) if plain else self.reference.encode(text)
        return ids

    @property
    def reference(self) -> ReferenceTokenizer:
        """The reference with the same vocabulary."""
        with self._loading:
            if self._reference is None:
                self._reference = load_reference(self._spec)
            return self._reference

    def _pieces(self, text: str) -> Any:
        grammar = grammar_for(self.name)
        return pieces(text, grammar, TURN) if grammar else (text,)

    def _count_any(self, text: str) -> int:
        text, plain = _plain(text)
        return int(self._count(text)) if plain else self.reference.count(text)


def _plain(text: str) -> tuple[str, bool]:
    """The text without surrogates, and whether both engines class its characters alike."""
    if text.isascii() or not is_unstable(text):
        return text, True
    text = mended(text)
    return text, not is_unstable(text)


def load_fast(spec: EncodingSpec) -> FastTokenizer | None:
    """toktok, its built-in vocabulary verified; ``None`` where it is not installed or differs.

    The encoder object is what its documentation names for ids; its one public function spends
    10 µs a call on setting up a pool, 100 times the count of a short text.
    """
    try:
        import toktok  # type: ignore[import-untyped]  # it ships no types

        engine = toktok._encoding(spec.vocabulary)  # noqa: SLF001
        verify(spec, engine.token_byte_values(), "toktok")
        return FastTokenizer(spec, engine)
    except (ImportError, AttributeError, KeyError, ConfigurationError):
        return None
