"""What stands around the middleware and inside it: other middlewares, odd apps, other scopes."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
from typing import Any

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route as Path
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient
from support.asgi import BODY, REQUEST, SSE, WHOLE, Wire, chunk
from support.books import Books
from support.servers import serve, wait_until

from streamguard import Guard, Identity, Limit, ProtocolError, StreamGuardMiddleware, Usage
from streamguard.asgi.exchange import Exchange
from streamguard.core.billing import Spent
from streamguard.guard.call import Call
from streamguard.guard.context import current_identity
from streamguard.guard.metered import MeteredStream
from streamguard.protocols import stream_named
from streamguard.sinks.memory import ListSink

pytestmark = pytest.mark.anyio
CHAT = "/v1/chat/completions"
PLAIN = {**BODY, "stream": False}


async def answered(request: Any) -> Any:
    await request.json()
    await anyio.sleep(0.05)  # long enough for a watcher that never waits to be in the way
    choice = {"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}
    return JSONResponse({"choices": [choice]})


class Replaying(BaseHTTPMiddleware):
    """The recipe by which bodies are logged: ``receive`` gives the same body for ever."""

    async def dispatch(self, request: Any, call_next: Any) -> Any:
        body = await request.body()

        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        request._receive = receive
        return await call_next(request)


def replaying(app: Any) -> Any:
    """The same without Starlette's help."""

    async def around(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]

        async def replay() -> Any:
            return {"type": "http.request", "body": body, "more_body": False}

        await app(scope, replay, send)

    return around


@pytest.mark.parametrize("around", [Replaying, replaying])
async def test_a_body_that_is_replayed_for_ever_holds_nobody_up(around, guard):
    inner = Starlette(routes=[Path(CHAT, answered, methods=["POST"])])
    app = around(StreamGuardMiddleware(inner, guard=guard))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://app") as client:
        with anyio.fail_after(10):
            reply = await client.post(CHAT, json=PLAIN)
    assert reply.status_code == 200


async def test_a_receive_that_fails_is_no_client_that_left(guard, sink):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await anyio.sleep(0.02)
        await send({"type": "http.response.start", "status": 200, "headers": SSE})
        for part in WHOLE:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    wire = Wire()
    first = wire.receive

    async def receive() -> Any:
        if not wire._waiting:
            raise RuntimeError("nothing more to receive")
        return await first()

    await StreamGuardMiddleware(app, guard=guard)(wire.scope, receive, wire.send)
    assert wire.body == b"".join(WHOLE)
    assert sink.events[-1].outcome == "completed"


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


@pytest.fixture
async def guard(sink: ListSink) -> Any:
    async with Guard([Limit(tokens=10_000, per="hour", name="w")], sinks=[sink]) as guard:
        yield guard


def swallowing(last: bytes) -> Any:
    """An endpoint that takes being cancelled for the client's leaving, as SSE recipes do."""

    async def chat(request: Any) -> Any:
        await request.body()

        async def words() -> Any:
            try:
                while True:
                    yield chunk(" word")
                    await anyio.sleep(0.02)
            except asyncio.CancelledError:
                yield last

        return StreamingResponse(words(), media_type="text/event-stream")

    return chat


@pytest.mark.parametrize("last", [b"", b"data: [DONE]\n\n"])
def test_an_app_that_swallows_its_cancellation_ends_in_the_protocols_form(last):
    book = Books(stream_seconds=0.3)
    inner = Starlette(routes=[Path(CHAT, swallowing(last), methods=["POST"])])
    with serve(StreamGuardMiddleware(inner, guard=book.guard)) as url:
        reply = httpx2.post(f"{url}{CHAT}", json=BODY, timeout=20)
        wait_until(lambda: book.ended, "not settled")
    assert b'"finish_reason":"length"' in reply.content[-400:]
    assert reply.content.endswith(b"data: [DONE]\n\n")
    assert book.outcomes == ["timed_out"]


def test_an_app_that_answers_its_cancellation_itself_is_a_timeout_all_the_same():
    async def chat(request: Any) -> Any:
        await request.body()
        try:
            await anyio.sleep(20)
        except asyncio.CancelledError:
            return JSONResponse({"detail": "oops"}, 500)

    book = Books(stream_seconds=0.2)
    inner = Starlette(routes=[Path(CHAT, chat, methods=["POST"])])
    with serve(StreamGuardMiddleware(inner, guard=book.guard)) as url:
        reply = httpx2.post(f"{url}{CHAT}", json=PLAIN, timeout=20)
        wait_until(lambda: book.ended, "not settled")
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "time_budget_exceeded")
    assert book.outcomes == ["timed_out"]


@pytest.mark.parametrize("failing", [False, True])
async def test_nothing_of_a_request_is_kept_alive_by_cycles(failing, guard):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if failing:
            raise ValueError("the app's own")
        await send({"type": "http.response.start", "status": 200, "headers": SSE})
        for part in WHOLE:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def ask() -> None:
        try:
            await Wire().through(StreamGuardMiddleware(app, guard=guard))
        except ValueError:
            assert failing

    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            await asyncio.create_task(ask())
        await anyio.sleep(0.01)
        alive = [type(each) for each in gc.get_objects() if isinstance(each, (Exchange, Call))]
    finally:
        gc.enable()
    assert alive == []


@pytest.mark.parametrize("path", [CHAT, "/ask"])
@pytest.mark.parametrize("body", [REQUEST, json.dumps({**PLAIN, "n": 1}).encode()])
async def test_the_app_alone_keeps_the_body_while_it_streams(path, body, guard):
    """An object that only the app holds has as many references as in an app unguarded."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kept = (await receive())["body"]
        counts.append(sys.getrefcount(kept))
        assert json.loads(kept)["model"] == "gpt-4o"

    class Once(Wire):
        async def receive(self) -> Any:
            if self._waiting:
                return {"type": "http.request", "body": self._waiting.pop(), "more_body": False}
            return await super().receive()

    counts: list[int] = []
    fresh = [bytes(bytearray(body)) for _ in range(2)]
    await Once(fresh.pop(), path).through(app)
    await Once(fresh.pop(), path).through(StreamGuardMiddleware(app, guard=guard))
    assert counts[1] <= counts[0]


async def test_whoever_calls_inside_a_websocket_is_who_identify_says(guard):
    async def talk(socket: Any) -> None:
        await socket.accept()
        await socket.send_text((await current_identity()).tenant or "nobody")
        await socket.close()

    inner = Starlette(routes=[WebSocketRoute("/ws/chat", talk), WebSocketRoute("/responses", talk)])
    app = StreamGuardMiddleware(
        inner,
        guard=guard,
        identify=lambda scope: Identity(scope["query_string"].decode()),
        routes={"/responses": None},
    )
    with TestClient(app) as client:
        for path in ("/ws/chat?acme", "/responses?acme"):  # the second is exempted
            with client.websocket_connect(path) as socket:
                assert socket.receive_text() == "acme"


async def test_metrics_around_see_which_route_it_was(guard):
    async def named(request: Any) -> Any:
        return JSONResponse({"choices": []})

    inner = Starlette(routes=[Path("/v1/{rest:path}", named, methods=["POST"])])
    wire = Wire()
    await wire.through(StreamGuardMiddleware(inner, guard=guard))
    assert wire.scope["path_params"] == {"rest": "chat/completions"}
    assert wire.scope["endpoint"] is named
    assert {"headers", "extensions"} & wire.scope.keys() == {"headers"}


def test_a_client_that_leaves_early_is_no_error_of_the_middlewares_around(caplog):
    class Around(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            return await call_next(request)

    async def slow(request: Any) -> Any:
        await request.body()
        begun.append(True)
        await anyio.sleep(20)

    begun: list[bool] = []
    book = Books()
    inner = Starlette(routes=[Path(CHAT, slow, methods=["POST"])])
    app = Around(StreamGuardMiddleware(inner, guard=book.guard))
    with caplog.at_level(logging.ERROR), serve(app) as url:
        with pytest.raises(httpx2.TimeoutException):
            httpx2.post(f"{url}{CHAT}", json=PLAIN, timeout=0.3)
        wait_until(lambda: book.ended, "not settled")
    assert begun
    assert book.outcomes == ["disconnected"]
    assert caplog.records == []


async def test_a_call_that_is_cancelled_as_it_gets_its_budget_holds_nothing():
    """At whatever step of the loop: the line is left, or the call is settled."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(20)

    for steps in range(60):
        limit = Limit(tokens=10_000, per="hour", name="w")
        async with Guard([limit], sinks=[], queue={}) as guard:
            middleware = StreamGuardMiddleware(app, guard=guard)
            task = asyncio.create_task(Wire().through(middleware))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            await guard.books.close()
            assert (await guard.preflight(BODY)).balances["w"].held == 0, steps


async def test_a_call_that_is_cancelled_in_line_leaves_it():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": SSE})

    limit = Limit(tokens=60, per="hour", name="w")
    async with Guard([limit], sinks=[], queue={"max_wait": 3_600}) as guard:
        call = await guard.begin(await guard.subject(BODY, path=CHAT))
        waits = asyncio.create_task(Wire().through(StreamGuardMiddleware(app, guard=guard)))
        while not guard.waiting:
            await anyio.sleep(0.001)
        waits.cancel()
        await asyncio.wait([waits])
        assert guard.waiting == []
        await call.finish(Spent("cancelled", billed=False))


async def test_other_scopes_pass(guard):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    seen: list[str] = []
    await Wire(type="job").through(StreamGuardMiddleware(app, guard=guard))
    assert seen == ["job"]


async def test_a_long_stream_through_the_middleware_holds_more_on_its_way():
    text = "tide lamp fog boat bread letter " * 200

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": SSE})
        for word in text.split():
            part = chunk(f" {word}")
            await send({"type": "http.response.body", "body": part, "more_body": True})
        end = chunk("", "stop") + b"data: [DONE]\n\n"
        await send({"type": "http.response.body", "body": end})

    async with Guard([Limit(tokens=10_000, per="hour")], sinks=[]) as guard:
        request = {**BODY, "max_completion_tokens": 2_000}
        for _ in range(20):  # the guard learns that answers are short
            short = await guard.begin(await guard.subject(request, path=CHAT))
            await short.finish(Spent("completed", Usage(output_tokens=40)))
        wire = Wire(json.dumps(request).encode())
        await wire.through(StreamGuardMiddleware(app, guard=guard))
    assert b'"finish_reason": "stop"' in wire.body
    assert wire.body.count(b'"content"') == len(text.split())


async def test_of_a_long_error_only_the_beginning_is_kept(guard, sink, monkeypatch):
    monkeypatch.setattr("streamguard.asgi.responder.MAX_ERROR_BYTES", 10)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 400, "headers": []})
        for part in (b"context_length", b"_exceeded: ", b"maximum context length"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    for _ in range(2):  # what was not read is not learnt from: the second is no repetition
        wire = await Wire().through(StreamGuardMiddleware(app, guard=guard))
        assert wire.status == 400
        assert wire.body == b"context_length_exceeded: maximum context length"
    assert [event.outcome for event in sink.events if event.event == "released"] == [
        "error_response",
        "error_response",
    ]


async def test_a_format_that_cannot_end_is_the_providers_error(guard):
    class Unending:
        """A state that cannot finish."""

        def __init__(self) -> None:
            self._state = stream_named("openai_chat")()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._state, name)

        def finish(self) -> Any:
            raise ProtocolError("an event is over the size cap")

    call = await guard.begin(await guard.subject(BODY, path=CHAT))
    state: Any = Unending()
    stream = MeteredStream(call, state)
    assert stream.feed(chunk("Hello")) == chunk("Hello")
    assert b"error" in stream.finish()
    assert stream.spent("completed").outcome == "upstream_error"
    await call.finish(stream.spent("completed"))


class Server:
    """A server's side of a lifespan."""

    def __init__(self) -> None:
        self.said: list[str] = []

    async def run(self, app: Any) -> None:
        words = iter(["startup", "shutdown"])

        async def receive() -> Any:
            return {"type": f"lifespan.{next(words)}"}

        async def send(message: Any) -> None:
            self.said.append(message["type"].removeprefix("lifespan."))

        await app({"type": "lifespan"}, receive, send)


class Closing(ListSink):
    closed = False

    async def close(self) -> None:
        self.closed = True


async def fails(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError("this app can only handle HTTP")


async def returns(scope: Any, receive: Any, send: Any) -> None:
    return None


@pytest.mark.parametrize("app", [fails, returns])
async def test_the_guard_has_a_lifespan_where_the_app_has_none(app):
    sink, server = Closing(), Server()
    await server.run(StreamGuardMiddleware(app, guard=Guard(sinks=[sink])))
    assert server.said == ["startup.complete", "shutdown.complete"]
    assert sink.closed


async def test_a_start_that_fails_closes_the_guard():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise RuntimeError("no database")

    sink, server = Closing(), Server()
    with pytest.raises(RuntimeError, match="no database"):
        await server.run(StreamGuardMiddleware(app, guard=Guard(sinks=[sink])))
    assert server.said == ["startup.failed"]
    assert sink.closed
