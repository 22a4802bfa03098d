"""Time budgets of wrapped clients and guarded streams: first token, idle, whole stream."""

from __future__ import annotations

import asyncio

import httpx2
import openai
import pytest
from support.books import HELLO, Books
from support.streamed import drained, wrapped
from support.texts import ENGLISH
from support.upstream import Plan, count

import streamguard
from streamguard.errors import TimeBudgetExceededError

pytestmark = pytest.mark.anyio

CHAT = {"model": "gpt-4o", "messages": HELLO}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_does_not_begin_is_given_up(upstream, stream):
    book = Books(first_token_seconds=0.15)
    upstream.queue(Plan(fault="hang"))
    async with wrapped(upstream, book) as client:
        with pytest.raises(TimeBudgetExceededError) as caught:
            await client.chat.completions.create(**CHAT, stream=stream)
    assert isinstance(caught.value, openai.InternalServerError)
    assert (caught.value.status_code, caught.value.code) == (504, "time_budget_exceeded")
    call = upstream.calls[0].wait_over()
    assert call.closed_at is not None
    assert book.outcomes == ["timed_out"]
    assert book.charged == [(call.prompt_tokens, 0)]


async def test_a_whole_reply_too_late_is_given_up(upstream):
    book = Books(first_token_seconds=0.15)
    upstream.queue(Plan(fault="hang"))
    async with wrapped(upstream, book) as client:
        with pytest.raises(streamguard.StreamGuardError):
            await client.chat.completions.create(**CHAT)
        assert (await client.chat.completions.create(**CHAT)).choices[0].finish_reason == "stop"
    assert book.outcomes == ["timed_out", "completed"]


async def test_a_stream_that_falls_silent_ends_in_an_error(upstream):
    book = Books(idle_seconds=0.15)
    upstream.queue(Plan(fault="hang_midway", fault_after=5))
    async with wrapped(upstream, book) as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        with pytest.raises(openai.APIError, match="idle time budget"):
            await drained(stream)
    call = upstream.calls[0].wait_over()
    assert call.closed_at is not None
    assert book.outcomes == ["timed_out"]
    assert book.charged == [(call.prompt_tokens, call.visible_tokens)]


async def test_a_stream_that_takes_too_long_is_cut(upstream):
    book = Books(stream_seconds=0.2)
    upstream.queue(Plan(delay=0.01))
    async with wrapped(upstream, book) as client:
        text, finish = await drained(await client.chat.completions.create(**CHAT, stream=True))
    assert ENGLISH.startswith(text)
    assert finish == "length"
    assert 0 < count(text) < count(ENGLISH)
    assert upstream.calls[0].wait_over().closed_at is not None
    assert book.outcomes == ["timed_out"]


async def test_streams_in_time_pass(upstream):
    book = Books(stream_seconds=60, idle_seconds=30, first_token_seconds=30)
    async with wrapped(upstream, book) as client:
        stream = await client.chat.completions.create(**CHAT, stream=True)
        assert await drained(stream) == (ENGLISH, "stop")
    assert book.outcomes == ["completed"]


@pytest.mark.parametrize("seconds", [0.1, 60])
def test_blocking_streams_are_looked_at_between_parts(upstream, seconds):
    book = Books(stream_seconds=seconds)
    upstream.queue(Plan(delay=0.01))
    with wrapped(upstream, book, openai.OpenAI) as client:
        finish = None
        for chunk in client.chat.completions.create(**CHAT, stream=True):
            finish = chunk.choices[0].finish_reason or finish
    assert finish == ("length" if seconds < 1 else "stop")
    assert book.outcomes == ["timed_out" if seconds < 1 else "completed"]


def test_blocking_streams_in_time_pass_to_their_end(upstream):
    book = Books(stream_seconds=60)
    with book.guard.wrap(httpx2.Client(base_url=upstream.url)) as client:
        answer = client.post("/v1/chat/completions", json={**CHAT, "stream": True})
    assert answer.text.endswith("data: [DONE]\n\n")
    assert book.outcomes == ["completed"]


async def slow(items):
    for item in items:
        await asyncio.sleep(0.01)
        yield item


async def test_a_guarded_stream_of_chunks_ends_in_time(upstream):
    raw = openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k")
    async with raw:
        chunks = [c async for c in await raw.chat.completions.create(**CHAT, stream=True)]
    book = Books(stream_seconds=0.2)
    text, finish = await drained(book.guard.stream(slow(chunks), **CHAT))
    assert 0 < len(text) < len(ENGLISH)
    assert finish == "length"
    assert book.outcomes == ["timed_out"]


@pytest.mark.parametrize(
    ("settings", "items"),
    [
        ({"first_token_seconds": 0.05}, []),
        ({"idle_seconds": 0.05}, ["one"]),
        ({"stream_seconds": 0.05}, ["one"]),
    ],
)
async def test_a_guarded_stream_of_text_raises_in_time(settings, items):
    async def source():
        for item in items:
            yield item
        await asyncio.Event().wait()

    book = Books(**settings)
    stream = book.guard.stream(source(), **CHAT)
    got = []
    with pytest.raises(TimeBudgetExceededError):
        async for item in stream:
            got.append(item)  # noqa: PERF401 - the loop raises
    assert got == items
    assert book.outcomes == ["timed_out"]
    assert (await book.balance()).held == 0


async def test_a_source_that_does_not_come_is_given_up():
    async def source():
        await asyncio.Event().wait()

    book = Books(first_token_seconds=0.05)
    with pytest.raises(TimeBudgetExceededError):
        await anext(book.guard.stream(source(), **CHAT))
    assert book.outcomes == ["timed_out"]
