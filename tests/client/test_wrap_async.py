"""``guard.wrap(AsyncOpenAI())`` with the real SDK against a real upstream."""

from __future__ import annotations

import asyncio
import json

import httpx
import httpx2
import openai
import pytest
from support.books import HELLO, Books
from support.servers import wait_until
from support.streamed import drained
from support.texts import CJK, CODE, EMOJI, ENGLISH
from support.upstream import Plan, count

import streamguard
from streamguard import Guard, Identity, Limit

pytestmark = pytest.mark.anyio


def client_of(upstream, book, **options):
    options.setdefault("max_retries", 0)
    raw = openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k", **options)
    return book.guard.wrap(raw)


async def streamed(client, **body):
    body = {"model": "gpt-4o", "messages": HELLO, **body}
    return await client.chat.completions.create(stream=True, **body)


async def whole(client, **body):
    return await client.chat.completions.create(**{"model": "gpt-4o", "messages": HELLO, **body})


async def test_a_whole_reply_is_held_counted_and_settled(upstream):
    book = Books()
    async with client_of(upstream, book) as client:
        answer = await client.chat.completions.with_raw_response.create(
            model="gpt-4o", messages=HELLO
        )
    call = upstream.calls[0]
    assert type(client) is openai.AsyncOpenAI
    assert answer.parse().choices[0].message.content == ENGLISH
    assert call.body["max_completion_tokens"] == 4096
    assert call.headers["content-length"] == str(len(call.raw))
    assert call.headers["accept-encoding"] == "identity"
    assert answer.headers["x-streamguard-input-tokens"] == str(call.prompt_tokens)
    assert book.events == ["preflight", "started", "settled"]
    assert book.charged == [(call.prompt_tokens, call.generated)]
    assert (await book.balance()).held == 0


async def test_a_stream_passes_as_the_upstream_sent_it(upstream):
    book = Books()
    async with client_of(upstream, book) as client:
        got, finish = await drained(await streamed(client))
    call = upstream.calls[0].wait_over()
    assert (got, finish) == (ENGLISH, "stop")
    assert call.body["stream_options"] == {"include_usage": True}
    assert book.charged == [(call.prompt_tokens, call.generated)]
    assert book.outcomes == ["completed"]


async def test_usage_that_was_not_asked_for_is_not_shown(upstream):
    async with client_of(upstream, Books()) as client:
        chunks = [chunk async for chunk in await streamed(client)]
        asked = [c async for c in await streamed(client, stream_options={"include_usage": True})]
    assert all(chunk.choices for chunk in chunks)
    assert asked[-1].usage.completion_tokens == count(ENGLISH)


@pytest.mark.parametrize("budget", [1, 2, 37, 300])
@pytest.mark.parametrize(
    ("text", "chunk"),
    [(ENGLISH, "token"), (CODE, 7), (CJK, "char"), (EMOJI, "whole")],
    ids=["english", "code", "cjk", "emoji"],
)
async def test_a_stream_is_cut_at_the_exact_token(deaf, text, chunk, budget):
    book = Books(Limit(output_tokens=budget))
    deaf.default = Plan(text=text, chunk=chunk)
    async with client_of(deaf, book) as client:
        got, finish = await drained(await streamed(client))
    assert text.startswith(got)
    assert count(got) == budget
    assert finish == "length"
    assert book.outcomes == ["cut"]
    assert book.charged[0][1] >= budget


async def test_the_stream_helper_reads_a_cut_stream(deaf):
    book = Books(Limit(output_tokens=25))
    async with (
        client_of(deaf, book) as client,
        client.chat.completions.stream(model="gpt-4o", messages=HELLO) as stream,
    ):
        async for _ in stream:
            pass
        final = stream.current_completion_snapshot
        with pytest.raises(openai.LengthFinishReasonError):
            await stream.get_final_completion()
    assert final.choices[0].finish_reason == "length"
    assert count(final.choices[0].message.content) == 25


async def test_a_whole_reply_is_shortened_to_the_exact_token(deaf):
    book = Books(Limit(output_tokens=33))
    async with client_of(deaf, book) as client:
        reply = await whole(client)
    assert count(reply.choices[0].message.content) == 33
    assert reply.choices[0].finish_reason == "length"
    assert book.charged == [(deaf.calls[0].prompt_tokens, count(ENGLISH))]


async def test_the_upstream_is_closed_at_the_cut(deaf):
    book = Books(Limit(output_tokens=5))
    deaf.default = Plan(delay=0.005)
    async with client_of(deaf, book) as client:
        stream = await streamed(client)
        await drained(stream)
        call = deaf.calls[0].wait_over()
    assert call.closed_at is not None
    assert call.generated < count(ENGLISH)


REFUSALS = [
    (
        (),
        {"messages": [{"role": "user", "content": "word " * 140_000}]},
        (openai.BadRequestError, streamguard.ContextWindowExceededError, 400, 128_000),
    ),
    (
        (Limit(input_tokens=5),),
        {},
        (openai.APIStatusError, streamguard.InputBudgetExceededError, 413, 5),
    ),
    (
        (Limit(tokens=10, per="day"),),
        {},
        (openai.RateLimitError, streamguard.WindowBudgetExceededError, 429, 10),
    ),
]


@pytest.mark.parametrize(("limits", "body", "expected"), REFUSALS, ids=["window", "413", "429"])
@pytest.mark.parametrize("derive", [lambda c: c, lambda c: c.with_options(timeout=9).copy()])
async def test_a_refusal_is_the_sdks_error_and_ours_and_is_not_sent(
    upstream, limits, body, expected, derive
):
    theirs, ours, status, limit = expected
    book = Books(*limits)
    async with client_of(upstream, book, max_retries=3) as client:
        with pytest.raises(ours) as caught:
            await whole(derive(client), **body)
    error = caught.value
    assert isinstance(error, theirs)
    assert (error.status_code, error.limit) == (status, limit)
    assert error.requested is not None
    assert error.code == error.http_code
    assert error.response.headers["x-should-retry"] == "false"
    assert json.loads(error.response.content)["error"]["streamguard"]["limit"] == limit
    assert book.events == ["refused"]
    assert upstream.calls == []


async def test_a_copy_with_another_http_client_is_guarded(upstream):
    book = Books(Limit(input_tokens=1))
    async with client_of(upstream, book) as client, httpx2.AsyncClient() as http:
        copies = [client.copy(http_client=http), client.copy(http_client=client._client)]
        for copy in copies:
            with pytest.raises(streamguard.StreamGuardError):
                await whole(copy)
    assert upstream.calls == []


async def test_each_retry_of_the_sdk_is_a_reservation_of_its_own(upstream):
    book = Books()
    upstream.queue(Plan(fault="rate_limit", retry_after="0.01"), Plan(fault="server_error"))
    async with client_of(upstream, book, max_retries=2) as client:
        await whole(client)
    assert [call.status for call in upstream.calls] == [429, 500, 200]
    assert book.outcomes == ["error_response", "error_response", "completed"]
    assert book.charged == [(upstream.calls[2].prompt_tokens, count(ENGLISH))]


@pytest.mark.parametrize("as_stream", [False, True])
async def test_what_the_provider_refused_as_oversized_is_sent_once(upstream, as_stream):
    book = Books()
    upstream.queue(Plan(fault="context_length"))
    async with client_of(upstream, book, max_retries=3) as client:
        with pytest.raises(openai.BadRequestError):
            await whole(client, stream=as_stream)
        again = book.guard.wrap(openai.AsyncOpenAI(base_url=upstream.base_url, api_key="other"))
        async with again:
            for body in ({}, {"stream": True}, {"user": "someone"}):
                with pytest.raises(streamguard.OversizedRetryError) as caught:
                    await whole(again, **body)
    assert isinstance(caught.value, openai.BadRequestError)
    assert caught.value.body["streamguard"]["repeated"] is True
    assert len(upstream.calls) == 1
    assert book.events.count("retry_refused") == 3


async def test_an_abort_of_the_upstream_is_charged_as_far_as_it_came(upstream):
    book = Books()
    upstream.queue(Plan(fault="abort", fault_after=7))
    async with client_of(upstream, book) as client:
        with pytest.raises(openai.APIConnectionError):
            await drained(await streamed(client))
    call = upstream.calls[0].wait_over()
    assert book.outcomes == ["upstream_error"]
    assert book.charged == [(call.prompt_tokens, call.visible_tokens)]


@pytest.mark.parametrize("fault", ["hang", "hang_midway"])
async def test_cancellation_closes_the_upstream_and_settles_once(upstream, fault):
    book = Books()
    upstream.queue(Plan(fault=fault))
    async with client_of(upstream, book) as client:

        async def go():
            await drained(await streamed(client))

        task = asyncio.create_task(go())
        while not upstream.calls or (fault == "hang_midway" and upstream.calls[0].chunks < 3):
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        call = upstream.calls[0].wait_over()
        while not book.ended:
            await asyncio.sleep(0.005)
    assert call.closed_at is not None
    assert book.outcomes == ["cancelled"]
    assert book.charged == [(call.prompt_tokens, call.visible_tokens)]
    assert (await book.balance()).held == 0


async def test_closing_early_closes_the_upstream(upstream):
    book = Books()
    upstream.queue(Plan(delay=0.005))
    async with client_of(upstream, book) as client:
        stream = await streamed(client)
        async for _ in stream:
            break
        await stream.close()
        await stream.close()
        call = upstream.calls[0].wait_over()
    assert call.closed_at is not None
    assert book.outcomes == ["cancelled"]


@pytest.mark.parametrize("taken", [0, 2])
async def test_a_stream_that_is_dropped_is_settled(upstream, collected, taken):
    book = Books()
    upstream.queue(Plan(delay=0.005))
    async with client_of(upstream, book) as client:
        stream = await streamed(client)
        for _ in range(taken):
            await anext(stream)
        del stream
        while not book.ended:
            collected()
            await asyncio.sleep(0.005)
        call = upstream.calls[0].wait_over()
    assert call.closed_at is not None
    assert book.outcomes == ["cancelled"]
    assert (await book.balance()).held == 0


async def test_a_provider_that_cannot_be_reached_costs_nothing():
    book = Books()
    client = book.guard.wrap(
        openai.AsyncOpenAI(base_url="http://127.0.0.1:9/v1", api_key="k", max_retries=1)
    )
    async with client:
        with pytest.raises(openai.APIConnectionError):
            await whole(client)
    assert book.outcomes == ["unreachable", "unreachable"]
    assert (await book.balance()).used == 0


async def test_a_timeout_is_charged_its_prompt(upstream):
    book = Books()
    upstream.queue(Plan(fault="hang"))
    async with client_of(upstream, book, timeout=0.2) as client:
        with pytest.raises(openai.APITimeoutError):
            await whole(client)
    assert book.outcomes == ["upstream_error"]
    assert book.charged == [(upstream.calls[0].prompt_tokens, 0)]


async def test_the_identity_given_is_charged(upstream):
    book = Books()
    raw = openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k")
    async with raw:
        for name in ("ann", "bob"):
            await whole(book.guard.wrap(raw, identity=Identity(tenant=name)))
    assert [event.identity.tenant for event in book.ended] == ["ann", "bob"]


async def test_cutting_keeps_the_connection_pool_usable(deaf):
    book = Books(Limit(output_tokens=3))
    async with client_of(deaf, book) as client:
        for _ in range(3):
            await drained(await streamed(client))
    assert book.outcomes == ["cut"] * 3
    wait_until(lambda: all(call.over.is_set() for call in deaf.calls), "still open")


async def test_a_stream_longer_than_usual_holds_more_as_it_goes(deaf):
    book = Books()
    async with client_of(deaf, book) as client:
        deaf.default = Plan(text="short")
        for _ in range(25):
            await drained(await streamed(client))
        deaf.default = Plan(text=ENGLISH * 9, chunk=16)
        assert await drained(await streamed(client)) == (ENGLISH * 9, "stop")
    assert (await book.balance()).held == 0


async def test_concurrent_streams_never_overshoot_a_window(deaf):
    book = Books(Limit(output_tokens=100, per="hour", name="tight"))
    deaf.default = Plan(chunk="token", delay=0.001)
    async with client_of(deaf, book) as client:

        async def one():
            try:
                return await drained(await streamed(client, max_tokens=40))
            except streamguard.WindowBudgetExceededError:
                return None

        results = await asyncio.gather(*(one() for _ in range(5)))
    texts = [result[0] for result in results if result]
    assert 2 <= len(texts) < 5
    assert sum(count(text) for text in texts) <= 100


async def test_the_sdk_over_the_older_httpx_is_guarded(deaf):
    book = Books(Limit(output_tokens=8))
    async with client_of(deaf, book, http_client=httpx.AsyncClient()) as client:
        got, finish = await drained(await streamed(client))
        assert (count(got), finish) == (8, "length")
        with pytest.raises(streamguard.ContextWindowExceededError) as caught:
            await whole(client, messages=[{"role": "user", "content": "word " * 140_000}])
    assert isinstance(caught.value, openai.BadRequestError)


async def test_azures_client_is_guarded(deaf):
    book = Books(Limit(output_tokens=8))
    raw = openai.AsyncAzureOpenAI(
        azure_endpoint=deaf.url, azure_deployment="gpt-4o", api_key="k", api_version="2026-01-01"
    )
    async with book.guard.wrap(raw) as client:
        got, finish = await drained(await streamed(client))
    assert type(client) is openai.AsyncAzureOpenAI
    assert (count(got), finish) == (8, "length")
    assert deaf.calls[0].path == "/openai/deployments/gpt-4o/chat/completions"


async def test_a_guard_for_a_whole_window_is_opened_by_the_first_call(upstream):
    guard = Guard(limits=[Limit(tokens=10_000, per="hour")], sinks=[])
    client = guard.wrap(openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k"))
    async with client:
        await whole(client)
    await guard.close()
    assert len(upstream.calls) == 1
