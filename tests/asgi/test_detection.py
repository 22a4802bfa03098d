"""What a client may do to its body, its headers or its method, so as not to be detected."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.asgi import BODY, REQUEST, WHOLE, Wire

from streamguard import Guard, Limit, StreamGuardMiddleware
from streamguard.guard.shape import looks_like_chat, may_be_object

pytestmark = pytest.mark.anyio

TEXT = REQUEST.decode()
OPEN = TEXT[:-1]


class App:
    """Reads any body and counts how often it is reached."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message["body"]
            more = message.get("more_body", False)
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"".join(WHOLE)})


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
async def guarded(app: App) -> Any:
    async with Guard([Limit(input_tokens=1, per="request", name="r")], sinks=[]) as guard:
        yield StreamGuardMiddleware(app, guard=guard, routes={"/free": None}, max_body=20_000)


@pytest.mark.parametrize(
    "body",
    [
        b"\xef\xbb\xbf" + REQUEST,
        TEXT.encode("utf-16"),
        TEXT.encode("utf-16-be"),
        TEXT.encode("utf-32-le"),
        f'{OPEN},"x":NaN}}'.encode(),
        f'{OPEN},"x":1e999}}'.encode(),
        f'{OPEN},"x":{"9" * 5000}}}'.encode(),
        f'{OPEN},"x":"\\ud800"}}'.encode(),
        f'{OPEN},"model":"other"}}'.encode(),
        f'{OPEN},"x":{"[" * 70}{"]" * 70}}}'.encode(),
        TEXT.replace('"messages"', '"\\u006dessages"').encode(),
        f'{OPEN},"x":{"[" * 9000}{"]" * 9000}}}'.encode(),
    ],
)
async def test_a_body_that_only_lenient_parsers_read_is_refused(guarded, app, body):
    wire = await Wire(body, path="/chat").through(guarded)
    assert wire.status in (400, 413)
    assert app.bodies == []


@pytest.mark.parametrize("kind", [b"text/plain", b"multipart/form-data; boundary=x", b"image/png"])
async def test_the_content_type_is_the_clients_to_write(guarded, app, kind):
    wire = await Wire(path="/chat", headers=[(b"content-type", kind)]).through(guarded)
    assert wire.status in (413, 415)
    assert app.bodies == []


@pytest.mark.parametrize("pad", [lambda body: body + b" " * 30_000, lambda body: b" " * 30_000])
async def test_json_that_is_too_long_to_look_at_is_refused(guarded, app, pad):
    wire = Wire(path="/chat")
    padded = pad(REQUEST)
    pieces = [padded[:25_000], padded[25_000:]]

    async def receive() -> Any:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    await guarded(wire.scope, receive, wire.send)
    assert wire.status == 413
    assert json.loads(wire.body)["error"]["streamguard"]["limit"] == 20_000
    assert app.bodies == []


async def test_an_upload_is_passed_on_as_it_comes(guarded, app):
    wire = Wire(path="/files")
    pieces = [b" ", b"\x89PNG", b"x" * 30_000]

    async def receive() -> Any:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    await guarded(wire.scope, receive, wire.send)
    assert app.bodies == [b" \x89PNG" + b"x" * 30_000]


@pytest.mark.parametrize("method", ["GET", "DELETE", "FETCH"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat"])
@pytest.mark.parametrize(
    "scope",
    [
        {"headers": [(b"Content-Length", b"99")]},
        {"headers": [(b"transfer-encoding", b"chunked")]},
        {"headers": [], "http_version": "2"},
    ],
)
@pytest.mark.parametrize("unlisted", ["detect", "deny"])
async def test_a_body_that_another_method_brings_is_guarded(app, method, path, scope, unlisted):
    async with Guard([Limit(input_tokens=1, per="request")], sinks=[]) as guard:
        guarded = StreamGuardMiddleware(app, guard=guard, unlisted=unlisted)
        wire = await Wire(path=path, method=method, **scope).through(guarded)
        assert (wire.status, app.bodies) == (413, [])
        await Wire(b"", path=path, method=method, **scope).through(guarded)
        assert app.bodies == [b""]


async def test_a_get_without_a_body_is_not_looked_at(guarded, app):
    await Wire(path="/chat", method="GET", headers=[(b"content-length", b"0")]).through(guarded)
    assert app.bodies == [REQUEST]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "QUERY", "post", "put"])
@pytest.mark.parametrize("path", ["/chat", "/v1/chat/completions"])
async def test_other_methods_with_a_model_request_are_guarded(guarded, app, method, path):
    wire = await Wire(path=path, method=method).through(guarded)
    assert wire.status == 413
    assert app.bodies == []


async def test_other_methods_with_another_body_pass(guarded, app):
    await Wire(b'{"title": "x"}', path="/v1/chat/completions", method="PATCH").through(guarded)
    await Wire(path="/free", method="PUT").through(guarded)
    await Wire(path="/free").through(guarded)
    assert app.bodies == [b'{"title": "x"}', REQUEST, REQUEST]


async def test_passing_all_unlisted_passes_other_methods_too(app):
    async with Guard([Limit(input_tokens=1, per="request")], sinks=[]) as guard:
        passing = StreamGuardMiddleware(app, guard=guard, unlisted="pass")
        await Wire(path="/chat", method="PUT").through(passing)
    assert app.bodies == [REQUEST]


def test_a_long_chat_is_told_by_its_shape():
    long = {**BODY, "messages": [{"role": "user", "content": "x" * 40_000}]}
    assert looks_like_chat(json.dumps(long).encode())
    assert not looks_like_chat(json.dumps([long]).encode())


def test_what_may_be_an_object():
    assert may_be_object(b" \n{") is True
    assert may_be_object(b"") is None
    assert may_be_object(b"\n\t ") is None
    assert may_be_object(b"[1]") is False
