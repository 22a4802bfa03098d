"""A stream that its caller leaves is read on where the provider bills on, or by the settings."""

from __future__ import annotations

import asyncio

import openai
import pytest
from support.books import HELLO, Books
from support.servers import wait_until
from support.streamed import wrapped
from support.texts import ENGLISH
from support.upstream import Plan, count

from streamguard.client import io

pytestmark = pytest.mark.anyio

CHAT = {"model": "gpt-4o", "messages": HELLO, "stream": True}


@pytest.mark.parametrize("taken", [0, 1])
async def test_a_stream_that_was_left_is_read_to_its_end(upstream, taken):
    book = Books(on_disconnect="drain")
    upstream.queue(Plan(delay=0.0005))
    async with wrapped(upstream, book) as client:
        stream = await client.chat.completions.create(**CHAT)
        for _ in range(taken):
            await anext(stream)
        await stream.close()
        assert book.ended == []
        while not book.ended:
            await asyncio.sleep(0.005)
    call = upstream.calls[0].wait_over()
    assert call.closed_at is None
    assert book.charged == [(call.prompt_tokens, count(ENGLISH))]
    assert book.outcomes == ["completed"]


async def test_a_model_whose_provider_bills_on_is_drained_by_itself(upstream):
    book = Books()
    async with wrapped(upstream, book) as client:
        for model in ("mistral-large-latest", "gpt-4o"):
            upstream.queue(Plan(delay=0.001))
            stream = await client.chat.completions.create(**{**CHAT, "model": model})
            await anext(stream)
            await stream.close()
            while len(book.ended) < len(upstream.calls):
                await asyncio.sleep(0.005)
    assert book.outcomes == ["completed", "cancelled"]


async def test_draining_ends_in_time(upstream):
    book = Books(on_disconnect="drain", drain_seconds=0.1)
    upstream.queue(Plan(fault="hang_midway"))
    async with wrapped(upstream, book) as client:
        stream = await client.chat.completions.create(**CHAT)
        await anext(stream)
        await stream.close()
        while not book.ended:
            await asyncio.sleep(0.005)
    call = upstream.calls[0].wait_over()
    assert call.closed_at is not None
    assert book.outcomes == ["cancelled"]


async def test_an_error_while_draining_settles(upstream):
    book = Books(on_disconnect="drain", stream_seconds=30)
    upstream.queue(Plan(fault="abort", fault_after=20, delay=0.001))
    async with wrapped(upstream, book) as client:
        stream = await client.chat.completions.create(**CHAT)
        await anext(stream)
        await stream.close()
        while not book.ended:
            await asyncio.sleep(0.005)
    assert book.outcomes == ["cancelled"]
    assert book.charged == [(12, upstream.calls[0].visible_tokens)]


@pytest.mark.parametrize("seconds", [0.05, 30.0])
def test_blocking_streams_are_read_on_in_a_thread(upstream, seconds):
    book = Books(on_disconnect="drain", drain_seconds=seconds)
    upstream.queue(Plan(delay=0.001))
    with wrapped(upstream, book, openai.OpenAI) as client:
        stream = client.chat.completions.create(**CHAT)
        next(stream)
        stream.close()
        wait_until(lambda: book.ended, "not settled")
    call = upstream.calls[0].wait_over()
    assert (call.closed_at is None) == (seconds > 1)
    assert book.outcomes == ["completed" if seconds > 1 else "cancelled"]


async def test_what_was_drained_is_remembered_whole(upstream):
    book = Books(on_disconnect="drain", cache={"any_temperature": True})
    async with wrapped(upstream, book) as client:
        stream = await client.chat.completions.create(**CHAT)
        await anext(stream)
        await stream.close()
        while io._tasks or not book.ended:
            await asyncio.sleep(0.005)
        again = await client.chat.completions.create(**CHAT)
        text = "".join([c.choices[0].delta.content or "" async for c in again if c.choices])
    assert text == ENGLISH
    assert len(upstream.calls) == 1
