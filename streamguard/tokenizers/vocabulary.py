"""Vocabularies from the package's own data, verified by sha256; the network is never used."""

from __future__ import annotations

import hashlib
import lzma
from binascii import b2a_base64
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import accumulate, pairwise

from streamguard.errors import ConfigurationError
from streamguard.tokenizers.encodings import EncodingSpec

_CHUNK = 4096


def unpack(data: bytes) -> list[bytes]:
    """The tokens in rank order: a count (4 bytes), a length byte each, then all their bytes."""
    size = int.from_bytes(data[:4], "big")
    start = 4 + size
    ends = accumulate(data[4:start], initial=start)
    return [data[begin:end] for begin, end in pairwise(ends)]


def _published_lines(tokens: Sequence[bytes]) -> Iterator[bytes]:
    """The published file's text, some lines at a time so that other threads get their turn."""
    for first in range(0, len(tokens), _CHUNK):
        numbered = enumerate(tokens[first : first + _CHUNK], first)
        yield b"".join(
            [b"%b %d\n" % (b2a_base64(token, newline=False), rank) for rank, token in numbered]
        )


def verify(spec: EncodingSpec, tokens: Sequence[bytes], source: str) -> None:
    """Check that the tokens, in rank order, are those of the published vocabulary.

    Raises:
        ConfigurationError: they are not; ``source`` says where they came from.
    """
    digest = hashlib.sha256()
    for lines in _published_lines(tokens):
        digest.update(lines)
    if digest.hexdigest() != spec.sha256:
        message = (
            f"the {spec.vocabulary} vocabulary from {source} has sha256 {digest.hexdigest()}, "
            f"expected {spec.sha256}; reinstall streamguard and its dependencies"
        )
        raise ConfigurationError(message)


def load_vocabulary(spec: EncodingSpec) -> list[bytes]:
    """The vocabulary's tokens in rank order, from the data inside this package.

    Raises:
        ConfigurationError: the data is missing, damaged or not the published vocabulary.
    """
    source = f"vocab/{spec.vocabulary}.xz"
    try:
        packed = files("streamguard").joinpath(source).read_bytes()
        tokens = unpack(lzma.decompress(packed))
    except (OSError, lzma.LZMAError) as error:
        message = f"cannot read {source} of the installed package ({error}); reinstall streamguard"
        raise ConfigurationError(message) from error
    verify(spec, tokens, source)
    return tokens
