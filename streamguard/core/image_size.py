"""An image's width and height from the first bytes of its file: PNG, GIF, JPEG, WebP."""

from __future__ import annotations

import base64
import binascii
import struct
from typing import NamedTuple

_PREFIX = 400_000
"""Base64 characters that are decoded: a JPEG may carry that much metadata before its size."""

_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Size(NamedTuple):
    """Pixels."""

    width: int
    height: int


def size_of_data(data: str) -> Size | None:
    """The size of an image in base64 or in a ``data:`` URL; ``None`` when it cannot be told."""
    if data.startswith("data:"):
        head, _, data = data.partition(",")
        if not head.endswith(";base64"):
            return None
    prefix = data[:_PREFIX]
    try:
        raw = base64.b64decode(prefix[: len(prefix) // 4 * 4], validate=False)
    except (binascii.Error, ValueError):
        return None
    return size_of_bytes(raw)


def size_of_bytes(raw: bytes) -> Size | None:
    """The size of an image from its first bytes; ``None`` when it cannot be told."""
    try:
        size = _read(raw)
    except (struct.error, IndexError):
        return None
    return size if size and size.width > 0 and size.height > 0 else None


def _read(raw: bytes) -> Size | None:
    if raw.startswith(b"\x89PNG\r\n\x1a\n"):
        return Size(*struct.unpack(">II", raw[16:24]))
    if raw[:6] in {b"GIF87a", b"GIF89a"}:
        return Size(*struct.unpack("<HH", raw[6:10]))
    if raw.startswith(b"\xff\xd8"):
        return _jpeg(raw)
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return _webp(raw)
    return None


def _jpeg(raw: bytes) -> Size | None:
    """Walk the segments to the one with the size."""
    at = 2
    while raw[at] == 0xFF:  # noqa: PLR2004
        marker = raw[at + 1]
        if marker in _JPEG_SIZES:
            height, width = struct.unpack(">HH", raw[at + 5 : at + 9])
            return Size(width, height)
        at += 1 if marker == 0xFF else 2 + struct.unpack(">H", raw[at + 2 : at + 4])[0]  # noqa: PLR2004
    return None


def _webp(raw: bytes) -> Size | None:
    """Lossy, lossless or extended: three layouts."""
    kind = raw[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", raw[26:30])
        return Size(width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", raw[21:25])
        return Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8X":
        low = struct.unpack("<HBHB", raw[24:30])
        return Size((low[0] | low[1] << 16) + 1, (low[2] | low[3] << 16) + 1)
    return None
