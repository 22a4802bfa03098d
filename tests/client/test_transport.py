"""What is guarded and what passes; what stays of the client that was wrapped."""

from __future__ import annotations

import asyncio
import gzip
import json

import httpx
import httpx2
import openai
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from support.books import HELLO, Books
from support.servers import serve
from support.texts import ENGLISH

import streamguard
from streamguard import ConfigurationError, Guard, Limit
from streamguard.client import flow
from streamguard.guard.shape import looks_like_chat

pytestmark = pytest.mark.anyio

CHAT = {"model": "gpt-4o", "messages": HELLO}
REPLY = {"choices": [{"index": 0, "message": {"content": ENGLISH}, "finish_reason": "stop"}]}


class Endpoints:
    """Answers other than the usual ones; keeps the requests' methods, paths and bodies."""

    def __init__(self):
        self.seen = []
        kinds = ["gzip", "big-error", "quoting", "gzip-error", "odd", "none", "plain", "moved"]
        paths = [f"/{kind}/chat/completions" for kind in kinds]
        routes = [Route(path, self.chat, methods=["POST"]) for path in paths]
        self.app = Starlette(routes=[*routes, Route("/{path:path}", self.any, methods=_METHODS)])

    async def any(self, request):
        self.seen.append((request.method, request.url.path, await request.body()))
        return JSONResponse({"ok": True})

    async def chat(self, request):
        self.seen.append((request.method, request.url.path, await request.body()))
        kind = request.url.path.split("/")[1]
        zipped = {"content-encoding": "gzip"}
        return {
            "gzip": lambda: Response(gzip.compress(b"{}"), headers=zipped),
            "big-error": lambda: Response(b"x" * 2_000_000, status_code=413),
            "quoting": lambda: Response(b'{"input":"%b"}' % (b"x" * 200_000), status_code=400),
            "gzip-error": lambda: Response(gzip.compress(b"{}"), status_code=400, headers=zipped),
            "odd": lambda: JSONResponse({"answer": ENGLISH}),
            "none": lambda: Response(status_code=204),
            "plain": lambda: StreamingResponse(iter([ENGLISH.encode()]), media_type="text/plain"),
            "moved": lambda: Response(
                status_code=307, headers={"location": "/odd/chat/completions"}
            ),
        }[kind]()


_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@pytest.fixture(scope="module")
def served():
    endpoints = Endpoints()
    with serve(endpoints.app) as url:
        yield endpoints, url


@pytest.fixture
def endpoints(served):
    served[0].seen.clear()
    return served[0]


@pytest.fixture
def url(served):
    return served[1]


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def web(request):
    return request.param


async def test_any_client_of_both_libraries_is_guarded(web, deaf):
    book = Books(Limit(output_tokens=9))
    client = book.guard.wrap(web.AsyncClient(base_url=deaf.url))
    assert type(client) is web.AsyncClient
    async with client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
        streamed = await client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert answer.headers["content-length"] == str(len(answer.content))
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert "content-length" not in streamed.headers
    assert book.outcomes == ["cut", "cut"]


async def test_a_refusal_is_a_response_of_the_library(web, url, endpoints):
    book = Books(Limit(input_tokens=1))
    async with book.guard.wrap(web.AsyncClient(base_url=url)) as client:
        answer = await client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_budget_exceeded"
    assert answer.headers["x-streamguard-limit"] == "1"
    assert endpoints.seen == []


@pytest.mark.parametrize("method", ["GET", "DELETE", "POST", "PUT", "PATCH"])
async def test_other_endpoints_pass(url, endpoints, method):
    book = Books()
    async with book.guard.wrap(httpx2.AsyncClient(base_url=url)) as client:
        answer = await client.request(method, "/v1/files/f1", json={"purpose": "batch"})
    assert answer.json() == {"ok": True}
    assert answer.headers["content-length"]
    assert endpoints.seen == [(method, "/v1/files/f1", b'{"purpose":"batch"}')]
    assert book.events == []


async def test_uploads_pass_unread(url, endpoints):
    async def parts():
        yield b"a" * 10
        yield b"b" * 10

    async with Books().guard.wrap(httpx2.AsyncClient(base_url=url)) as client:
        await client.post("/v1/files", files={"file": b"x"})
        await client.post(
            "/v1/audio", content=parts(), headers={"content-type": "application/octet-stream"}
        )
    assert endpoints.seen[1][2] == b"a" * 10 + b"b" * 10


@pytest.mark.parametrize(
    ("unlisted", "guarded", "status"), [("detect", 1, 200), ("pass", 0, 200), ("deny", 0, 400)]
)
async def test_an_unknown_path_is_guarded_by_its_shape(url, unlisted, guarded, status):
    book = Books()
    async with book.guard.wrap(httpx2.AsyncClient(base_url=url), unlisted=unlisted) as client:
        answer = await client.post("/my/llm", json=CHAT)
        got = await client.get("/my/llm")
    assert (answer.status_code, got.status_code) == (status, 200)
    assert len(book.ended) == guarded


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"content": b'{"model":"a","model":"b"}'}, 400),
        ({"content": b"not json", "headers": {"content-type": "application/json"}}, 400),
        ({"json": {**CHAT, "n": True}}, 400),
        ({"files": {"file": b"x"}}, 415),
        ({"json": CHAT, "headers": {"content-encoding": "gzip"}}, 415),
    ],
    ids=["duplicates", "malformed", "ill-typed", "multipart", "compressed"],
)
async def test_a_body_that_cannot_be_guarded_is_refused(url, endpoints, sent, status):
    async with Books().guard.wrap(httpx2.AsyncClient(base_url=url)) as client:
        answer = await client.post("/v1/chat/completions", **sent)
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == "invalid_request"
    assert endpoints.seen == []


async def test_a_compressed_response_is_not_shown(url):
    book = Books()
    async with book.guard.wrap(httpx2.AsyncClient(base_url=url)) as client:
        answer = await client.post("/gzip/chat/completions", json=CHAT)
        error = await client.post("/gzip-error/chat/completions", json={**CHAT, "model": "gpt-4"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "unmetered")
    assert (error.status_code, error.content) == (400, b"{}")
    assert book.outcomes == ["unmetered", "error_response"]


async def test_a_response_too_large_to_be_metered_is_not_shown(url, monkeypatch):
    monkeypatch.setattr(flow, "MAX_WHOLE_BYTES", 100)
    book = Books()
    async with book.guard.wrap(httpx2.AsyncClient(base_url=url)) as client:
        whole = await client.post("/odd/chat/completions", json=CHAT)
        error = await client.post("/big-error/chat/completions", json=CHAT)
    assert (whole.status_code, error.status_code) == (502, 502)
    assert book.outcomes == ["unmetered", "unmetered"]
    assert [event.event for event in book.ended] == ["settled", "released"]
    ((_, output),) = book.charged
    assert (
        output == book.guard.settings.reserve_output
    )  # all that was allowed; an error costs nothing


async def test_an_error_that_quotes_a_long_request_is_shown(url):
    book = Books()
    async with book.guard.wrap(httpx2.AsyncClient(base_url=url)) as client:
        error = await client.post("/quoting/chat/completions", json=CHAT)
    assert (error.status_code, len(error.json()["input"])) == (400, 200_000)
    assert book.outcomes == ["error_response"]


@pytest.mark.parametrize("path", ["odd", "plain"])
async def test_what_is_no_known_reply_is_counted_as_it_stands(url, path):
    book = Books()
    async with book.guard.wrap(httpx2.AsyncClient(base_url=url)) as client:
        answer = await client.post(f"/{path}/chat/completions", json=CHAT)
    assert ENGLISH[:40] in answer.text
    assert book.outcomes == ["completed"]


async def test_an_empty_response_is_settled(url):
    book = Books()
    async with book.guard.wrap(httpx2.AsyncClient(base_url=url)) as client:
        answer = await client.post("/none/chat/completions", json=CHAT)
    assert answer.status_code == 204
    assert book.outcomes == ["completed"]


async def test_a_redirect_is_not_billed_twice(url):
    book = Books()
    http = httpx2.AsyncClient(base_url=url, follow_redirects=True)
    async with book.guard.wrap(http) as client:
        answer = await client.post("/moved/chat/completions", json=CHAT)
    assert answer.json() == {"answer": ENGLISH}
    assert book.outcomes == ["error_response", "completed"]


class Counting(httpx2.AsyncHTTPTransport):
    """A user's own transport."""

    def __init__(self):
        super().__init__()
        self.entered = self.closed = self.sent = 0

    async def __aenter__(self):
        self.entered += 1
        return await super().__aenter__()

    async def handle_async_request(self, request):
        self.sent += 1
        return await super().handle_async_request(request)

    async def __aexit__(self, *args):
        await self.aclose()

    async def aclose(self):
        self.closed += 1
        await super().aclose()


@pytest.mark.parametrize("as_context", [True, False])
async def test_transports_mounts_hooks_and_headers_stay(url, endpoints, as_context):
    main, mounted, hooked = Counting(), Counting(), []

    async def hook(request):
        hooked.append(request.url.path)

    http = httpx2.AsyncClient(
        base_url=url,
        transport=main,
        mounts={"all://*.example": mounted, "all://other": None},
        event_hooks={"request": [hook]},
        headers={"x-team": "a"},
        timeout=3.5,
    )
    client = Guard(sinks=[]).wrap(http)
    if as_context:
        async with client:
            await client.post("/v1/chat/completions", json=CHAT)
    else:
        await client.post("/v1/chat/completions", json=CHAT)
        await client.aclose()
        await client.aclose()
    assert (main.sent, main.closed, mounted.closed) == (1, 1, 1)
    assert main.entered == as_context
    assert hooked == ["/v1/chat/completions"]
    assert client.headers["x-team"] == "a"
    assert client.timeout == http.timeout


async def test_the_clients_of_an_sdk_share_and_close_one_transport(url):
    transport = Counting()
    http = httpx2.AsyncClient(transport=transport)
    raw = openai.AsyncOpenAI(base_url=url, api_key="k", http_client=http, max_retries=7)
    client = Guard(sinks=[]).wrap(raw)
    assert client.max_retries == 7
    assert client.base_url == raw.base_url
    await client.with_options(max_retries=0).close()
    assert raw.is_closed()
    assert transport.closed == 1


async def test_dropping_a_wrapped_client_leaves_the_other_open(upstream, collected):
    guard = Guard(sinks=[])
    raw = openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k")
    await guard.wrap(raw).chat.completions.create(**CHAT)
    collected()
    await asyncio.sleep(0)
    assert not raw.is_closed()
    await raw.chat.completions.create(**CHAT)
    client = guard.wrap(raw)
    del raw
    collected()
    await asyncio.sleep(0)
    await client.chat.completions.create(**CHAT)
    await client.close()


async def test_a_policy_that_is_none_is_refused():
    async with httpx2.AsyncClient() as client:
        with pytest.raises(ConfigurationError, match="unlisted='dney'; use one of"):
            Guard().wrap(client, unlisted="dney")


async def test_a_client_is_wrapped_once(url):
    guard = Guard(sinks=[])
    client = guard.wrap(openai.AsyncOpenAI(base_url=url, api_key="k"))
    with pytest.raises(ConfigurationError, match="guarded already"):
        guard.wrap(client)
    await client.close()
    with pytest.raises(ConfigurationError, match="closed"):
        guard.wrap(httpx2_closed := await _closed())
    assert httpx2_closed.is_closed


async def _closed():
    client = httpx2.AsyncClient()
    await client.aclose()
    return client


@pytest.mark.parametrize("thing", [object(), "client", httpx2.Headers()])
def test_what_is_no_client_is_refused(thing):
    with pytest.raises(ConfigurationError, match="cannot wrap|is no httpx"):
        Guard(sinks=[]).wrap(thing)


async def test_an_sdk_without_hooks_keeps_its_own_errors(url):
    class Odd(openai.AsyncOpenAI):
        def _make_status_error(self, err_msg, *, body, response):
            return _Slotted(err_msg)

    client = Books(Limit(input_tokens=1)).guard.wrap(Odd(base_url=url, api_key="k"))
    async with client:
        with pytest.raises(_Slotted):
            await client.chat.completions.create(**CHAT)


class _Slotted(Exception):  # noqa: N818
    """An error whose class cannot be changed."""

    __slots__ = ("extra",)


async def test_an_sdk_of_another_make_is_guarded_without_our_errors(url):
    class Other:
        def __init__(self, http_client):
            self._client = http_client

        def copy(self, *, http_client):
            return Other(http_client)

    book = Books(Limit(input_tokens=1))
    client = book.guard.wrap(Other(httpx2.AsyncClient(base_url=url)))
    answer = await client._client.post("/v1/chat/completions", json=CHAT)
    assert answer.status_code == 413
    await client._client.aclose()


class Hanging(httpx2.AsyncByteStream):
    closed = False

    async def __aiter__(self):
        yield b"{"
        await asyncio.Event().wait()

    async def aclose(self):
        self.closed = True


async def test_cancelling_while_a_whole_reply_is_read_closes_it():
    stream, book = Hanging(), Books()
    json_type = {"content-type": "application/json"}
    answer = httpx2.Response(200, headers=json_type, stream=stream)
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(lambda _request: answer))
    async with book.guard.wrap(http) as client:
        task = asyncio.ensure_future(client.post("http://x/v1/chat/completions", json=CHAT))
        while "started" not in book.events:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert stream.closed
    assert book.outcomes == ["cancelled"]


def test_a_stream_dropped_after_its_loop_is_left_to_expire(collected):
    book = Books()
    kept = []

    async def go():
        headers = {"content-type": "text/event-stream"}
        answer = httpx2.Response(200, headers=headers, stream=Hanging())
        transport = httpx2.MockTransport(lambda _request: answer)
        client = book.guard.wrap(httpx2.AsyncClient(transport=transport))
        request = client.build_request("POST", "http://x/v1/chat/completions", json=CHAT)
        kept.append(await client.send(request, stream=True))

    asyncio.run(go())
    kept.clear()
    collected()
    assert book.events == ["preflight", "started"]


def test_a_body_with_messages_that_is_no_json_is_no_chat():
    assert not looks_like_chat(b'{"messages": [')
    assert not looks_like_chat(b'{"messages": "\\u0041"}')


async def test_the_middlewares_errors_are_not_taken_for_ours(url, endpoints):
    refusal = {"error": {"message": "no", "code": "budget_exceeded", "streamguard": {"limit": 1}}}
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(429, json=refusal))
    http = httpx2.AsyncClient(transport=transport)
    raw = openai.AsyncOpenAI(base_url=url, api_key="k", http_client=http, max_retries=0)
    async with Guard(sinks=[]).wrap(raw) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(**CHAT)
    assert not isinstance(caught.value, streamguard.StreamGuardError)
    assert json.loads(caught.value.response.content) == refusal
