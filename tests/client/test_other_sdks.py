"""``guard.wrap`` and ``guard.stream`` with the Responses API, Anthropic's and Google's SDKs."""

from __future__ import annotations

import asyncio

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as genai_errors
from google.genai.types import HttpOptions
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route
from support.books import HELLO, Books
from support.formats import FORMATS
from support.servers import serve, wait_until
from support.texts import ENGLISH
from support.upstream import count, pieces

import streamguard
from streamguard import ConfigurationError, Limit

pytestmark = pytest.mark.anyio

WORDS = [piece.text for piece in pieces(ENGLISH, "token", 120)]
TEXT = "".join(WORDS)
BUDGET = 40


class Providers:
    """Streams TEXT in the format of the path that is asked; counts requests and closings."""

    def __init__(self):
        self.seen = []
        self.closed = 0
        self.app = Starlette(routes=[Route("/{path:path}", self.answer, methods=["POST"])])

    async def answer(self, request):
        path = request.url.path
        self.seen.append((path, await request.json()))
        if path.endswith(("/count_tokens", ":countTokens")):
            return JSONResponse({"input_tokens": 3, "totalTokens": 3})
        end = path.rsplit("/", 1)[-1]
        name = next(name for name, one in FORMATS.items() if one.path.endswith(f"/{end}"))
        return StreamingResponse(
            self.stream(FORMATS[name].build(WORDS)), media_type=FORMATS[name].media
        )

    async def stream(self, data):
        try:
            for at in range(0, len(data), 100):
                yield data[at : at + 100]
                await asyncio.sleep(0.001)
        except asyncio.CancelledError:
            self.closed += 1
            raise


@pytest.fixture(scope="module")
def served():
    providers = Providers()
    with serve(providers.app) as url:
        yield providers, url


@pytest.fixture
def providers(served):
    served[0].seen.clear()
    served[0].closed = 0
    return served[0]


@pytest.fixture
def url(served):
    return served[1]


def anthropic_of(url, kind=anthropic.AsyncAnthropic):
    return kind(base_url=url, api_key="k", max_retries=0)


def genai_of(url):
    return genai.Client(api_key="k", http_options=HttpOptions(base_url=url))


CLAUDE = {"model": "claude-sonnet-5", "messages": HELLO, "max_tokens": 500}
GEMINI = {"model": "gemini-2.5-flash", "contents": "Tell me a story."}


async def responses(client):
    text, reason = "", None
    async for event in await client.responses.create(model="gpt-4o", input="hi", stream=True):
        if event.type == "response.output_text.delta":
            text += event.delta
        if event.type == "response.incomplete":
            reason = event.response.incomplete_details.reason
    return text, reason


async def messages(client):
    async with client.messages.stream(**CLAUDE) as stream:
        text = "".join([piece async for piece in stream.text_stream])
        return text, (await stream.get_final_message()).stop_reason


def messages_blocking(client):
    with client.messages.stream(**CLAUDE) as stream:
        text = "".join(stream.text_stream)
        return text, stream.get_final_message().stop_reason


async def gemini(client):
    text, reason = "", None
    async for chunk in await client.aio.models.generate_content_stream(**GEMINI):
        text += chunk.text or ""
        reason = chunk.candidates[0].finish_reason or reason
    return text, reason and reason.value


def gemini_blocking(client):
    text, reason = "", None
    for chunk in client.models.generate_content_stream(**GEMINI):
        text += chunk.text or ""
        reason = chunk.candidates[0].finish_reason or reason
    return text, reason and reason.value


CLIENTS = {
    "responses": (
        lambda url: openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k"),
        responses,
        "max_output_tokens",
    ),
    "anthropic": (anthropic_of, messages, "max_tokens"),
    "anthropic-sync": (
        lambda url: anthropic_of(url, anthropic.Anthropic),
        messages_blocking,
        "max_tokens",
    ),
    "genai": (genai_of, gemini, "MAX_TOKENS"),
    "genai-sync": (genai_of, gemini_blocking, "MAX_TOKENS"),
}


async def ask(name, url, book):
    make, read, _ = CLIENTS[name]
    client = book.guard.wrap(make(url))
    result = await asyncio.to_thread(read, client) if "sync" in name else await read(client)
    await close(client)
    return result


async def close(client):
    if isinstance(client, genai.Client):
        client.close()
        await client.aio.aclose()
    elif isinstance(client, anthropic.Anthropic):
        client.close()
    else:
        await client.close()


@pytest.mark.parametrize("name", CLIENTS)
async def test_every_sdk_reads_a_cut_stream(name, url, providers):
    book = Books(Limit(output_tokens=BUDGET))
    text, reason = await ask(name, url, book)
    assert TEXT.startswith(text)
    assert count(text) == BUDGET
    assert reason == CLIENTS[name][2]
    assert book.outcomes == ["cut"]
    wait_until(lambda: providers.closed == 1, "the upstream was not closed")


@pytest.mark.parametrize("name", CLIENTS)
async def test_every_sdk_reads_a_whole_stream(name, url, providers):
    book = Books()
    text, reason = await ask(name, url, book)
    assert text == TEXT
    assert reason != CLIENTS[name][2]
    assert book.outcomes == ["completed"]
    assert (await book.balance()).held == 0


@pytest.mark.parametrize("name", ["responses", "anthropic", "anthropic-sync"])
async def test_refusals_are_the_sdks_errors_and_ours(name, url, providers):
    book = Books(Limit(input_tokens=1))
    with pytest.raises(streamguard.InputBudgetExceededError) as caught:
        await ask(name, url, book)
    assert isinstance(caught.value, (openai.APIStatusError, anthropic.APIStatusError))
    assert caught.value.status_code == 413
    assert caught.value.limit == 1
    assert providers.seen == []


@pytest.mark.parametrize("name", ["genai", "genai-sync"])
async def test_googles_errors_tell_the_figures(name, url, providers):
    with pytest.raises(genai_errors.ClientError) as caught:
        await ask(name, url, Books(Limit(input_tokens=1)))
    assert caught.value.code == 413
    assert caught.value.details["error"]["details"][0]["streamguard"]["limit"] == 1
    assert providers.seen == []


async def test_googles_client_stays_usable_beside_its_twin(url, providers, collected):
    raw = genai_of(url)
    twin = Books().guard.wrap(raw)
    assert type(twin) is genai.Client
    del twin
    collected()
    assert raw.models.count_tokens(model="gemini-2.5-flash", contents="hi").total_tokens == 3
    twin = Books().guard.wrap(raw)
    del raw
    collected()
    assert twin.models.count_tokens(model="gemini-2.5-flash", contents="hi").total_tokens == 3
    await close(twin)


def test_googles_client_works_in_one_loop_after_another(url, providers):
    raw = genai_of(url)
    client = Books().guard.wrap(raw)

    async def once():
        text, _ = await gemini(client)
        await raw._api_client._async_httpx_client._client_for_running_loop().aclose()
        return text

    assert [asyncio.run(once()), asyncio.run(once())] == [TEXT, TEXT]


def test_a_google_client_over_another_transport_is_refused(url):
    client = genai_of(url)
    api = client._api_client
    asynchronous, api._async_httpx_client = api._async_httpx_client, None
    with pytest.raises(ConfigurationError, match="httpx"):
        Books().guard.wrap(client)
    api._async_httpx_client = asynchronous


async def collected_events(url, make):
    client = make(url)
    if isinstance(client, genai.Client):
        client = Books().guard.wrap(client)  # over httpx, where its default may be aiohttp
        stream = await client.aio.models.generate_content_stream(**GEMINI)
        events = [chunk async for chunk in stream]
        await close(client)
        return events
    async with client:
        if isinstance(client, anthropic.AsyncAnthropic):
            return [event async for event in await client.messages.create(**CLAUDE, stream=True)]
        stream = await client.responses.create(model="gpt-4o", input="hi", stream=True)
        return [event async for event in stream]


async def test_googles_chunks_are_cut_with_googles_chunks(url, providers):
    chunks = await collected_events(url, genai_of)
    book = Books(Limit(output_tokens=BUDGET))

    async def source():
        for chunk in chunks:
            yield chunk

    stream = book.guard.stream(source(), model="gpt-4o", messages=HELLO)
    got = [chunk async for chunk in stream]
    assert stream.cut
    assert {type(chunk) for chunk in got} == {type(chunks[0])}
    assert count("".join(chunk.text or "" for chunk in got)) == BUDGET
    assert got[-1].candidates[0].finish_reason.value == "MAX_TOKENS"


@pytest.mark.parametrize("name", ["responses", "anthropic"])
async def test_typed_events_are_cut_with_typed_events(name, url, providers):
    events = await collected_events(url, CLIENTS[name][0])
    book = Books(Limit(output_tokens=BUDGET))

    async def source():
        for event in events:
            yield event

    stream = book.guard.stream(source(), model="gpt-4o", messages=HELLO)
    got = [event async for event in stream]
    assert stream.cut
    assert {type(event) for event in got} <= {type(event) for event in events} | {
        openai.types.responses.ResponseIncompleteEvent
    }
    deltas = [event.delta for event in got if event.type.endswith(".delta")]
    deltas += [event.delta.text for event in got if event.type == "content_block_delta"]
    assert count("".join(deltas)) == BUDGET
    ends = {"responses": "response.incomplete", "anthropic": "message_stop"}
    assert got[-1].type == ends[name]
