"""Upstreams that fail, and several of them."""

from __future__ import annotations

import contextlib
import socket
import threading

import anyio
import httpx2
import pytest
from support.providers import TEXT
from support.servers import serve, wait_until
from support.upstream import count
from support.wire import chat_text

from streamguard import Guard, Limit
from streamguard.gateway.answers import envelope
from streamguard.gateway.app import Gateway
from streamguard.gateway.config import GatewayConfig
from streamguard.gateway.upstreams import Upstream, choose

CHAT = "/v1/chat/completions"


def body(model="gpt-4o", **more):
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}


FAMILIES = [
    (CHAT, body(), lambda answer: answer["error"]["code"]),
    ("/v1/messages", body("claude-x", max_tokens=5), lambda answer: answer["error"]["type"]),
    (
        "/v1beta/models/g:generateContent",
        {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]},
        lambda answer: answer["error"]["status"],
    ),
    ("/api/chat", body("llama3.2"), lambda answer: answer["error"][:8]),
]
DEAD = """
keys = ""
[[upstreams]]
url = "http://127.0.0.1:1"
family = "{}"
name = "the dead one"
"""


@pytest.mark.parametrize(
    ("path", "asked", "read"), FAMILIES, ids=["openai", "anthropic", "google", "ollama"]
)
def test_an_upstream_out_of_reach_is_a_502_of_the_family(
    run, path, asked, read, request, capfd, tmp_path
):
    family = request.node.callspec.id
    running = run(families=(), top=DEAD.format(family))
    with running.client() as client:
        reply = client.post(path, json=asked)
    assert reply.status_code == 502
    assert read(reply.json()) in {"upstream_error", "api_error", "UNAVAILABLE", "upstream"}
    assert "the dead one is out of reach" in reply.text
    assert "x-should-retry" not in reply.headers
    wait_until(lambda: running.sink.events[-1].event in ("settled", "released"), "not settled")
    assert running.sink.events[-1].charged.total_tokens in (None, 0)


DAY = Limit(tokens=100_000, per="day")
DAY_TOML = "[[limits]]\ntokens = 100_000\nper = 'day'\n"


def test_a_stream_that_is_broken_off_breaks_off_here_too_and_is_charged_so_far(run):
    running = run(DAY_TOML)
    with (
        running.client() as client,
        client.stream("POST", CHAT, json=body("break", stream=True)) as reply,
    ):
        seen = b""
        with pytest.raises(httpx2.RemoteProtocolError):
            for part in reply.iter_raw():
                seen += part
    assert b"[DONE]" not in seen
    assert chat_text(seen[: seen.rindex(b"\n\n") + 2])
    wait_until(lambda: running.sink.events[-1].event == "settled", "not settled")
    event = running.sink.events[-1]
    assert event.outcome == "app_error"
    assert event.charged.output_tokens == count(chat_text(seen[: seen.rindex(b"\n\n") + 2]))
    assert event.charged.input_tokens > 0
    # The budget is charged the same, and nothing stays held.
    asked = anyio.run(balance, running.file.parent)
    assert asked == (0, event.charged.total_tokens)


async def balance(folder):
    """What is held of everybody's day, and used."""
    async with Guard([DAY], store=f"sqlite:///{folder}/budgets.db", sinks=[]) as guard:
        (found,) = (await guard.preflight(body())).balances.values()
        return found.held, found.used


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\ncontent-ty"], ids=["nothing", "a part"]
)
def test_an_upstream_that_dies_before_it_answers_is_released_and_not_billed(run, answer):
    with dying(answer) as url:
        top = f'keys = ""\n[[upstreams]]\nurl = "{url}"\nname = "the dying one"\n'
        running = run(DAY_TOML, families=(), top=top)
        with running.client() as client:
            reply = client.post(CHAT, json=body(stream=True))
    assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_error")
    assert "the dying one is out of reach" in reply.text
    wait_until(lambda: running.sink.events[-1].event == "released", "not released")
    assert running.sink.events[-1].charged.total_tokens == 0
    assert running.sink.events[-1].cost_nano_usd == 0
    assert anyio.run(balance, running.file.parent) == (0, 0)


@contextlib.contextmanager
def dying(answer):
    """A server that takes a request and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take():
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=take)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_a_client_that_leaves_ends_the_upstream_s_stream(run, providers):
    running = run()
    with running.client() as client:
        with client.stream("POST", CHAT, json=body("silent", stream=True)) as reply:
            next(reply.iter_raw())
        wait_until(providers.last.closed.is_set, "the upstream was not closed")
    wait_until(lambda: running.sink.events[-1].event == "settled", "not settled")
    assert running.sink.events[-1].outcome == "disconnected"


@pytest.mark.parametrize("model", ["gzip-500", "big-500"])
def test_errors_that_cannot_be_looked_through_are_told_in_short(run, model):
    with run().client() as client:
        reply = client.post(CHAT, json=body(model))
    assert reply.status_code == 502
    assert "the openai one answered 500" in reply.text


def test_other_errors_pass(run):
    running = run()
    with running.client() as client:
        reply = client.post(CHAT, json=body("status-429"))
    assert (reply.status_code, reply.json()["error"]["message"]) == (429, "status 429")
    assert reply.headers["content-length"] == str(len(reply.content))
    wait_until(lambda: running.sink.events[-1].event == "released", "not released")


def test_a_free_call_that_fails(run):
    running = run(families=(), top=DEAD.format("openai"))
    with running.client() as client:
        reply = client.post("/v1/moderations", json={"input": "x"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (502, "upstream_error")
        reply = client.get("/api/tags")
        assert reply.status_code == 404
        assert "no upstream of the ollama family is configured" in reply.json()["error"]


def test_requests_go_to_the_upstream_that_serves_the_model(run, upstream_url, providers):
    more = f"""
    [[upstreams]]
    url = "{upstream_url}/other"
    models = ["llama-*", "org/*"]
    name = "other"
    """
    top = f"""
    keys = ""
    [[upstreams]]
    url = "{upstream_url}/first/v1/"
    models = ["gpt-*"]
    """
    with run(more, top=top, families=("anthropic",)).client() as client:
        assert chat_text(client.post(CHAT, json=body(stream=True)).content) == TEXT
        assert providers.last.path == "/first/v1/chat/completions"
        assert client.post(CHAT, json=body("llama-3")).is_success
        assert providers.last.path == "/other/v1/chat/completions"
        reply = client.post(CHAT, json=body("qwen"))
        assert reply.status_code == 404
        assert "for model 'qwen'" in reply.json()["error"]["message"]
        assert client.get("/v1/models").is_success
        assert providers.last.path == "/first/v1/models"
        assert client.get("/v1/models/org%2Fbig").is_success


def test_choosing():
    ups = [
        Upstream(url="http://a", models=("gpt-*",)),
        Upstream(url="http://b", family="google", models=("gemini-*",)),
        Upstream(url="http://c"),
    ]
    assert choose(ups, "openai", "gpt-4o").name == "a"
    assert choose(ups, "openai", "llama").name == "c"
    assert choose(ups, "openai", None).name == "a"
    assert choose(ups, "google", "gemini-2").name == "b"
    assert choose(ups, "google", "gpt-4o") is None
    assert choose(ups, "ollama", None) is None


def test_the_key_s_header_may_be_named(monkeypatch):
    monkeypatch.setenv("AZURE_KEY", " k \n")
    one = Upstream(url="https://x.test", key_env="AZURE_KEY", auth_header="api-key")
    assert one.auth() == ("api-key", "k")
    assert Upstream(url="https://x.test").auth() is None
    assert "AZURE_KEY" in repr(one)
    assert "'k'" not in repr(one)


def test_envelopes_of_statuses_of_no_name():
    assert envelope("google", 418, "c", "m")["error"]["status"] == "INVALID_ARGUMENT"
    assert envelope("anthropic", 418, "c", "m")["error"]["type"] == "api_error"
    assert envelope("openai", 418, "c", "m")["error"]["type"] == "invalid_request_error"
    assert envelope("openai", 502, "c", "m")["error"]["type"] == "api_error"


@pytest.mark.anyio
async def test_the_first_request_opens_the_pool_of_an_app_without_lifespan(upstream_url):
    gateway = Gateway(
        GatewayConfig((Upstream(url=upstream_url),), guard={"store": "memory://"}), sinks=[]
    )
    transport = httpx2.ASGITransport(gateway)
    async with httpx2.AsyncClient(transport=transport, base_url="http://g") as client:
        assert (await client.get("/v1/models")).is_success
        await gateway._proxy.close()
        await gateway._proxy.close()
        late = await client.get("/v1/models")  # opens no pool that nobody would close
        assert (late.status_code, late.json()["error"]["code"]) == (503, "shutting_down")
        assert gateway._proxy._session is None
    await gateway.guard.close()


@pytest.mark.anyio
async def test_a_client_that_leaves_while_it_sends(upstream_url):
    gateway = Gateway(
        GatewayConfig((Upstream(url=upstream_url),), guard={"store": "memory://"}), sinks=[]
    )

    async def receive():
        return {"type": "http.disconnect"}

    async def send(_message):
        raise AssertionError

    path = "/v1/moderations"
    scope = {"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""}
    await gateway(scope, receive, send)


def test_a_gateway_that_shuts_down_lets_nobody_in(run):
    running = run()
    running.gateway._gate.closed = True
    with running.client() as client:
        for path, asked, read in FAMILIES:
            reply = client.post(path, json=asked)
            assert reply.status_code == 503
            assert read(reply.json()) in {"shutting_down", "api_error", "UNAVAILABLE", "the gate"}
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200


def test_a_budget_store_that_is_away_is_not_ready(upstream_url):
    config = GatewayConfig(
        (Upstream(url=upstream_url),), guard={"store": "redis://127.0.0.1:1/0", "store_timeout": 1}
    )

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            raise RuntimeError("no lifespan")
        await gateway(scope, receive, send)

    gateway = Gateway(config, sinks=[])
    with serve(app) as url:
        assert httpx2.get(f"{url}/readyz").status_code == 503
        assert httpx2.get(f"{url}/healthz").status_code == 200
