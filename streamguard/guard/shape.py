"""Tells a model request by its shape, where its path does not."""

from __future__ import annotations

import json
from typing import Any

_BEFORE = b" \t\r\n\0\xef\xbb\xbf\xff\xfe"
"""What may stand before an object: white space, byte-order marks, halves of wide characters."""


def may_be_object(start: bytes) -> bool | None:
    """Whether a body that starts so may be a JSON object, in any encoding that parsers guess;
    ``None``: that is too little to tell.
    """
    rest = start.lstrip(_BEFORE)
    return rest.startswith(b"{") if rest else None


def looks_like_chat(body: bytes) -> bool:
    """Whether a body is a chat request to any parser: a model and messages with roles.

    As lenient as the parsers of apps are (UTF-16, duplicate keys, NaN, any depth): a body that
    the guard would refuse must not pass it by because of that.
    """
    plain = body.replace(b"\0", b"")
    if b"messages" not in plain and b"\\u" not in plain:
        return False
    try:
        given: Any = json.loads(body, parse_int=float)
    except ValueError:
        return False
    except RecursionError:
        return True
    messages = given.get("messages") if isinstance(given, dict) else None
    return (
        isinstance(messages, list)
        and isinstance(given.get("model"), str)
        and any(isinstance(message, dict) and "role" in message for message in messages)
    )
