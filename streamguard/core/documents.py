"""Upper bounds for documents and audio: what they hold cannot be counted without reading them."""

from __future__ import annotations

import re

PAGE = 3_000
"""Tokens of one page at most: a page of dense text and its image."""

_BYTES_A_PAGE = 3_000
"""A compressed page of text takes about that; smaller ones are found by their mark."""

_PAGE_MARK = re.compile(rb"/Type\s{0,4}/Page(?![s\w])")
_TEXT = re.compile(r"data:(?:text/|application/(?:json|xml|yaml))")
_TOKENS_A_SECOND = {"openai": 10, "gemini": 32}
_BYTES_A_SECOND = {"wav": 16_000}
"""WAV holds no less than 16 bit at 8 kHz; of compressed formats, speech at 16 kbit/s is least."""


def document_tokens(data: str) -> int:
    """A document in base64 or a ``data:`` URL: text by its bytes, others by their pages."""
    body = data.partition(",")[2] if data.startswith("data:") else data
    size = len(body) * 3 // 4
    if _TEXT.match(data):
        return size
    return max(size // _BYTES_A_PAGE + 1, _marked_pages(body)) * PAGE


def _marked_pages(body: str) -> int:
    return len(_PAGE_MARK.findall(decoded(body)))


def decoded(body: str) -> bytes:
    """What can be decoded of a base64 text."""
    import base64
    import binascii

    try:
        return base64.b64decode(body[: len(body) // 4 * 4])
    except (binascii.Error, ValueError):
        return b""


def audio_tokens(data: str, kind: object, provider: str = "openai") -> int:
    """Audio in base64, by the longest it can last."""
    rate = _BYTES_A_SECOND.get(kind, 2_000) if isinstance(kind, str) else 2_000
    seconds = len(data) * 3 // 4 // rate + 1
    return seconds * _TOKENS_A_SECOND[provider]
