"""Tells a model request by its shape, where its path does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streamguard.core.strict_json import loads
from streamguard.errors import ProtocolError


def looks_like_chat(body: bytes) -> bool:
    """Whether a body is a chat request: a model and messages with roles."""
    if b'"messages"' not in body and b"\\u" not in body:
        return False
    try:
        given: Mapping[str, Any] = loads(body)
    except ProtocolError:
        return False
    messages = given.get("messages")
    return (
        isinstance(given.get("model"), str)
        and isinstance(messages, list)
        and any(isinstance(message, dict) and "role" in message for message in messages)
    )
