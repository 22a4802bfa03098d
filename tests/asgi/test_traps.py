"""The ASGI traps, message by message: no server, so that each can be set exactly."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from support.asgi import BODY, REQUEST, SSE, WHOLE, Wire, chunk

from streamguard import (
    ConfigurationError,
    Guard,
    Identity,
    Limit,
    Route,
    StreamGuardMiddleware,
)
from streamguard.sinks.memory import ListSink

pytestmark = pytest.mark.anyio


def replying(parts: list[bytes], headers: Any = SSE, status: int = 200, last: bytes = b"") -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        app.scope = scope
        app.body = await receive()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": last})
        await send({"type": "http.response.body", "body": b"after the end"})

    return app


@pytest.fixture
def sink() -> ListSink:
    return ListSink()


@pytest.fixture
async def guard(sink: ListSink) -> Any:
    async with Guard([Limit(tokens=10_000, per="hour", name="w")], sinks=[sink]) as guard:
        yield guard


async def held(guard: Guard) -> int:
    return (await guard.preflight(BODY)).balances["w"].held


async def test_stream_headers_bytes_and_end(guard, sink):
    app = replying(WHOLE)
    wire = await Wire().through(StreamGuardMiddleware(app, guard=guard))
    assert wire.body == b"".join(WHOLE)
    assert b"content-length" not in wire.headers
    assert wire.got[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert json.loads(app.body["body"])["stream_options"] == {"include_usage": True}
    sent = dict(app.scope["headers"])
    assert sent[b"content-length"] == str(len(app.body["body"])).encode()
    assert [event.event for event in sink.events] == ["preflight", "started", "settled"]
    assert await held(guard) == 0


async def test_an_unchanged_body_is_replayed_as_it_came(guard):
    body = json.dumps({**BODY, "stream": False, "max_completion_tokens": 9}, indent=3).encode()
    app = replying([], headers=[(b"content-type", b"application/json")], last=b"{}")
    await Wire(body).through(StreamGuardMiddleware(app, guard=guard))
    assert app.body["body"] == body


async def test_the_app_sees_the_disconnect_and_is_stopped(guard, sink):
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": SSE})
        await send({"type": "http.response.body", "body": chunk("Hi"), "more_body": True})
        wire.left.set()
        try:
            await anyio.sleep(30)
        finally:
            with anyio.CancelScope(shield=True):
                seen.append(await receive())

    wire = Wire()
    await wire.through(StreamGuardMiddleware(app, guard=guard))
    assert seen == [{"type": "http.disconnect"}]
    assert sink.events[-1].outcome == "disconnected"
    assert await held(guard) == 0


async def test_drain_lets_the_app_finish_after_the_client_left(sink):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": SSE})
        wire.left.set()
        for part in WHOLE:
            await anyio.sleep(0.001)
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with Guard(sinks=[sink], on_disconnect="drain", drain_seconds=20) as guard:
        wire = Wire()
        await wire.through(StreamGuardMiddleware(app, guard=guard))
    assert sink.events[-1].outcome == "disconnected"
    assert sink.events[-1].charged.output_tokens == 2


async def test_drain_is_bounded(sink):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        wire.left.set()
        await anyio.sleep(30)

    async with Guard(sinks=[sink], on_disconnect="drain", drain_seconds=0.01) as guard:
        wire = Wire()
        await wire.through(StreamGuardMiddleware(app, guard=guard))
    assert sink.events[-1].outcome == "disconnected"


async def test_an_app_error_is_raised_and_nothing_is_held(guard, sink):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await Wire().through(StreamGuardMiddleware(app, guard=guard))
    assert [event.event for event in sink.events] == ["preflight", "released"]
    assert await held(guard) == 0


async def test_an_error_of_a_cancelled_app_stays_inside(sink):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": SSE})
        try:
            for _ in range(100):
                await send({"type": "http.response.body", "body": chunk(" a"), "more_body": True})
                await anyio.lowlevel.checkpoint()
        finally:
            raise RuntimeError("while closing")

    async with Guard([Limit(output_tokens=3)], sinks=[sink]) as guard:
        wire = await Wire().through(StreamGuardMiddleware(app, guard=guard))
    assert wire.body.endswith(b"data: [DONE]\n\n")
    assert sink.events[-1].outcome == "cut"


async def test_a_server_that_cancels_the_request_still_gets_it_settled(guard, sink):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": SSE})
        await send({"type": "http.response.body", "body": chunk("Hi"), "more_body": True})
        scope_of_the_server.cancel()
        await anyio.sleep(30)

    with anyio.CancelScope() as scope_of_the_server:
        await Wire().through(StreamGuardMiddleware(app, guard=guard))
    assert sink.events[-1].outcome == "cancelled"
    assert sink.events[-1].charged.output_tokens == 1
    assert await held(guard) == 0


async def test_an_app_that_never_answers_holds_nothing(guard, sink):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    await Wire().through(StreamGuardMiddleware(app, guard=guard))
    assert sink.events[-1].outcome == "cancelled"
    assert await held(guard) == 0


async def test_file_sending_extensions_are_hidden_from_the_app(guard):
    app = replying(WHOLE)
    extensions = {"http.response.pathsend": {}, "http.response.debug": {}}
    wire = Wire(extensions=extensions)
    await wire.through(StreamGuardMiddleware(app, guard=guard))
    assert app.scope["extensions"] == {"http.response.debug": {}}
    assert "http.response.pathsend" in wire.scope["extensions"]


async def test_other_messages_pass(guard):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.debug", "info": {}})
        await replying(WHOLE)(scope, receive, send)

    wire = await Wire().through(StreamGuardMiddleware(app, guard=guard))
    assert wire.got[0] == {"type": "http.response.debug", "info": {}}


async def test_inner_compression_does_not_hide_the_stream(guard):
    app = GZipMiddleware(replying([chunk("Hello " * 500), *WHOLE]), minimum_size=1)
    wire = Wire(headers=[(b"accept-encoding", b"gzip")])
    await wire.through(StreamGuardMiddleware(app, guard=guard))
    assert wire.body.startswith(b"data: ")


async def test_a_response_that_is_compressed_all_the_same_fails_closed(guard, sink):
    headers = [(b"content-type", b"text/event-stream"), (b"content-encoding", b"gzip")]
    app = replying([gzip.compress(b"".join(WHOLE))], headers=headers)
    wire = await Wire().through(StreamGuardMiddleware(app, guard=guard))
    assert wire.status == 502
    assert json.loads(wire.body)["error"]["code"] == "unmetered"
    assert sink.events[-1].outcome == "unmetered"
    assert sink.events[-1].charged.output_tokens == 50  # billed, and nobody knows how much
    assert await held(guard) == 0


async def test_a_second_start_is_an_error_and_what_was_streamed_is_charged(guard, sink):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": SSE})
        for part in WHOLE[:2]:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.start", "status": 500, "headers": []})

    with pytest.raises(RuntimeError, match="twice"):
        await Wire().through(StreamGuardMiddleware(app, guard=guard))
    assert (sink.events[-1].event, sink.events[-1].outcome) == ("settled", "app_error")
    assert sink.events[-1].charged.output_tokens == 2


async def test_under_base_http_middleware(sink):
    class Outer(BaseHTTPMiddleware):
        async def dispatch(self, request: Any, call_next: Any) -> Any:
            return await call_next(request)

    async with Guard([Limit(output_tokens=3)], sinks=[sink]) as guard:
        app = replying(
            [chunk(f" {word}") for word in ["one", "two", "three", "four", "five", "six"]]
        )
        wire = await Wire().through(Outer(StreamGuardMiddleware(Outer(app), guard=guard)))
    assert b'"finish_reason":"length"' in wire.body.replace(b" ", b"")
    assert [event.outcome for event in sink.events][-1] == "cut"


async def test_a_whole_reply_keeps_its_bytes(guard, sink):
    reply = {
        "choices": [{"index": 0, "message": {"content": "Hello there"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10},
    }
    raw = json.dumps(reply, indent=2).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(raw))]
    app = replying([raw[:20]], headers=headers, last=raw[20:])
    wire = await Wire().through(StreamGuardMiddleware(app, guard=guard))
    assert wire.body == raw
    assert wire.headers[b"content-length"] == str(len(raw)).encode()
    assert sink.events[-1].charged.total_tokens == 10


async def test_json_of_another_form_is_counted_as_it_stands(guard, sink):
    app = replying([], headers=[(b"content-type", b"application/json")], last=b'{"answer": "x"}')
    wire = await Wire().through(StreamGuardMiddleware(app, guard=guard))
    assert wire.body == b'{"answer": "x"}'
    assert sink.events[-1].charged.output_tokens >= 4


async def test_a_reply_too_large_to_meter_fails_closed(guard, sink, monkeypatch):
    monkeypatch.setattr("streamguard.asgi.responder.MAX_WHOLE_BYTES", 10)
    app = replying([b"[" * 11], headers=[(b"content-type", b"application/json")])
    wire = await Wire().through(StreamGuardMiddleware(app, guard=guard))
    assert wire.status == 502


async def test_an_event_over_the_cap_ends_the_stream_with_an_error(guard, sink):
    app = replying([b"data: " + b"x" * 9_000_000])
    wire = await Wire().through(StreamGuardMiddleware(app, guard=guard))
    assert b"error" in wire.body
    assert wire.got[-1]["more_body"] is False
    assert await held(guard) == 0


async def test_no_body_no_meter(guard, sink):
    app = replying([], headers=[], status=204)
    wire = await Wire().through(StreamGuardMiddleware(app, guard=guard))
    assert wire.status == 204
    assert sink.events[-1].event == "settled"


async def test_a_providers_oversize_error_is_remembered(guard, sink):
    error = {"error": {"message": "too long", "code": "context_length_exceeded"}}
    headers = [(b"content-type", b"application/json")]
    app = replying([json.dumps(error).encode()], headers=headers, status=400)
    middleware = StreamGuardMiddleware(app, guard=guard)
    first = await Wire().through(middleware)
    second = await Wire().through(middleware)
    assert first.status == second.status == 400
    assert b"streamguard" not in first.body
    assert json.loads(second.body)["error"]["streamguard"]["repeated"] is True
    assert [e.event for e in sink.events][-1] == "retry_refused"


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        (b"gzip", gzip.compress(REQUEST)),
        (b"deflate", zlib.compress(REQUEST)),
        (b"identity", REQUEST),
    ],
)
async def test_compressed_requests_are_read(guard, encoding, packed):
    app = replying(WHOLE)
    wire = Wire(packed, headers=[(b"content-encoding", encoding)])
    await wire.through(StreamGuardMiddleware(app, guard=guard))
    assert wire.status == 200
    assert json.loads(app.body["body"])["model"] == "gpt-4o"
    assert b"content-encoding" not in dict(app.scope["headers"])


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (gzip.compress(b" " * 9_000_000), [(b"content-encoding", b"gzip")], 413),
        (b"not gzip", [(b"content-encoding", b"gzip")], 400),
        (gzip.compress(REQUEST)[:-9], [(b"content-encoding", b"gzip")], 400),
        (gzip.compress(REQUEST) + b"x", [(b"content-encoding", b"gzip")], 400),
        (REQUEST, [(b"content-length", b"many")], 400),
        (REQUEST, [(b"content-length", b"9999999999")], 413),
        (b" " * 9_000_000, [], 413),
        (REQUEST, [(b"content-type", b"multipart/form-data; boundary=x")], 415),
    ],
)
async def test_bodies_that_cannot_be_guarded_are_refused(guard, body, headers, status):
    wire = Wire(body, headers=headers)
    await wire.through(StreamGuardMiddleware(replying(WHOLE), guard=guard))
    assert wire.status == status
    assert b"x-should-retry" in wire.headers


async def test_a_client_gone_while_sending_gets_nothing(guard, sink):
    async def receive() -> Any:
        return {"type": "http.disconnect"}

    wire = Wire()
    await StreamGuardMiddleware(replying(WHOLE), guard=guard)(wire.scope, receive, wire.send)
    assert wire.got == []
    assert sink.events == []


@pytest.mark.parametrize(
    "path",
    [
        "/V1/Chat/Completions",
        "//v1//chat/completions/",
        "/v1/chat/./completions",
        "/v1/%63hat/completions",
    ],
)
async def test_no_spelling_of_the_path_goes_round_the_guard(guard, sink, path):
    await Wire(path=path).through(StreamGuardMiddleware(replying(WHOLE), guard=guard))
    assert sink.events[-1].event == "settled"
    assert sink.events[-1].endpoint == "/v1/chat/completions"


async def test_a_mounted_app_sees_its_own_path(guard, sink):
    wire = Wire(path="/api/chat", root_path="/api")
    routes = {"/chat": "openai_chat"}
    app = StreamGuardMiddleware(replying(WHOLE), guard=guard, routes=routes)
    await wire.through(app)
    assert sink.events[-1].event == "settled"


async def test_routes_can_be_exempt_and_have_another_response(guard, sink):
    routes = {
        "/v1/chat/completions": None,
        "/chat": Route("openai_chat", response="openai_chat"),
    }
    app = StreamGuardMiddleware(replying(WHOLE), guard=guard, routes=routes)
    await Wire().through(app)
    assert sink.events == []
    await Wire(path="/chat").through(app)
    assert sink.events[-1].event == "settled"


@pytest.mark.parametrize("route", ["nonsense", Route("openai_chat", response="nonsense")])
def test_unknown_protocols_are_a_configuration_error(route):
    with pytest.raises(ConfigurationError, match="nonsense"):
        StreamGuardMiddleware(replying([]), guard=Guard(), routes={"/x": route})


async def test_a_model_request_on_an_unlisted_path_is_detected(guard, sink):
    app = StreamGuardMiddleware(replying(WHOLE), guard=guard)
    await Wire(path="/chat").through(app)
    assert [event.event for event in sink.events] == ["preflight", "started", "settled"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"name": "x"}',
        b'{"messages": "x"}',
        b'{"messages": [1], "model": 3}',
        b'{"messages": [{"text": "x"}], "model": "m"}',
        b'"messages" {',
        b"x" * 5_000_000,
    ],
)
async def test_other_posts_pass_with_their_body(guard, sink, body):
    app = replying([], headers=[], last=b"ok")
    await Wire(body, path="/items").through(StreamGuardMiddleware(app, guard=guard))
    assert app.body["body"] == body
    assert sink.events == []


async def test_other_posts_keep_their_own_receive(guard):
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        wire.left.set()
        assert (await receive())["type"] == "http.disconnect"

    wire = Wire(b"{}", path="/items")
    await wire.through(StreamGuardMiddleware(app, guard=guard))


async def test_unlisted_posts_can_be_denied_or_passed(guard, sink):
    app = replying([], headers=[], last=b"ok")
    wire = await Wire(path="/x").through(StreamGuardMiddleware(app, guard=guard, unlisted="deny"))
    assert wire.status == 400
    assert b"denied by policy" in wire.body
    wire = await Wire(path="/x").through(StreamGuardMiddleware(app, guard=guard, unlisted="pass"))
    assert wire.body.startswith(b"ok")
    html = Wire(path="/x", headers=[(b"content-type", b"text/html")])
    assert (await html.through(StreamGuardMiddleware(app, guard=guard))).body.startswith(b"ok")


async def test_gets_pass(guard, sink):
    app = replying([], headers=[], last=b"ok")
    wire = await Wire(method="GET").through(StreamGuardMiddleware(app, guard=guard))
    assert wire.body.startswith(b"ok")
    assert sink.events == []


@pytest.mark.parametrize(
    "path",
    [
        "/v1/realtime",
        "/v1/Realtime/calls/",
        "/v1/responses",
        "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent",
        "/x/google.cloud.aiplatform.v1.LlmBidiService/.BidiGenerateContent",
    ],
)
async def test_websockets_pass_unless_they_would_be_models(guard, path):
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])

    middleware = StreamGuardMiddleware(app, guard=guard)
    await Wire(type="websocket", path="/ws").through(middleware)
    refused = await Wire(type="websocket", path=path).through(middleware)
    assert seen == ["/ws"]
    assert refused.got == [{"type": "websocket.close", "code": 1008, "reason": "not guarded"}]
    denied = StreamGuardMiddleware(app, guard=guard, unlisted="deny")
    await Wire(type="websocket", path="/ws").through(denied)
    assert seen == ["/ws"]


async def test_lifespan_opens_and_closes_the_guard():
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while messages:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})

    async def receive() -> Any:
        return messages.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    guard = Guard(sinks=[])
    await StreamGuardMiddleware(app, guard=guard)({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_identify_is_asked_once_and_charged(sink, asynchronous):
    asked = []

    def identify(scope: Any) -> Any:
        asked.append(scope["path"])
        return answer() if asynchronous else Identity(tenant="acme", user="u1")

    async def answer() -> Identity:
        return Identity(tenant="acme", user="u1")

    async with Guard([Limit(requests=1, per="hour", scope=("tenant",))], sinks=[sink]) as guard:
        app = StreamGuardMiddleware(replying(WHOLE), guard=guard, identify=identify)
        await Wire().through(app)
        wire = await Wire().through(app)
    assert wire.status == 429
    assert json.loads(wire.body)["error"]["streamguard"]["scope"] == {"tenant": "acme"}
    assert sink.events[0].identity == Identity(tenant="acme", user="u1")
    assert len(asked) == 2


@pytest.mark.parametrize(
    "path",
    [
        "/v1/audio/speech",
        "/v1/Images//generations",
        "/openai/deployments/dall-e-3/images/generations",
        "/v1/batches",
        "/v1/threads/runs",
        "/v1/realtime/calls",
        "/v1/responses/compact",
        "/v1/rerank",
        "/v1beta/interactions",
        "/v1beta1/projects/p/locations/l/interactions",
        "/v1beta/models/veo-3:predictLongRunning",
        "/v1beta/models/imagen-4:predict",
        "/v1beta/models/gemini-embedding-001:embedContent",
        "/v1beta/models/gemini-embedding-001:batchEmbedContents",
        "/v1beta/models/gemini-embedding-001:asyncBatchEmbedContent",
        "/v1beta/models/gemini-3:batchGenerateContent",
        "/v1/projects/p/locations/l/publishers/anthropic/models/claude:streamRawPredict",
        "/model/anthropic.claude-v2/invoke",
        "/model/anthropic.claude-v2/invoke-with-response-stream",
        "/model/arn%3Aaws%3Abedrock%3A%2Fprofile%2Fx/converse",
        "/model/x/converse-stream",
        "/async-invoke",
    ],
)
async def test_model_endpoints_that_cannot_be_metered_are_denied(guard, sink, path):
    app = replying([], headers=[], last=b"ok")
    wire = await Wire(b"{}", path=path).through(StreamGuardMiddleware(app, guard=guard))
    assert wire.status == 400
    assert b"list it in routes=" in wire.body
    allowed = StreamGuardMiddleware(app, guard=guard, routes={path: None})
    assert (await Wire(b"{}", path=path).through(allowed)).status == 200


def test_a_word_that_is_no_policy_is_a_configuration_error():
    with pytest.raises(ConfigurationError, match="dney"):
        StreamGuardMiddleware(replying([]), guard=Guard(sinks=[]), unlisted="dney")


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"guard": Guard}, "guard= must be a Guard, not type"),
        ({"guard": 5}, "guard= must be a Guard, not int"),
        ({"identify": Identity("acme")}, "identify= must be a callable from the scope to an"),
        ({"routes": ["/chat"]}, "routes= must be a table such as {'/chat': 'openai_chat'}"),
        ({"routes": {"/rooms/{room}": "openai_chat"}}, "routes= names '/rooms/{room}'; paths are"),
    ],
)
def test_what_could_fail_only_at_a_request_is_refused_at_once(wrong, told):
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        StreamGuardMiddleware(replying([]), **{"guard": Guard(sinks=[]), **wrong})
