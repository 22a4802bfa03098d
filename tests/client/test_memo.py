"""Requests that come again word for word are answered from memory, where the guard is set to."""

from __future__ import annotations

import openai
import pytest
from support.books import HELLO, Books
from support.texts import ENGLISH
from support.upstream import Plan

from streamguard import Identity

pytestmark = pytest.mark.anyio

ASK = {"model": "gpt-4o", "messages": HELLO, "temperature": 0}
USAGE = {"stream_options": {"include_usage": True}}


def raw(upstream, kind=openai.AsyncOpenAI):
    return kind(base_url=upstream.base_url, api_key="k", max_retries=0)


async def streamed(client, **body):
    stream = await client.chat.completions.create(**ASK, **body, stream=True)
    return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])


async def test_a_whole_reply_is_remembered(upstream):
    book = Books(cache={})
    async with book.guard.wrap(raw(upstream)) as client:
        create = client.chat.completions.with_raw_response.create
        first, second = await create(**ASK), await create(**ASK)
        other = await create(**ASK, seed=1)
    assert second.headers["x-streamguard-cache"] == "hit"
    assert second.parse() == first.parse()
    assert "x-streamguard-cache" not in other.headers
    assert len(upstream.calls) == 2
    assert book.events.count("cached") == 1


@pytest.mark.parametrize("kind", [openai.AsyncOpenAI, openai.OpenAI])
async def test_a_stream_is_remembered(upstream, kind):
    book = Books(cache={})
    client = book.guard.wrap(raw(upstream, kind))
    for _ in range(2):
        if kind is openai.AsyncOpenAI:
            text = await streamed(client)
        else:
            stream = client.chat.completions.create(**ASK, stream=True)
            text = "".join([c.choices[0].delta.content or "" for c in stream if c.choices])
        assert text == ENGLISH
    assert len(upstream.calls) == 1
    await client.close() if kind is openai.AsyncOpenAI else client.close()


async def test_what_is_not_whole_or_too_large_or_anothers_is_not_remembered(upstream):
    book = Books(cache={"max_answer": 100})
    roomy = Books(cache={})
    async with raw(upstream) as plain:
        for _ in range(2):
            await streamed(book.guard.wrap(plain))
        assert len(upstream.calls) == 2
        upstream.queue(Plan(fault="abort"))
        with pytest.raises(openai.APIConnectionError):
            await streamed(roomy.guard.wrap(plain))
        for tenant in ("a", "b", "a"):
            await streamed(roomy.guard.wrap(plain, identity=Identity(tenant=tenant)))
    assert len(upstream.calls) == 5
