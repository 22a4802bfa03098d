"""Time budgets: first token, idle, whole stream."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.asgi import SSE, WHOLE, Wire, chunk

from streamguard import ConfigurationError, Guard, StreamGuardMiddleware
from streamguard.guard.deadlines import Deadlines
from streamguard.guard.settings import Settings
from streamguard.sinks.memory import ListSink

pytestmark = pytest.mark.anyio


def slow(*pauses: float, first: float = 0.0) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await anyio.sleep(first)
        await send({"type": "http.response.start", "status": 200, "headers": SSE})
        for number, pause in enumerate(pauses):
            await anyio.sleep(pause)
            text = chunk(f" w{number}")
            await send({"type": "http.response.body", "body": text, "more_body": True})
        await send({"type": "http.response.body", "body": b"".join(WHOLE)})

    return app


async def run(app: Any, **settings: Any) -> tuple[Wire, Any]:
    sink = ListSink()
    async with Guard(sinks=[sink], **settings) as guard:
        wire = await Wire().through(StreamGuardMiddleware(app, guard=guard))
    return wire, sink.events[-1]


async def test_no_answer_in_time_is_a_504():
    wire, event = await run(slow(first=30), first_token_seconds=0.02)
    assert wire.status == 504
    error = json.loads(wire.body)["error"]
    assert error["code"] == "time_budget_exceeded"
    assert "first token time budget of 0.02 s" in error["message"]
    assert event.outcome == "timed_out"


async def test_a_whole_reply_that_stops_midway_is_a_504():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{", "more_body": True})
        await anyio.sleep(30)

    wire, event = await run(app, stream_seconds=0.02)
    assert wire.status == 504
    assert event.outcome == "timed_out"


async def test_an_error_response_that_never_ends_is_let_go():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await anyio.sleep(30)

    wire, event = await run(app, stream_seconds=0.02)
    assert wire.status == 500
    assert event.event == "released"


async def test_no_first_token_in_time_ends_with_an_error():
    wire, event = await run(slow(30), first_token_seconds=0.02)
    assert wire.status == 200
    assert b"time budget" in wire.body
    assert event.outcome == "timed_out"


async def test_an_idle_stream_ends_with_an_error():
    wire, event = await run(slow(0, 0, 30), idle_seconds=0.05)
    assert b" w1" in wire.body
    assert b"idle time budget" in wire.body
    assert event.outcome == "timed_out"
    assert event.charged.output_tokens == 4


async def test_a_stream_over_its_time_ends_in_the_protocols_form():
    wire, event = await run(slow(*[0.005] * 1_000), stream_seconds=0.1, idle_seconds=10)
    assert b'"finish_reason":"length"' in wire.body
    assert wire.body.endswith(b"data: [DONE]\n\n")
    assert event.outcome == "timed_out"


async def test_a_stream_in_time_is_left_alone():
    wire, event = await run(slow(0, 0), idle_seconds=10, stream_seconds=20, first_token_seconds=5)
    assert wire.body.endswith(b"".join(WHOLE))
    assert event.outcome == "completed"


async def test_an_app_that_stops_itself_is_not_late():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with anyio.move_on_after(0.01):
            await anyio.sleep(30)

    _, event = await run(app, stream_seconds=10)
    assert event.outcome == "cancelled"


def test_a_time_budget_must_be_more_than_nothing():
    with pytest.raises(ConfigurationError, match="idle_seconds"):
        Settings(idle_seconds=0)


seconds = st.none() | st.floats(0.1, 100)


@given(first=seconds, idle=seconds, whole=seconds, steps=st.lists(st.floats(0, 50), max_size=20))
def test_deadlines_never_come_late(first, idle, whole, steps):
    settings = Settings(first_token_seconds=first, idle_seconds=idle, stream_seconds=whole)
    deadlines = Deadlines(settings, 0.0)
    now, last, started = 0.0, 0.0, False
    for step in steps:
        now += step
        waited = now - last if started else now
        limit = idle if started else first
        late = (limit is not None and waited >= limit) or (whole is not None and now >= whole)
        error = deadlines.lapsed(now)
        if (error is not None) is not late:  # rounding at the very edge
            assert deadlines.due == pytest.approx(now)
        if error is not None:
            assert error.lapse in ("first_token", "idle", "stream")
            return
        deadlines.progress(now, started=True)
        last, started = now, True
