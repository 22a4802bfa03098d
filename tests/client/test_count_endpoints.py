"""The providers' count endpoints as ``count_remote``, asked over real HTTP by real clients."""

from __future__ import annotations

import anthropic
import httpx2
import pytest
from google import genai
from google.genai.types import HttpOptions
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from support.servers import serve

from streamguard import ConfigurationError, Guard
from streamguard.client.counting import anthropic_counts, first_of, gemini_counts

pytestmark = pytest.mark.anyio

CLAUDE = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 10,
    "temperature": 0,
    "system": "Be brief.",
    "messages": [{"role": "user", "content": "How long is the coast?"}],
}
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "How long is the coast?"}]}]}
GEMINI_PATH = "/v1beta/models/gemini-2.5-flash:generateContent"


class Endpoints:
    """Both providers' count endpoints; they remember what they were asked."""

    def __init__(self):
        self.seen = []
        self.answer = {"input_tokens": 1_234, "totalTokens": 4_321}
        self.status = 200
        self.app = Starlette(routes=[Route("/{path:path}", self.count, methods=["POST"])])

    async def count(self, request):
        self.seen.append((request.url.path, await request.json()))
        return JSONResponse(self.answer, self.status)


@pytest.fixture(scope="module")
def served():
    endpoints = Endpoints()
    with serve(endpoints.app) as url:
        yield endpoints, url


@pytest.fixture
def endpoints(served):
    endpoints, _ = served
    endpoints.seen.clear()
    endpoints.status = 200
    endpoints.answer = {"input_tokens": 1_234, "totalTokens": 4_321}
    return endpoints


@pytest.fixture
def url(served):
    return served[1]


@pytest.fixture(params=["sdk", "httpx2"])
async def for_claude(request, url):
    if request.param == "sdk":
        async with anthropic.AsyncAnthropic(api_key="k", base_url=url, max_retries=0) as client:
            yield anthropic_counts(client)
    else:
        async with httpx2.AsyncClient(base_url=url) as client:
            yield anthropic_counts(client)


@pytest.fixture(params=["sdk", "httpx2"])
async def for_gemini(request, url):
    if request.param == "sdk":
        client = genai.Client(api_key="k", http_options=HttpOptions(base_url=url))
        yield gemini_counts(client)
        await client.aio.aclose()
        client.close()
    else:
        async with httpx2.AsyncClient(base_url=url) as client:
            yield gemini_counts(client)


async def test_anthropic_counts(endpoints, for_claude):
    async with Guard(sinks=[], count_remote=for_claude) as guard:
        found = await guard.preflight(CLAUDE, path="/v1/messages")
        assert found.input_tokens == sum(found.count.components.values()) == 1_234
        assert (found.count.method, found.count.margin, found.count.remote) == (
            "calibrated", 0.0, True,
        )  # fmt: skip
    ((path, asked),) = endpoints.seen
    assert path == "/v1/messages/count_tokens"
    assert asked == {key: CLAUDE[key] for key in ("model", "system", "messages")}


@pytest.mark.filterwarnings("ignore:Inheritance class Aiohttp:DeprecationWarning")
async def test_gemini_counts(endpoints, for_gemini):
    async with Guard(sinks=[], count_remote=for_gemini) as guard:
        found = await guard.preflight(GEMINI, path=GEMINI_PATH)
        assert found.input_tokens == 4_321
    ((path, asked),) = endpoints.seen
    assert path.startswith("/v1")
    assert path.endswith("/models/gemini-2.5-flash:countTokens")
    whole = asked["generateContentRequest"]
    assert whole == {"model": "models/gemini-2.5-flash", **GEMINI}


async def test_only_estimates_are_asked_for_and_only_of_their_provider(endpoints, url):
    async with httpx2.AsyncClient(base_url=url) as client:
        hook = first_of(anthropic_counts(client), gemini_counts(client))
        async with Guard(sinks=[], count_remote=hook) as guard:
            chat = {"model": "gpt-4o", "messages": CLAUDE["messages"]}
            assert (await guard.preflight(chat)).count.method == "exact"
            other = {"model": "llama-3", "messages": CLAUDE["messages"]}
            assert not (await guard.preflight(other)).count.remote
            assert endpoints.seen == []
            assert (await guard.preflight(GEMINI, path=GEMINI_PATH)).input_tokens == 4_321
            assert guard.counter.remote_failures == 0


@pytest.mark.parametrize(
    ("status", "answer"),
    [(500, {}), (429, {"error": {"type": "rate_limit_error"}}), (200, {"error": 1}), (200, [])],
)
async def test_where_the_endpoint_fails_the_estimate_stands(endpoints, url, status, answer):
    async with Guard(sinks=[]) as guard:
        estimate = await guard.preflight(CLAUDE, path="/v1/messages")
    endpoints.status, endpoints.answer = status, answer
    async with (
        httpx2.AsyncClient(base_url=url) as client,
        Guard(sinks=[], count_remote=anthropic_counts(client)) as guard,
    ):
        found = await guard.preflight(CLAUDE, path="/v1/messages")
        assert guard.counter.remote_failures == (status != 200)
    assert found.count == estimate.count


def test_clients_of_another_kind_are_refused():
    with pytest.raises(ConfigurationError, match="anthropic_counts takes an AsyncAnthropic"):
        anthropic_counts(object())
    with pytest.raises(ConfigurationError, match="not Client"):
        anthropic_counts(httpx2.Client())
    with pytest.raises(ConfigurationError, match="gemini_counts takes a google-genai Client"):
        gemini_counts(3)
    with pytest.raises(ConfigurationError, match="Vertex"):
        gemini_counts(genai.Client(vertexai=True, api_key="k"))
