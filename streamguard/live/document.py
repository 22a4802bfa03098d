"""The page itself: HTML with its style and script inside, and the headers that hold it."""

from __future__ import annotations

from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

_HERE = Path(__file__).parent


class Document(NamedTuple):
    """What is sent for the page."""

    body: bytes
    headers: tuple[tuple[str, str], ...]


@cache
def document() -> Document:
    """The page. Its policy allows this very style and script, by their hashes, and nothing else."""
    style, script = _text("page.css"), _text("draw.js") + _text("page.js")
    body = _text("page.html").replace("/*style*/", style).replace("/*script*/", script)
    policy = {
        "default-src": "'none'",
        "style-src": _hash(style),
        "script-src": _hash(script),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    written = "; ".join(f"{name} {value}" for name, value in policy.items())
    headers = (
        ("content-type", "text/html; charset=utf-8"),
        ("content-security-policy", written),
        ("cross-origin-opener-policy", "same-origin"),
    )
    return Document(body.encode(), headers)


def _text(name: str) -> str:
    return (_HERE / name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
