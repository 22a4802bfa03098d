"""``guard.stream``: SDK chunks, decoded JSON and text from any async iterator."""

from __future__ import annotations

import asyncio

import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk
from support.books import HELLO, Books
from support.texts import CJK, CODE, EMOJI, ENGLISH, SAMPLES
from support.upstream import Plan, count

import streamguard
from streamguard import ConfigurationError, Guard, Limit
from streamguard.guard.preflight import assess

pytestmark = pytest.mark.anyio


class Source:
    """An async iterator that says whether it was closed, and can fail or hang at its end."""

    def __init__(self, items, end=None):
        self.items = list(items)
        self.end = end
        self.closed = 0

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.items:
            return self.items.pop(0)
        if self.end == "hang":
            await asyncio.Event().wait()
        raise self.end or StopAsyncIteration

    async def aclose(self):
        self.closed += 1


def sliced(text, size):
    return [text[at : at + size] for at in range(0, len(text), size)]


def guarded(book, source, **request):
    return book.guard.stream(source, model="gpt-4o", messages=HELLO, **request)


async def chunks_of(upstream, **body):
    client = openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k", max_retries=0)
    async with client:
        stream = await client.chat.completions.create(
            model="gpt-4o", messages=HELLO, stream=True, **body
        )
        return [chunk async for chunk in stream]


@pytest.mark.parametrize("budget", [1, 3, 50, 299])
@pytest.mark.parametrize("name", SAMPLES)
async def test_text_is_cut_at_the_exact_token(name, budget):
    book = Books(Limit(output_tokens=budget))
    source = Source(sliced(SAMPLES[name], 5))
    async with guarded(book, source) as stream:
        got = "".join([item async for item in stream])
    assert SAMPLES[name].startswith(got)
    assert count(got) == budget or count(SAMPLES[name][: len(got) + 1]) > budget  # inside a char
    assert count(got) >= budget - 1
    assert (stream.cut, source.closed) == (True, 1)
    assert stream.usage.output_tokens >= budget
    assert book.outcomes == ["cut"]


@given(text=st.text(max_size=60), size=st.integers(1, 9), budget=st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_any_text_in_any_pieces_is_cut_where_a_piece_goes_over(text, size, budget):
    book = Books(Limit(output_tokens=budget))
    stream = guarded(book, Source(sliced(text, size)))

    async def go():
        return "".join([item async for item in stream])

    got = asyncio.run(go())
    fitting = 0
    while fitting < len(text) and count(text[: fitting + size]) <= budget:
        fitting += size
    assert text.startswith(got)
    assert count(got) <= budget
    assert stream.cut == (fitting < len(text))
    assert len(got) >= min(fitting, len(text))


@pytest.mark.parametrize(
    ("text", "chunk"), [(ENGLISH, "token"), (CODE, 7), (CJK, "char"), (EMOJI, "whole")]
)
async def test_chunks_are_cut_with_chunks_of_their_type(upstream, text, chunk):
    upstream.queue(Plan(text=text, chunk=chunk))
    given_chunks = await chunks_of(upstream)
    book = Books(Limit(output_tokens=40))
    async with guarded(book, Source(given_chunks)) as stream:
        got = [item async for item in stream]
    assert all(type(item) is ChatCompletionChunk for item in got)
    assert got[-1].choices[0].finish_reason == "length"
    assert [item.choices[0].finish_reason for item in got[:-1]] == [None] * (len(got) - 1)
    assert count("".join(item.choices[0].delta.content or "" for item in got)) == 40
    assert {item.id for item in got} == {given_chunks[0].id}


async def test_what_fits_comes_as_the_same_objects(upstream):
    given_chunks = await chunks_of(upstream, stream_options={"include_usage": True})
    book = Books()
    async with guarded(book, Source(given_chunks)) as stream:
        got = [item async for item in stream]
    assert all(mine is theirs for mine, theirs in zip(got, given_chunks, strict=True))
    assert stream.usage.output_tokens == count(ENGLISH)
    assert stream.usage.input_tokens == upstream.calls[0].prompt_tokens
    assert book.outcomes == ["completed"]


async def test_a_usage_chunk_follows_a_cut_where_it_was_asked_for(upstream):
    given_chunks = await chunks_of(upstream)
    book = Books(Limit(output_tokens=5))
    stream = guarded(book, Source(given_chunks), stream_options={"include_usage": True})
    got = [item async for item in stream]
    assert got[-1].usage.completion_tokens == 5
    assert got[-2].choices[0].finish_reason == "length"


async def test_decoded_chunks_stay_decoded(upstream):
    documents = [chunk.model_dump(mode="json") for chunk in await chunks_of(upstream)]
    book = Books(Limit(output_tokens=6))
    got = [item async for item in guarded(book, Source(documents))]
    assert got[-1]["choices"][0]["finish_reason"] == "length"
    assert count("".join(d["choices"][0]["delta"].get("content") or "" for d in got)) == 6


async def test_an_awaitable_source_is_sent_only_when_it_may_be(upstream):
    book = Books(Limit(input_tokens=5))
    client = openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k")
    async with client:
        create = client.chat.completions.create
        with pytest.raises(streamguard.InputBudgetExceededError):
            await anext(guarded(book, create(model="gpt-4o", messages=HELLO, stream=True)))
        assert upstream.calls == []
        roomy = Books(Limit(output_tokens=4))
        upstream.default = Plan(delay=0.002)
        async with guarded(roomy, create(model="gpt-4o", messages=HELLO, stream=True)) as stream:
            assert roomy.events == ["preflight", "started"]
            got = [chunk async for chunk in stream]
        call = upstream.calls[0].wait_over()
    assert got[-1].choices[0].finish_reason == "length"
    assert call.closed_at is not None


async def test_a_refusal_closes_a_source_that_runs_already():
    source = Source(["a"])
    book = Books(Limit(input_tokens=1))
    with pytest.raises(streamguard.InputBudgetExceededError):
        async with guarded(book, source):
            pytest.fail("entered")
    assert source.closed == 1
    assert book.events == ["refused"]


async def test_the_streams_figures():
    book = Books()
    stream = guarded(book, Source(["Hello", " world"]))
    assert (stream.prompt, stream.request_id, stream.usage.total_tokens) == (None, None, None)
    assert (stream.cut, stream.handed_on) == (False, False)
    await anext(stream)
    assert stream.handed_on
    assert stream.prompt.input_tokens == 12
    assert stream.usage.output_tokens == 1
    assert stream.request_id == book.sink.events[0].request_id
    assert [item async for item in stream] == [" world"]
    assert stream.usage.total_tokens == 14
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert book.outcomes == ["completed"]


@pytest.mark.parametrize("taken", [0, 1])
async def test_closing_early_closes_the_source(taken):
    book = Books()
    source = Source(["a", "b"])
    async with guarded(book, source) as stream:
        for _ in range(taken):
            await anext(stream)
    assert source.closed == 1
    assert book.outcomes == ["cancelled"]


async def test_a_stream_never_begun_holds_nothing():
    book = Books()
    source = Source(["a"])
    await guarded(book, source).aclose()
    assert source.closed == 1
    assert book.events == []


async def test_an_error_of_the_source_settles_and_is_raised():
    book = Books()
    source = Source(["one two"], end=ConnectionResetError("gone"))
    stream = guarded(book, source)
    with pytest.raises(ConnectionResetError):
        _ = [item async for item in stream]
    assert source.closed == 1
    assert book.outcomes == ["upstream_error"]
    assert book.charged == [(12, 2)]


async def test_a_source_whose_close_fails_is_settled():
    class Failing(Source):
        async def aclose(self):
            raise OSError("close failed")

    book = Books()
    stream = guarded(book, Failing(["a"]))
    with pytest.raises(OSError, match="close failed"):
        _ = [item async for item in stream]
    assert book.outcomes == ["completed"]


async def test_cancellation_settles_once():
    book = Books()
    source = Source(["a"], end="hang")
    stream = guarded(book, source)
    await anext(stream)
    task = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed == 1
    assert book.outcomes == ["cancelled"]


async def test_a_dropped_stream_is_settled(collected):
    book = Books()
    source = Source(["a", "b"])
    stream = guarded(book, source)
    await anext(stream)
    del stream
    collected()
    while not book.ended:
        await asyncio.sleep(0)
    assert source.closed == 1
    assert book.outcomes == ["cancelled"]


@pytest.mark.parametrize("closer", ["close", "none"])
async def test_any_async_iterator_will_do(closer):
    class Bare:
        def __aiter__(self):
            return aiter(Source(["x"]))

    class Closing(Bare):
        def close(self):
            """Closed without awaiting."""

    source = Closing() if closer == "close" else Bare()
    book = Books()
    assert [item async for item in guarded(book, source)] == ["x"]


@pytest.mark.parametrize("item", [b"bytes", 7, {"text": "no"}, {"type": 3}, {"type": "other"}])
async def test_what_cannot_be_metered_is_refused(item):
    book = Books()
    source = Source([item])
    with pytest.raises(ConfigurationError, match="cannot meter"):
        await anext(guarded(book, source))
    assert source.closed == 1
    assert book.outcomes == ["unmetered"]


async def test_a_stream_of_a_wrapped_client_is_not_counted_twice(upstream):
    book = Books()
    client = book.guard.wrap(openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k"))
    async with client:
        inner = await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
        with pytest.raises(ConfigurationError, match="guard.wrap"):
            await anext(guarded(book, inner))
    assert len([event for event in book.ended if event.event == "settled"]) == 1
    assert (await book.balance()).held == 0


async def test_what_the_provider_refused_as_oversized_is_remembered(upstream):
    book = Books()
    upstream.queue(Plan(fault="context_length"))
    client = openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k", max_retries=0)

    def source():
        return client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)

    async with client:
        with pytest.raises(openai.BadRequestError):
            await anext(guarded(book, source()))
        with pytest.raises(streamguard.OversizedRetryError):
            await anext(guarded(book, source()))
    assert len(upstream.calls) == 1
    assert book.outcomes == ["error_response"]


async def test_chunks_with_lone_surrogates_pass(upstream):
    chunk = (await chunks_of(upstream))[1]
    chunk.choices[0].delta.content = "a\ud83d"
    book = Books()
    assert [item async for item in guarded(book, Source([chunk]))] == [chunk]
    assert book.charged[0][1] >= 2


async def test_lone_surrogates_pass():
    book = Books()
    assert [item async for item in guarded(book, Source(["\ud83d", "x"]))] == ["\ud83d", "x"]


async def test_a_stream_longer_than_usual_holds_more_as_it_goes():
    book = Books()
    for _ in range(25):
        _ = [item async for item in guarded(book, Source(["short"]))]
    text = ENGLISH * 9
    stream = guarded(book, Source(sliced(text, 40)))
    await anext(stream)
    held = (await book.balance()).held
    assert "".join([item async for item in stream]) == text[40:]
    assert held < count(text)
    assert not stream.cut
    assert (await book.balance()).held == 0


async def test_a_source_that_knows_no_cap_never_takes_a_window_over_its_limit():
    limit = Limit(tokens=120, per="hour", name="w")

    async def words():
        for word in ["tide", "lamp", "fog", "boat", "bread", "letter"] * 100:
            yield f" {word}"

    async with Guard([limit], sinks=[]) as guard:
        messages = [{"role": "user", "content": "hi"}]
        async with guard.stream(words(), model="gpt-4o", messages=messages) as stream:
            text = "".join([piece async for piece in stream])
        assert stream.cut
        body = {"model": "gpt-4o", "messages": messages, "max_tokens": 1}
        subject = await guard.subject(body, path="/v1/chat/completions")
        demands = (await assess(guard, subject)).terms.demands
        balance = (await guard.books.balances(demands))[0]
    assert count(text) == 120 - 8 - 16
    assert (balance.used, balance.held) == (8 + count(text) + 1, 0)
