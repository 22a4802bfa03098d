"""Anthropic Messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import msgspec

from streamguard.core.prompt import Prompt
from streamguard.core.wire import Delta, EndReason, Reply, Request, Served
from streamguard.errors import StreamGuardError
from streamguard.protocols import extras, fields
from streamguard.protocols.anthropic_prompt import render
from streamguard.protocols.slots import Slot, deltas_of, keep, objects
from streamguard.protocols.streaming import JSONStream
from streamguard.usage import Usage

LEAST_THINKING = 1024
"""Smallest thinking budget the API takes; it must also be below max_tokens."""

_ERRORS = {400: "invalid_request_error", 413: "request_too_large", 415: "invalid_request_error",
           429: "rate_limit_error", 503: "overloaded_error"}  # fmt: skip
_APART = frozenset({"compaction", "advisor_message"})
_KINDS = {"text": "content", "thinking": "reasoning", "partial_json": "tool"}


def block_slots(block: Mapping[str, Any], index: int) -> Iterator[Slot]:
    """Text of a content block, or of a delta of one: the keys are the same."""
    holder: Any = block
    for key, kind in _KINDS.items():
        yield Slot((index, kind), holder, (key,))
    if fields.word(block) in {"tool_use", "server_tool_use", "mcp_tool_use"}:
        yield Slot((index, "tool"), holder, ("name",), whole=True)
        if block.get("input"):
            yield Slot((index, "tool"), holder, ("input",), whole=True)


def read_usage(usage: Any) -> Usage:
    """Anthropic's usage: cache reads and writes come on top of ``input_tokens`` there.

    Source: ``BetaUsage`` in the SDK, of ``iterations``: "A `compaction` entry's tokens are not
    included in the top-level `usage` fields"; an advisor's are not, either.
    """
    mine = _own_usage(usage)
    for one in objects(usage.get("iterations")) if isinstance(usage, Mapping) else ():
        if fields.word(one) in _APART:
            pairs = zip(mine.fields(), _own_usage(one).fields(), strict=True)
            mine = Usage(*(None if own is None else own + (more or 0) for own, more in pairs))
    return mine


def _own_usage(usage: Any) -> Usage:
    parts = [
        fields.count(usage, name)
        for name in ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    ]
    given = sum(part or 0 for part in parts) if parts[0] is not None else None
    thought = fields.count(usage, "output_tokens_details", "thinking_tokens")
    made = fields.count(usage, "output_tokens")
    searches = fields.count(usage, "server_tool_use", "web_search_requests")
    return Usage(
        given,
        made,
        thought,
        parts[2],
        parts[1],
        long_cache_write_tokens=fields.count(usage, "cache_creation", "ephemeral_1h_input_tokens"),
        web_searches=0 if searches is None and made is not None else searches,
    )


def served(request: Request, message: Mapping[str, Any]) -> Served:
    """Who answered. The usage tells the speed; a tier beside it says nothing of that."""
    usage = fields.child(message, "usage")
    name = "speed" if "speed" in usage or request.body.get("speed") else "service_tier"
    return Served(fields.word(message, "model"), fields.word(usage, name))


def _places(body: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """Where ``cache_control`` may stand: a block, a tool or the body itself."""
    turns = [*objects(body.get("messages")), *objects(body.get("tools"))]
    blocks = (block for turn in turns for block in objects(turn.get("content")))
    return (body, *turns, *objects(body.get("system")), *blocks)


class _TextDelta(msgspec.Struct, gc=False):
    text: str
    thinking: Any = None
    partial_json: Any = None


class _TextEvent(msgspec.Struct, gc=False):
    type: Literal["content_block_delta"]
    delta: _TextDelta
    index: int = 0


_decode_text = msgspec.json.Decoder(_TextEvent).decode


class MessagesStream(JSONStream):
    """One stream of events that each carry their ``type``; blocks open and close in turn."""

    def __init__(self, request: Request) -> None:
        super().__init__()
        self._request = request
        self._started = False
        self._open: set[int] = set()

    def quick(self, data: bytes) -> Sequence[Delta] | None:
        """A piece of text."""
        try:
            event = _decode_text(data)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        delta = event.delta
        more = delta.thinking is not None or delta.partial_json is not None
        if not delta.text or more or event.index < 0:
            return None
        return (Delta((event.index, "content"), delta.text),)

    def slots(self, doc: dict[str, Any]) -> Iterator[Slot]:
        """Text of a block's start and of its deltas."""
        for part in objects([doc.get("content_block"), doc.get("delta")]):
            yield from block_slots(part, fields.count(doc, "index") or 0)

    def observe(self, doc: dict[str, Any], name: str) -> bool:
        """Follow the blocks; ``message_start`` only holds a placeholder of the output."""
        kind, index = fields.word(doc), fields.count(doc, "index") or 0
        if kind == "message_start":
            self._started = True
            message = fields.child(doc, "message")
            self._served = served(self._request, message)
            start = read_usage(message.get("usage"))
            self._reported = replace(start, output_tokens=None, reasoning_tokens=None)
        elif kind == "content_block_start":
            self._open.add(index)
            block = fields.child(doc, "content_block")
            if fields.word(block) == "server_tool_use" and block.get("name") == "web_search":
                count = (self._reported.web_searches or 0) + 1
                self._reported = replace(self._reported, web_searches=count)
        elif kind == "content_block_stop":
            self._open.discard(index)
        elif kind == "message_delta":
            self._reported = self._reported.merged(read_usage(doc.get("usage")))
        elif kind in {"message_stop", "error"} or name == "error":
            self._ended = True
        return False

    def reopen(self, doc: dict[str, Any]) -> bool:
        """Drop deltas without text, and a tool's block when its name is dropped."""
        kind = fields.word(doc)
        if kind == "content_block_delta":
            return any(True for slot in self.slots(doc) if slot.text)
        block = fields.child(doc, "content_block")
        if kind == "content_block_start" and block.get("name") == "":
            self._open.discard(fields.count(doc, "index") or 0)
            return False
        return True

    def write(self, doc: Any, name: str = "") -> bytes:
        """Events without an ``event:`` line are dropped by Anthropic's clients."""
        return super().write(doc, name or fields.word(doc))

    def end(self, reason: EndReason, usage: Usage, error: StreamGuardError | None = None) -> bytes:
        """Stop open blocks, say ``max_tokens`` (never ``tool_use``), stop the message."""
        if not self.close():
            return b""
        if reason != "cut":
            return self.write(refusal(fields.ending_error(error), {}))
        events: list[dict[str, Any]] = [] if self._started else [self._start(usage)]
        events += [{"type": "content_block_stop", "index": index} for index in sorted(self._open)]
        events.append(
            {
                "type": "message_delta",
                "delta": {"stop_reason": "max_tokens", "stop_sequence": None},
                "usage": {"output_tokens": usage.output_tokens or 0},
                **fields.figures(error),
            }
        )
        events.append({"type": "message_stop"})
        return b"".join(map(self.write, events))

    def _start(self, usage: Usage) -> dict[str, Any]:
        tokens = {"input_tokens": usage.input_tokens or 0, "output_tokens": 0}
        message: dict[str, Any] = {
                   "id": "msg_streamguard", "type": "message", "role": "assistant", "content": [],
                   "model": self._request.model, "stop_reason": None, "stop_sequence": None,
                   "usage": tokens}  # fmt: skip
        return {"type": "message_start", "message": message}


def refusal(error: StreamGuardError, numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Anthropic's error envelope, with the code and ``streamguard`` numbers beside its fields."""
    body: dict[str, Any] = {
        "type": _ERRORS.get(error.http_status, "api_error"),
        "message": error.message,
        "code": error.http_code,
    }
    return {"type": "error", "error": {**body, "streamguard": dict(numbers)} if numbers else body}


class Anthropic:
    """The protocol; it holds nothing, one object serves all requests."""

    name = "anthropic"

    def parse(self, body: Mapping[str, Any], path: str) -> Request:
        """Read a request body.

        Raises:
            ProtocolError: see ``WireProtocol.parse``.
        """
        fields.check_spelling(body)
        model, *others = fields.models_of(body)
        fields.objects(body, "messages")
        fields.whole(fields.mapping(body, "thinking"), "budget_tokens")
        places = _places(body)
        return Request(
            protocol=self.name,
            model=model,
            body=body,
            stream=fields.flag(body, "stream"),
            output_cap=fields.whole(body, "max_tokens", least=0),
            cap_field="max_tokens",
            opaque=fields.opaque(body, "container", "mcp_servers"),
            writes_cache=any("cache_control" in place for place in places),
            also=tuple(others),
            tier=fields.tier_of(body, "speed", "service_tier"),
            extras=extras.of_anthropic(body, places),
        )

    def prompt(self, request: Request) -> Prompt:
        """The prompt as the provider bills it."""
        return render(request.body, request.model)

    def rewrite(self, request: Request, output_cap: int | None) -> Mapping[str, Any]:
        """Clamp the cap and, below it, the thinking budget; too small a one turns it off."""
        changes = fields.clamp(request, output_cap)
        thinking = fields.mapping(request.body, "thinking")
        cap = changes.get("max_tokens")
        budget = thinking.get("budget_tokens")
        if cap is not None and budget is not None and budget >= cap:
            most = cap - 1
            fits = {**thinking, "budget_tokens": most}
            changes["thinking"] = fits if most >= LEAST_THINKING else {"type": "disabled"}
        return {**request.body, **changes} if changes else request.body

    def stream(self, request: Request) -> MessagesStream:
        """A new state for this request's response stream."""
        return MessagesStream(request)

    def read_reply(self, request: Request, body: bytes) -> Reply:
        """Text and usage of a whole response; an empty Reply when it is not the protocol's."""
        doc = fields.read_object(body)
        return Reply(
            deltas_of(_reply_slots(doc)), read_usage(doc.get("usage")), served(request, doc)
        )

    def shorten_reply(self, request: Request, body: bytes, kept: Sequence[Delta]) -> bytes:
        """The whole response with its texts cut and ``stop_reason: "max_tokens"``."""
        doc = fields.read_object(body)
        keep(_reply_slots(doc), kept)
        doc["stop_reason"] = "max_tokens"
        return fields.write_json(doc)

    def refusal(self, error: StreamGuardError, numbers: Mapping[str, Any]) -> Mapping[str, Any]:
        """Anthropic's error envelope."""
        return refusal(error, numbers)


def _reply_slots(doc: dict[str, Any]) -> Iterator[Slot]:
    for index, block in enumerate(objects(doc.get("content"))):
        yield from block_slots(block, index)
