"""Soft limits warn, observe mode only tells: neither stops a call."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamguard import Guard, Limit, ProtocolError, StoreUnavailableError, Usage
from streamguard.core.billing import Spent
from streamguard.guard.metered import MeteredStream, measured
from streamguard.sinks.memory import ListSink
from streamguard.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}


class Away(MemoryStore):
    async def reserve(self, *args: Any, **kwargs: Any) -> Any:
        raise StoreUnavailableError("away")


async def begin(guard: Guard, body: dict[str, Any] = BODY) -> Any:
    return await guard.begin(await guard.subject(body, path="/v1/chat/completions"))


def warned(sink: ListSink) -> list[Any]:
    return [(e.limit_name, e.used) for e in sink.events if e.event == "warned"]


async def test_soft_limits_warn():
    sink = ListSink()
    limits = [
        Limit(tokens=60, per="hour", name="window", soft=True),
        Limit(output_tokens=10, name="request", soft=True),
    ]
    async with Guard(limits, sinks=[sink]) as guard:
        first = await begin(guard)
        assert first.allowance == 50
        await first.finish(Spent("completed", Usage(output_tokens=50)))
        await begin(guard)
    assert warned(sink) == [("request", None), ("request", None), ("window", 116)]


@pytest.mark.parametrize("store", [MemoryStore(), Away()])
async def test_observe_mode_blocks_nothing_and_tells(store):
    sink = ListSink()
    limits = [
        Limit(tokens=10, per="hour", name="window"),
        Limit(output_tokens=3, name="request"),
        Limit(input_tokens=3, name="prompt"),
    ]
    long = {**BODY, "messages": [{"role": "user", "content": "word " * 130_000}]}
    async with Guard(limits, sinks=[sink], store=store, observe=True) as guard:
        call = await begin(guard)
        assert call.body is BODY
        head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
        choice = {"index": 0, "delta": {"content": "one two three four five six"}}
        data = b"data: " + json.dumps({**head, "choices": [choice]}).encode() + b"\n\n"
        stream = MeteredStream(call)
        assert stream.feed(data) is data
        message = {"message": {"content": "one two three four five"}, "index": 0}
        reply = json.dumps({"choices": [message]}).encode()
        assert measured(call, reply)[0] is reply
        await call.finish(stream.spent("completed"))
        await begin(guard, long)
        await begin(guard, long)
        await begin(guard, {**BODY, "model": "unpriced"})
        with pytest.raises(ProtocolError):
            await begin(guard, {**BODY, "max_tokens": "many"})
    names = {name for name, _ in warned(sink)}
    assert names >= {"request", "prompt", None}
    assert ("window" in names) is not isinstance(store, Away)
    assert "refused" not in {event.event for event in sink.events}
