"""tiktoken over this package's own vocabulary: the reference, and the engine without toktok."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from streamguard.core.metering import utf8_bytes
from streamguard.core.segments import Segment, segments
from streamguard.tokenizers.encodings import EncodingSpec
from streamguard.tokenizers.turns import mended
from streamguard.tokenizers.vocabulary import load_vocabulary

if TYPE_CHECKING:
    import tiktoken

_LONG = 32_768
"""Characters a call: tiktoken is slow on very long pretokens and panics at a million spaces."""

_LONG_CLASSIFIED = 8192
"""Characters that are not all ASCII, whose classes are looked up one by one: some 1 ms."""

_TOO_LONG = 400_000


class _Direct:
    """tiktoken as it is: for texts that are not too long."""

    def __init__(self, spec: EncodingSpec, engine: tiktoken.Encoding) -> None:
        self.name = spec.name
        self.max_token_bytes = spec.max_token_bytes
        self.encode = engine.encode_ordinary
        self.token_bytes = engine.decode_single_token_bytes

    def count(self, text: str) -> int:
        """Tokens of the whole text."""
        return len(self.encode(text))


class ReferenceTokenizer:
    """A ``Tokenizer`` over tiktoken.

    Long texts are cut at settled positions, so it is linear and never panics. A part of more
    than 400,000 characters with none (a line end and as many blanks, say) counts as its UTF-8
    bytes, an upper bound, and is encoded in parts.
    """

    __slots__ = ("_direct", "max_token_bytes", "name", "token_bytes")

    def __init__(self, spec: EncodingSpec, engine: tiktoken.Encoding) -> None:
        self.name = spec.name
        self.max_token_bytes = spec.max_token_bytes
        self._direct = _Direct(spec, engine)
        self.token_bytes = self._direct.token_bytes

    def __repr__(self) -> str:
        return f"<tokenizer {self.name} by tiktoken>"

    def count(self, text: str) -> int:
        """Tokens of the whole text."""
        if len(text) <= _LONG:
            return self._direct.count(text)
        return sum(self._count_segment(segment) for segment in self._segments(text))

    def encode(self, text: str) -> list[int]:
        """The token ids, equal to tiktoken's ``encode_ordinary``."""
        if len(text) <= _LONG:
            return self._direct.encode(text)
        return [token for part in self._segments(text) for token in self._encode_segment(part)]

    def _segments(self, text: str) -> Iterator[Segment]:
        size = _LONG if text.isascii() else _LONG_CLASSIFIED
        return segments(self._direct, mended(text), size)

    def _count_segment(self, segment: Segment) -> int:
        if len(segment.text) > _TOO_LONG:
            return utf8_bytes(segment.text)
        return self._direct.count(segment.text) - self._direct.count(segment.lead)

    def _encode_segment(self, segment: Segment) -> list[int]:
        text, encode = segment.text, self._direct.encode
        parts = (encode(text[at : at + _TOO_LONG]) for at in range(0, len(text), _TOO_LONG))
        ids = [token for part in parts for token in part]
        return ids[self._direct.count(segment.lead) :]


def load_reference(spec: EncodingSpec) -> ReferenceTokenizer:
    """Build tiktoken from the package's vocabulary: some 0.25 s, and 65 MB for o200k.

    Raises:
        ConfigurationError: the vocabulary in the package is not the published one.
    """
    import tiktoken

    ranks = {token: rank for rank, token in enumerate(load_vocabulary(spec))}
    engine = tiktoken.Encoding(
        spec.name,
        pat_str=spec.pattern,
        mergeable_ranks=ranks,
        special_tokens=dict(spec.special_tokens),
    )
    return ReferenceTokenizer(spec, engine)
