"""Looks at a body before anybody knows whether it is a model request."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import anyio.to_thread

from streamguard.asgi.types import Message, Receive
from streamguard.core.strict_json import loads
from streamguard.guard.counter import BIG
from streamguard.guard.shape import looks_like_chat, may_be_object


async def look(receive: Receive, limit: int) -> tuple[list[Message], bool]:
    """The body's messages while it may be a JSON object, and whether there is more of it.

    What is longer than ``limit`` bytes is not read to its end.
    """
    seen: list[Message] = []
    size, more, told = 0, True, None
    while more and size <= limit and told is not False:
        message = await receive()
        seen.append(message)
        size += len(message.get("body", b""))
        told = told or may_be_object(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)
    return seen, more


async def is_chat(body: bytes) -> bool:
    """Whether a body is a chat request; looked at in a thread when it is long."""
    if len(body) <= BIG:
        return looks_like_chat(body)
    return await anyio.to_thread.run_sync(looks_like_chat, body)


async def loaded(body: bytes) -> Mapping[str, Any]:
    """The body as JSON; read in a thread when it is long."""
    if len(body) <= BIG:
        return loads(body)
    return await anyio.to_thread.run_sync(loads, body)


def replaying(seen: list[Message], receive: Receive) -> Receive:
    """A ``receive`` that gives again what was seen, then goes on."""
    waiting = deque(seen)

    async def replay() -> Message:
        return waiting.popleft() if waiting else await receive()

    return replay
