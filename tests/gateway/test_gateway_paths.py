"""What may be called: a table; everything else is denied, however it is spelt."""

from __future__ import annotations

import socket

import httpx2
import pytest

from streamguard.gateway.gate import Gate
from streamguard.gateway.routes import family_of, plain_path, route_of

CHAT = "/v1/chat/completions"
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}


def route(method, path, *headers):
    scope = {"method": method, "raw_path": path.encode(), "path": path, "headers": list(headers)}
    plain = plain_path(scope)
    found = None if plain is None else route_of(scope, plain)
    return None if found is None else tuple(found)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", CHAT, ("openai", True)),
        ("POST", "/chat/completions", ("openai", True)),
        ("POST", "/openai/deployments/mine/chat/completions", ("openai", True)),
        ("POST", "/v1/completions", ("openai", True)),
        ("POST", "/v1/responses", ("openai", True)),
        ("POST", "/v1/embeddings", ("openai", True)),
        ("POST", "/v1/messages", ("anthropic", True)),
        ("POST", "/v1beta/models/gemini-2.5-flash:generateContent", ("google", True)),
        ("POST", "/v1beta/models/gemini-2.5-flash:streamGenerateContent", ("google", True)),
        ("POST", "/api/chat", ("ollama", True)),
        ("POST", "/api/generate", ("ollama", True)),
        ("POST", "/v1/messages/count_tokens", ("anthropic", False)),
        ("POST", "/v1beta/models/gemini-2.5-flash:countTokens", ("google", False)),
        ("POST", "/v1/moderations", ("openai", False)),
        ("POST", "/api/show", ("ollama", False)),
        ("GET", "/v1/models", ("openai", False)),
        ("GET", "/models", ("openai", False)),
        ("GET", "/v1/models/ft%3Agpt-4o%3Aorg%3A%3Aabc", ("openai", False)),
        ("GET", "/v1/models/org%2Fllama", ("openai", False)),
        ("GET", "/v1beta/models", ("google", False)),
        ("GET", "/v1beta/models/gemini-2.5-flash", ("google", False)),
        ("GET", "/api/tags", ("ollama", False)),
        ("GET", CHAT, None),
        ("GET", "/v1/files", None),
        ("GET", "/v1/responses/resp_1", None),
        ("GET", "/v1/chat/completions/chatcmpl-1", None),
        ("GET", "/v1/fine_tuning/models/x", None),
        ("GET", "/v1/organization/admin_api_keys", None),
        ("HEAD", "/v1/models", None),
        ("DELETE", "/v1/models/ft:mine", None),
        ("OPTIONS", CHAT, None),
        ("PUT", CHAT, None),
        ("POST", "/", None),
        ("POST", "/v1/models", None),
        ("POST", "/v1/files", None),
        ("POST", "/v1/batches", None),
        ("POST", "/v1/messages/batches", None),
        ("POST", "/v1/responses/resp_1/cancel", None),
        ("POST", "/v1/images/generations", None),
        ("POST", "/v1/audio/speech", None),
        ("POST", "/v1/audio/transcriptions", None),
        ("POST", "/v1/realtime/sessions", None),
        ("POST", "/v1/fine_tuning/jobs", None),
        ("POST", "/v1beta/models/gemini-2.5-flash:batchGenerateContent", None),
        ("POST", "/v1beta/models/e:embedContent", None),
        ("POST", "/v1beta/cachedContents", None),
        ("POST", "/upload/v1beta/files", None),
        ("POST", "/api/pull", None),
        ("POST", "/api/embed", None),
        # one path, two meanings
        ("POST", "/v1/moderations;/../chat/completions", None),
        ("POST", "/v1/moderations/../chat/completions", None),
        ("POST", "/v1/./chat/completions", None),
        ("POST", "/v1//chat/completions", None),
        ("POST", "//v1/chat/completions", None),
        ("POST", "/v1/chat/completions/", None),
        ("POST", "/v1/chat%2Fcompletions%00", None),
        ("POST", "/v1/%63hat/completions", None),
        ("POST", "/v1/chat%252Fcompletions", None),
        ("POST", "/v1/chat/completions#x", None),
        ("POST", "/v1\\chat\\completions", None),
        ("POST", "v1/chat/completions", None),
        ("GET", "/v1/models/%2e%2e/files", None),
        ("GET", "/v1/models/x%2F..%2F..%2Ffiles", None),
    ],
)
def test_the_table_of_routes(method, path, expected):
    assert route(method, path) == expected


def test_the_list_of_models_is_asked_of_the_family_whose_client_asks():
    assert route("GET", "/v1/models", (b"anthropic-version", b"x")) == ("anthropic", False)
    assert route("GET", "/v1/models", (b"x-goog-api-key", b"x")) == ("google", False)


def test_the_path_without_a_raw_one():
    assert plain_path({"path": "/v1/models"}) == "/v1/models"
    assert plain_path({"path": "/v1/mod\u00e9ls"}) is None


def test_errors_have_the_family_s_envelope_whatever_the_path():
    assert family_of("/v1/messages/batches") == "anthropic"
    assert family_of("/v1beta/files") == "google"
    assert family_of("/models/x:y") == "google"
    assert family_of("/api/pull") == "ollama"
    assert family_of("/v1/files") == "openai"


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("/v1/files", lambda body: (body["error"]["code"], body["error"]["type"])),
        ("/v1/messages/batches", lambda body: (body["type"], body["error"]["type"])),
        ("/v1beta/files", lambda body: (body["error"]["code"], body["error"]["status"])),
        ("/api/pull", lambda body: (type(body["error"]), None)),
    ],
)
def test_what_is_not_served_is_denied(run, providers, path, read):
    with run().client() as client:
        for method in ("POST", "GET", "DELETE"):
            reply = client.request(method, path)
            assert reply.status_code == 403
            assert reply.headers["x-should-retry"] == "false"
    assert read(reply.json()) in {
        ("forbidden", "permission_error"),
        ("error", "permission_error"),
        (403, "PERMISSION_DENIED"),
        (str, None),
    }
    assert "does not serve DELETE" in reply.text
    assert providers.seen == []


def test_a_free_call_needs_a_key_too(run):
    running = run()
    for key in (None, "nope"):
        head = {"authorization": f"Bearer {key}"} if key else {}
        reply = httpx2.post(f"{running.url}/v1/moderations", json={"input": "x"}, headers=head)
        assert reply.status_code == 401
        assert ("no key was sent" in reply.text) == (key is None)


def test_free_calls_are_bounded_and_json(run, providers):
    with run().client() as client:
        path = "/v1/messages/count_tokens"
        assert client.post(path, json={"model": "claude-x"}).json()["input_tokens"] == 3
        assert client.post(path, content=b"x" * (8 * 1024 * 1024 + 1)).status_code == 413
        reply = client.post(path, content=b"[1]")
        assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")
        assert client.post(path, content=b"").is_success
        assert client.post(path, json={"model": 5}).is_success
        assert client.post(path, data={"a": "b"}).status_code == 415
    assert len(providers.seen) == 3


def test_health_checks_need_no_key(run):
    running = run()
    assert httpx2.get(f"{running.url}/healthz").json() == {"status": "ok"}
    assert httpx2.get(f"{running.url}/readyz").json() == {"status": "ok"}


def test_huge_headers_are_refused(run, providers):
    with run().client() as client:
        many = {f"x-filler-{number}": "x" * 8000 for number in range(9)}
        reply = client.post(CHAT, json=BODY, headers=many)
    assert (reply.status_code, reply.json()["error"]["code"]) == (431, "headers_too_large")
    assert providers.seen == []


def raw(url, data):
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while part := connection.recv(65_536):
            found += part
    return found


@pytest.mark.parametrize(
    "framing",
    [
        b"content-length: 4\r\ntransfer-encoding: chunked\r\n",
        b"transfer-encoding: chunked\r\ncontent-length: 4\r\n",
        b"content-length: 4\r\ncontent-length: 5\r\n",
        b"content-length: +4\r\n",
        b"content-length: 4\r\nx: a\rb\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"content-length : 4\r\n",
    ],
)
def test_ambiguous_framing_smuggles_nothing(run, providers, framing):
    running = run()
    smuggled = b"GET /v1/models HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n\r\n"
    head = b"POST /v1/moderations HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n" + framing
    key = running.key.encode()
    answer = raw(running.url, head % key + b"\r\n0\r\n\r\n" + smuggled % key)
    assert b" 200 " not in answer
    assert [seen.path for seen in providers.seen if seen.method == "GET"] == []


@pytest.mark.anyio
async def test_websockets_are_closed():
    async def never(*_args):
        raise AssertionError

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        sent.append((message["type"], message["code"]))

    sent = []
    await Gate(never, never, None, never)({"type": "websocket"}, receive, send)
    assert sent == [("websocket.close", 1008)]
