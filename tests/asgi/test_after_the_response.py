"""What an app does beside its response: background tasks, its own errors, start and end."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from support.asgi import BODY, SSE, WHOLE, Wire, chunk

from streamguard import (
    ConfigurationError,
    Guard,
    Limit,
    StoreUnavailableError,
    StreamGuardMiddleware,
)
from streamguard.sinks.memory import ListSink
from streamguard.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio

MESSAGE = {"choices": [{"index": 0, "message": {"content": "Hi"}, "finish_reason": "stop"}]}


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


def answering(answer: Any) -> Starlette:
    async def chat(request: Request) -> Response:
        await request.body()
        return answer()

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


async def pieces(before: Any = None) -> Any:
    if before is not None:
        await before()
    for part in WHOLE:
        yield part


def streamed(after: Any, before: Any = None) -> Any:
    task = BackgroundTask(after)
    return lambda: StreamingResponse(
        pieces(before), media_type="text/event-stream", background=task
    )


def whole(after: Any) -> Any:
    return lambda: JSONResponse(MESSAGE, background=BackgroundTask(after))


def fail() -> Response:
    raise ValueError("broken")


async def broken() -> None:
    raise ValueError("broken")


@pytest.mark.parametrize("answer", [streamed, whole])
async def test_time_budgets_end_with_the_response(answer):
    ran = []

    async def after() -> None:
        await anyio.sleep(0.5)
        ran.append(True)

    async with Guard(sinks=[], stream_seconds=0.3) as guard:
        await Wire().through(StreamGuardMiddleware(answering(answer(after)), guard=guard))
    assert ran == [True]


async def test_a_drained_stream_keeps_its_background_task():
    ran = []

    async def leave() -> None:
        wire.left.set()
        await anyio.sleep(0.01)

    async def after() -> None:
        await anyio.sleep(0.5)
        ran.append(True)

    wire = Wire()
    app = answering(streamed(after, leave))
    async with Guard(sinks=[], on_disconnect="drain", drain_seconds=0.3) as guard:
        await wire.through(StreamGuardMiddleware(app, guard=guard))
    assert ran == [True]


@pytest.mark.parametrize("answer", [fail, streamed(broken), whole(broken)])
async def test_errors_after_a_response_reach_the_server(answer):
    async with Guard(sinks=[]) as guard:
        with pytest.raises(ValueError, match="broken"):
            await Wire().through(StreamGuardMiddleware(answering(answer), guard=guard))


@pytest.mark.parametrize("answer", [streamed, whole])
async def test_a_call_after_the_response_is_charged_by_itself(sink, answer):
    async def words() -> Any:
        yield "hello"

    async def after() -> None:
        async with guard.stream(words(), model="gpt-4o", messages=BODY["messages"]) as stream:
            assert [piece async for piece in stream] == ["hello"]

    limit = Limit(requests=10, per="hour", name="w")
    async with Guard([limit], sinks=[sink]) as guard:
        await Wire().through(StreamGuardMiddleware(answering(answer(after)), guard=guard))
        assert (await guard.preflight(BODY)).balances["w"].used == 2
    assert [event.within for event in sink.events if event.event == "preflight"] == [None, None]


async def test_an_app_that_only_looks_sees_that_its_client_left(sink):
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        await request.body()
        seen.append(await request.is_disconnected())
        wire.left.set()
        try:
            await anyio.sleep(30)
        finally:
            with anyio.CancelScope(shield=True):
                seen.append(await request.is_disconnected())

    wire = Wire()
    async with Guard(sinks=[sink]) as guard:
        await wire.through(StreamGuardMiddleware(app, guard=guard))
    assert seen == [False, True]


async def test_a_stalled_answer_without_a_body_is_not_answered_twice(sink):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await anyio.sleep(30)

    async with Guard(sinks=[sink], stream_seconds=0.02) as guard:
        wire = await Wire().through(StreamGuardMiddleware(app, guard=guard))
    assert [message["type"] for message in wire.got] == ["http.response.start"]


async def test_a_send_that_fails_at_the_time_out_is_raised_as_it_is():
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": SSE})
        await send({"type": "http.response.body", "body": chunk("Hi"), "more_body": True})
        await anyio.sleep(30)

    async def send(message: Any) -> None:
        if message.get("more_body") is False:
            raise OSError("gone")

    wire = Wire()
    async with Guard(sinks=[], stream_seconds=0.02) as guard:
        with pytest.raises(OSError, match="gone"):
            await StreamGuardMiddleware(app, guard=guard)(wire.scope, wire.receive, send)


async def test_an_end_sent_after_the_app_returned_is_not_settled_again(sink):
    sends = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": SSE})
        sends.append(send)

    async with Guard(sinks=[sink]) as guard:
        await Wire().through(StreamGuardMiddleware(app, guard=guard))
        await sends[0]({"type": "http.response.body", "body": b"".join(WHOLE)})
    assert [event.event for event in sink.events] == ["preflight", "started", "settled"]


async def test_trailers_are_not_offered():
    offered = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        offered.append(scope["extensions"])

    async with Guard(sinks=[]) as guard:
        wire = Wire(extensions={"http.response.trailers": {}, "http.response.early_hint": {}})
        await wire.through(StreamGuardMiddleware(app, guard=guard))
    assert offered == [{"http.response.early_hint": {}}]


@pytest.mark.parametrize(
    ("path", "endpoint"), [("/api/chat", "/chat"), ("/apichat", "/apichat"), ("/chat", "/chat")]
)
async def test_a_mount_prefix_ends_at_a_slash(sink, path, endpoint):
    async with Guard(sinks=[sink]) as guard:
        app = StreamGuardMiddleware(
            answering(fail), guard=guard, routes={endpoint: "openai_chat"}, unlisted="pass"
        )
        await Wire(path=path, root_path="/api").through(app)
    assert sink.events[0].endpoint == endpoint


class Unopened(MemoryStore):
    """A store that cannot be opened."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    async def open(self) -> None:
        raise self.error


async def started(app: Any, sent: list[Any]) -> None:
    waiting = [{"type": "lifespan.shutdown"}, {"type": "lifespan.startup"}]

    async def receive() -> Any:
        return waiting.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "lifespan"}, receive, send)


async def test_a_guard_that_cannot_work_stops_the_start():
    sent: list[Any] = []
    guard = Guard(sinks=[], store=Unopened(ConfigurationError("set maxmemory-policy")))
    with pytest.raises(ConfigurationError):
        await started(StreamGuardMiddleware(Starlette(), guard=guard), sent)
    assert sent == [{"type": "lifespan.startup.failed", "message": "set maxmemory-policy"}]


async def test_an_app_starts_without_its_store():
    sent: list[Any] = []
    limits = [Limit(tokens=10_000, per="hour")]
    guard = Guard(limits, sinks=[], store=Unopened(StoreUnavailableError("away")))
    app = StreamGuardMiddleware(Starlette(), guard=guard)
    await started(app, sent)
    kinds = [message["type"] for message in sent]
    assert kinds == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert (await Wire().through(app)).status == 503
