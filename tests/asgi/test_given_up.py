"""Who leaves before the output shows is charged for it: it was generated, and is billed."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx2
import pytest
from support.asgi import BODY, SSE, Wire, chunk

from streamguard import Guard, Limit, StreamGuardMiddleware
from streamguard.core.billing import Spent
from streamguard.guard import metered
from streamguard.sinks.memory import ListSink

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
WHOLE = {**BODY, "stream": False}
EMBEDDING = {"model": "text-embedding-3-small", "input": "hi"}
THINKING = {**BODY, "reasoning": {"exclude": True}}


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """A model that is done at once: what is charged is then the cap."""
    monkeypatch.setattr(metered, "TOKENS_A_SECOND", 10**12)


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


@pytest.fixture
async def guard(sink) -> Any:
    async with Guard([Limit(tokens=100_000, per="hour")], sinks=[sink]) as guard:
        yield guard


def left(wire: Wire, *before: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in before:
            await send(message)
        wire.left.set()
        await anyio.sleep(30)

    return app


async def abandon(guard: Guard, body: Any, *before: Any, path: str = CHAT) -> None:
    wire = Wire(json.dumps(body).encode(), path=path)
    await wire.through(StreamGuardMiddleware(left(wire, *before), guard=guard))


START = {"type": "http.response.start", "status": 200, "headers": SSE}
HELLO = {"type": "http.response.body", "body": chunk("Hello"), "more_body": True}


@pytest.mark.parametrize(
    ("body", "before", "output"),
    [
        (WHOLE, [], 50),
        ({**WHOLE, "n": 3}, [], 150),
        ({**BODY, "model": "o3"}, [], 50),
        (THINKING, [START, HELLO], 50),
        (BODY, [], 0),
        (BODY, [START, HELLO], 1),
    ],
)
async def test_output_that_nobody_saw_is_charged(guard, sink, body, before, output):
    await abandon(guard, body, *before)
    event = sink.events[-1]
    assert (event.outcome, event.charged.output_tokens) == ("disconnected", output)


async def test_a_call_without_output_has_none_to_charge(guard, sink):
    await abandon(guard, EMBEDDING, path="/v1/embeddings")
    assert sink.events[-1].charged.output_tokens == 0


async def test_what_a_call_inside_reports_is_known_better(guard, sink):
    wire = Wire(json.dumps(WHOLE).encode())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        inner = await guard.begin(await guard.subject(WHOLE, path=CHAT))
        await inner.finish(Spent("completed", metered.Usage(output_tokens=7)))
        await left(wire)(scope, receive, send)

    await wire.through(StreamGuardMiddleware(app, guard=guard))
    assert sink.events[-1].charged.output_tokens == 7


async def test_a_wrapped_client_that_gives_a_whole_response_up_is_charged(guard, sink):
    async def never(request: Any) -> Any:
        await anyio.sleep(30)

    transport = httpx2.MockTransport(never)
    async with guard.wrap(httpx2.AsyncClient(transport=transport, base_url="http://p")) as client:
        with anyio.move_on_after(0.05):
            await client.post(CHAT, json=WHOLE)
    (event,) = [one for one in sink.events if one.event == "settled"]
    assert (event.outcome, event.charged.output_tokens) == ("cancelled", 50)
