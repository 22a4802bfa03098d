"""Keys and credentials go where they belong and nowhere else."""

from __future__ import annotations

import httpx2
import pytest
from support.servers import serve

from streamguard.gateway.app import Gateway
from streamguard.gateway.config import GatewayConfig
from streamguard.gateway.headers import onward_query
from streamguard.gateway.upstreams import Upstream

SECRET = "sk-upstream-secret"
CHAT = "/v1/chat/completions"
GEMINI = "/v1beta/models/gemini-2.5-flash:generateContent"
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


def body(model="gpt-4o", **more):
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}


def test_a_client_s_own_credentials_never_reach_an_upstream_with_a_key(run, providers):
    running = run()
    mine = {
        "authorization": f"Bearer {running.key}",
        "x-api-key": "mine-1",
        "api-key": "mine-2",
        "x-goog-api-key": "mine-3",
        "openai-organization": "mine-4",
        "openai-project": "mine-5",
        "x-goog-user-project": "mine-6",
        "cookie": "session=mine-7",
        "proxy-authorization": "Basic mine-8",
        "x-forwarded-for": "mine-9",
        "connection": "keep-alive, x-internal",
        "x-internal": "mine-10",
        "x-streamguard-tenant": "mine-11",
        "te": "trailers",
        "x-stainless-lang": "python",
        "anthropic-beta": "b",
    }
    with httpx2.Client(base_url=running.url) as client:
        assert client.post(CHAT, json=body(), headers=mine).status_code == 200
    sent = dict(providers.last.headers)
    assert "mine" not in str(providers.last.headers)
    assert running.key not in str(providers.last.headers)
    assert sent["authorization"] == f"Bearer {SECRET}"
    assert (sent["x-stainless-lang"], sent["anthropic-beta"]) == ("python", "b")
    assert sent["accept-encoding"] == "identity"
    assert "te" not in sent


@pytest.mark.parametrize("header", ["authorization", "x-api-key", "x-goog-api-key", "api-key"])
def test_a_virtual_key_is_taken_wherever_a_client_puts_it(run, header):
    running = run()
    value = f"bearer {running.key}" if header == "authorization" else running.key
    with httpx2.Client(base_url=running.url) as client:
        assert client.post(CHAT, json=body(), headers={header: value}).status_code == 200


def test_google_s_key_in_the_query_is_neither_forwarded_nor_told(run, providers, capfd):
    running = run()
    url = f"{running.url}{GEMINI}?key={running.key}&alt=json&access_token=t0k3n"
    assert httpx2.post(url, json=CONTENTS).status_code == 200
    assert providers.last.query == {"alt": ["json"]}
    assert running.key not in str(providers.last)
    url = f"{running.url}{GEMINI}?key={running.key}"
    assert httpx2.post(url, json=CONTENTS).status_code == 200
    assert providers.last.query == {}
    assert running.key not in "".join(capfd.readouterr())
    assert "t0k3n" not in str(running.sink.events)


def test_an_error_that_quotes_the_gateway_s_key_is_blackened(run):
    with run().client() as client:
        reply = client.post(CHAT, json=body("echo-500"))
    assert reply.status_code == 500
    assert "[key]" in reply.json()["error"]["message"]
    assert "x-echo" not in reply.headers
    assert SECRET not in reply.text + str(reply.headers)


def test_errors_without_a_key_of_the_gateway_pass_as_they_are(upstream_url):
    config = GatewayConfig((Upstream(url=upstream_url),), guard={"store": "memory://"})
    with serve(Gateway(config, sinks=[])) as url:
        head = {"authorization": "Bearer own-key"}
        reply = httpx2.post(f"{url}{CHAT}", json=body("echo-500"), headers=head)
        assert "own-key" in reply.json()["error"]["message"]
        assert httpx2.post(f"{url}{CHAT}", json=body("status-401")).status_code == 401


def test_without_virtual_keys_the_caller_s_own_key_goes_on_and_is_a_tenant(upstream_url, providers):
    from streamguard.sinks.memory import ListSink

    sink = ListSink()
    config = GatewayConfig((Upstream(url=upstream_url),), guard={"store": "memory://"})
    with serve(Gateway(config, sinks=[sink])) as url:
        for key in ("own-key", "other-key", None):
            head = {"authorization": f"Bearer {key}"} if key else {}
            query = "?a=1" if key else "?a=1&key=q"
            assert httpx2.post(f"{url}{CHAT}{query}", json=body(), headers=head).is_success
    assert [seen.header("authorization") for seen in providers.seen] == [
        "Bearer own-key", "Bearer other-key", None,
    ]  # fmt: skip
    assert providers.last.query == {"a": ["1"], "key": ["q"]}
    tenants = {event.identity.tenant for event in sink.events}
    assert len(tenants) == 3
    assert "own-key" not in str(sink.events)
    assert all(tenant.startswith("key-") for tenant in tenants)


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ([("authorization", "Bearer any"), ("api-key", "own-key")], ""),
        ([("authorization", "Bearer any"), ("authorization", "Bearer own-key")], ""),
        ([("authorization", "Bearer\town-key"), ("x-api-key", "any")], ""),
        ([("authorization", "Basic own-key"), ("x-api-key", "any")], ""),
        ([("authorization", "Bearer any")], "?Key=own-key"),
        ([("x-goog-api-key", "any")], "?oauth_token=own-key"),
    ],
)
def test_nobody_is_another_tenant_by_a_second_key(upstream_url, providers, headers, query):
    config = GatewayConfig((Upstream(url=upstream_url),), guard={"store": "memory://"})
    with serve(Gateway(config, sinks=[])) as url:
        reply = httpx2.post(f"{url}{CHAT}{query}", json=body(), headers=headers)
        assert reply.status_code == 401
        assert "more than one key" in reply.json()["error"]["message"]
        assert not providers.seen


@pytest.mark.parametrize(
    "query", ["fields=candidates", "%24fields=candidates", "callback=f", "$callback=f", "alt=proto"]
)
def test_google_is_not_asked_to_leave_the_usage_out(run, providers, query):
    running = run()
    head = {"x-goog-api-key": running.key, "x-goog-fieldmask": "candidates"}
    reply = httpx2.post(f"{running.url}{GEMINI}?{query}&alt=sse", json=CONTENTS, headers=head)
    assert reply.status_code == 200
    assert providers.last.query == {"alt": ["sse"]}
    assert providers.last.header("x-goog-fieldmask") is None


def test_an_empty_query_stays_empty():
    one = Upstream(url="http://h")
    assert onward_query({"query_string": b""}, one, pass_credentials=True) == ""
    assert onward_query({}, one, pass_credentials=False) == ""


def test_the_upstream_refusing_the_gateway_s_key_is_not_the_client_s_fault(run):
    with run().client() as client:
        reply = client.post(CHAT, json=body("status-401"))
    assert reply.status_code == 502
    assert reply.json()["error"]["code"] == "upstream_error"
    assert "does not accept the gateway's key" in reply.text


def test_no_cookies_no_spoofed_headers_no_redirects(run, providers):
    with run().client() as client:
        reply = client.get("/v1/models")
        assert reply.is_success
        assert "set-cookie" not in reply.headers
        assert "x-streamguard-limit" not in reply.headers
        client.cookies.clear()
        assert client.get("/v1/models").is_success
        assert providers.last.header("cookie") is None
        reply = client.post(CHAT, json=body("redirect"))
    assert reply.status_code == 502
    assert "redirects" in reply.text
    assert "location" not in reply.headers
    assert "elsewhere" not in reply.text


def test_no_prompt_and_no_key_in_any_log(run, capfd):
    words = "a-secret-prompt"
    running = run("[[limits]]\noutput_tokens = 80\n[[limits]]\ninput_tokens = 50")
    with running.client() as client:
        asked = body(stream=True)
        asked["messages"][0]["content"] = words
        assert client.post(CHAT, json=asked).is_success
        asked["messages"][0]["content"] = words * 200
        assert client.post(CHAT, json=asked).status_code == 413
        assert client.post(CHAT, json=asked).status_code == 413
        assert client.post(CHAT, json={"model": words, "messages": words}).status_code == 400
        assert client.post(CHAT, content=b'{"' + words.encode()).status_code == 400
        asked["messages"][0]["content"] = words
        for model in ("status-400", "echo-500", "break", "redirect"):
            try:
                client.post(CHAT, json={**asked, "model": model})
            except httpx2.RemoteProtocolError:
                assert model == "break"
    told = "".join(capfd.readouterr()) + str(running.sink.events)
    assert words not in told
    assert running.key not in told
    assert SECRET not in told
    assert "upstream_failed" in told
