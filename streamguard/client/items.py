"""Items of an async iterator as wire bytes and back: text, SDK chunks, decoded JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol, get_args

from streamguard.core import sse
from streamguard.core.wire import Request, StreamState
from streamguard.errors import ConfigurationError
from streamguard.protocols import protocol_named
from streamguard.protocols.fields import read_json, write_json
from streamguard.protocols.plain import PlainText

_LENIENT = ("openai", "anthropic")
"""SDKs whose models have a ``construct`` that goes deep and checks nothing."""
_UNIONS = {
    "openai.types.responses": ("openai.types.responses", "ResponseStreamEvent"),
    "anthropic.types": ("anthropic.types", "RawMessageStreamEvent"),
}
"""Where an item's class is, and the union of all events of its stream."""


class Items(Protocol):
    """One kind of item."""

    @property
    def state(self) -> StreamState:
        """The wire format that ``write`` writes; one a stream."""

    def write(self, item: Any) -> bytes:
        """The item as bytes of the wire format."""

    def read(self, data: bytes, like: Any) -> list[Any]:
        """Items of ``like``'s type from bytes of the wire format."""


def items_like(item: Any, request: Request) -> Items:
    """What reads and writes items such as this first one, which answer ``request``.

    Raises:
        ConfigurationError: it cannot be metered: neither text nor a known chunk.
    """
    if isinstance(item, str):
        return _Text()
    name = _format_of(item)
    if name is None:
        raise ConfigurationError(
            f"guard.stream cannot meter items of type {type(item).__name__}: give text or chunks "
            "of an SDK's raw stream, or guard the client with guard.wrap"
        )
    return _Chunks(name, request)


def _format_of(item: Any) -> str | None:
    """The wire format of a chunk object or dict, by its shape."""
    if not isinstance(item, Mapping) and not hasattr(item, "model_dump_json"):
        return None
    if isinstance(_field(item, "choices"), list):
        return "openai_chat"
    if isinstance(_field(item, "candidates"), list):
        return "gemini"
    kind = _field(item, "type")
    if not isinstance(kind, str):
        return None
    if kind.startswith(("response.", "error")):
        return "openai_responses"
    return "anthropic" if kind.startswith(("message_", "content_block_", "ping")) else None


def _field(item: Any, name: str) -> Any:
    return item.get(name) if isinstance(item, Mapping) else getattr(item, name, None)


class _Chunks:
    """SDK chunks (pydantic) or decoded JSON, as server-sent events."""

    def __init__(self, name: str, request: Request) -> None:
        self.state = protocol_named(name).stream(request)

    def write(self, item: Any) -> bytes:
        kind = _field(item, "type")
        name = f"event: {kind}\n".encode() if isinstance(kind, str) else b""
        if isinstance(item, Mapping):
            return name + sse.encode(write_json(item))
        dumped = item.model_dump(mode="json", by_alias=True, exclude_none=True, warnings=False)
        return name + sse.encode(write_json(dumped))

    def read(self, data: bytes, like: Any) -> list[Any]:
        documents = [read_json(line[5:]) for line in data.split(b"\n") if line[:5] == b"data:"]
        return [_made(like, document) for document in documents if isinstance(document, dict)]


def _made(like: Any, document: dict[str, Any]) -> Any:
    """The document as an item of ``like``'s SDK, as leniently as that SDK reads its own."""
    if isinstance(like, Mapping):
        return document
    kinds = _kinds(type(like).__module__)
    kind = kinds.get(document.get("type", ""), type(like))
    if kind.__module__.partition(".")[0] in _LENIENT:
        return kind.construct(**document)
    return kind.model_validate(document)


@cache
def _kinds(module: str) -> dict[str, Any]:
    """The classes of a stream whose events are told apart by their ``type``."""
    name = next((_UNIONS[start] for start in _UNIONS if module.startswith(start)), None)
    if name is None:
        return {}
    members = get_args(get_args(getattr(sys.modules[name[0]], name[1]))[0])
    return {get_args(kind.model_fields["type"].annotation)[0]: kind for kind in members}


class _Text:
    """Plain text: each item is a frame of its own."""

    def __init__(self) -> None:
        self.state: StreamState = PlainText()

    def write(self, item: str) -> bytes:
        return item.encode("utf-8", "replace")

    def read(self, data: bytes, like: Any) -> list[str]:  # noqa: ARG002
        return [data.decode()] if data else []
