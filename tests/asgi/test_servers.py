"""The middleware under each real server, with the real client and a real upstream."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx2
import openai
import pytest
from support.proxy import proxy
from support.servers import SERVERS, serve, wait_until
from support.texts import CJK, CODE, EMOJI, ENGLISH
from support.upstream import Plan, Upstream, count

from streamguard import Limit, StreamGuardMiddleware

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("server", SERVERS)]

HELLO: list[Any] = [{"role": "user", "content": "Tell me a story."}]


async def collect(stream: Any) -> tuple[str, str | None, Any]:
    text, finish, usage = "", None, None
    async for chunk in stream:
        for choice in chunk.choices:
            text += choice.delta.content or ""
            finish = choice.finish_reason or finish
        usage = chunk.usage or usage
    return text, finish, usage


async def test_an_uncut_stream_passes_byte_for_byte(server, upstream, books, connect):
    book = books()
    body = {"model": "gpt-4o", "messages": HELLO, "stream": True, "max_tokens": 4096}
    body["stream_options"] = {"include_usage": True}
    upstream.default = Plan(chunk="token")
    plain = proxy(upstream.base_url, keep_caps=True)
    with serve(StreamGuardMiddleware(plain, guard=book.guard), server) as url:
        async with httpx2.AsyncClient() as client:
            guarded = await client.post(f"{url}/v1/chat/completions", json=body)
            direct = await client.post(f"{upstream.base_url}/chat/completions", json=body)
        wait_until(lambda: book.settled, "not settled")
    ids = [upstream.calls[0], upstream.calls[1]]
    assert ids[0].body == ids[1].body
    mine, theirs = (
        b"".join(line for line in answer.content.splitlines(True) if b'"id"' not in line)
        for answer in (guarded, direct)
    )
    assert mine == theirs
    assert len(guarded.content) == ids[0].bytes_sent
    assert guarded.headers["x-streamguard-input-tokens"] == str(upstream.calls[0].prompt_tokens)
    assert int(guarded.headers["x-streamguard-remaining"]) < 1_000_000
    assert book.events == ["preflight", "started", "settled"]
    assert book.settled[0].charged.output_tokens == upstream.calls[0].generated


@pytest.mark.parametrize(
    ("text", "chunk", "budget"),
    [(ENGLISH, "token", 1), (CODE, 7, 50), (CJK, "char", 120), (EMOJI, "whole", 300)],
    ids=["english", "code", "cjk", "emoji"],
)
async def test_a_stream_is_cut_at_the_exact_token(
    server, upstream, books, connect, text, chunk, budget
):
    book = books(Limit(output_tokens=budget))
    upstream.default = Plan(text=text, chunk=chunk)
    with serve(StreamGuardMiddleware(proxy(upstream.base_url), guard=book.guard), server) as url:
        client = connect(url)
        stream = await client.chat.completions.create(
            model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        got, finish, usage = await collect(stream)
        assert text.startswith(got)
        assert count(got) == budget
        assert finish == "length"
        assert usage.completion_tokens == budget
        wait_until(lambda: book.settled, "not settled")
        assert book.events == ["preflight", "started", "cut", "settled"]
        assert (await book.balance()).held == 0


async def test_a_cut_closes_the_upstream(server, upstream, books, connect):
    book = books(Limit(output_tokens=5))
    upstream.default = Plan(delay=0.02)
    with serve(StreamGuardMiddleware(proxy(upstream.base_url), guard=book.guard), server) as url:
        stream = await connect(url).chat.completions.create(
            model="gpt-4o", messages=HELLO, stream=True
        )
        await collect(stream)
        call = upstream.calls[0].wait_over()
        assert call.closed_at is not None
        assert call.generated < 20


@pytest.mark.parametrize("tokens", [0, 3], ids=["before the first token", "mid-stream"])
async def test_a_client_that_leaves_is_charged_for_what_was_sent(
    server, upstream, books, connect, tokens
):
    book = books()
    wait = {"first_delay": 30.0} if tokens == 0 else {"fault": "hang_midway", "fault_after": 3}
    upstream.default = Plan(**wait)
    with serve(StreamGuardMiddleware(proxy(upstream.base_url), guard=book.guard), server) as url:
        stream = await connect(url).chat.completions.create(
            model="gpt-4o", messages=HELLO, stream=True
        )
        seen = 0
        async for chunk in stream:
            seen += bool(chunk.choices[0].delta.content)
            if seen == tokens:
                break
        await stream.close()
        call = upstream.calls[0].wait_over()
        assert call.closed_at is not None
        wait_until(lambda: book.settled, "not settled")
        assert book.settled[0].outcome == "disconnected"
        assert book.settled[0].charged.output_tokens == call.generated == tokens
        assert book.settled[0].charged.input_tokens == call.prompt_tokens
        assert (await book.balance()).held == 0


async def test_a_client_that_leaves_before_the_headers(server, upstream, books, connect):
    book = books()
    upstream.default = Plan(fault="hang")
    with serve(StreamGuardMiddleware(proxy(upstream.base_url), guard=book.guard), server) as url:
        call = connect(url).chat.completions.create(model="gpt-4o", messages=HELLO)
        task = asyncio.ensure_future(call)
        await asyncio.to_thread(wait_until, lambda: upstream.calls, "not called")
        task.cancel()
        await asyncio.to_thread(upstream.calls[0].wait_over)
        wait_until(lambda: book.settled, "not settled")
        assert book.settled[0].outcome == "disconnected"
        assert (await book.balance()).held == 0


async def test_upstream_errors_release_the_hold(server, upstream, books, connect):
    book = books()
    upstream.queue(Plan(fault="server_error"), Plan(fault="rate_limit"), Plan(fault="abort"))
    app = StreamGuardMiddleware(proxy(upstream.base_url), guard=book.guard)
    with serve(app, server) as url:
        client = connect(url)
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="gpt-4o", messages=HELLO)
        with pytest.raises(openai.RateLimitError):
            await client.chat.completions.create(model="gpt-4o", messages=HELLO)
        with pytest.raises((openai.APIError, httpx2.HTTPError)):
            await collect(
                await client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
            )
        wait_until(lambda: len(book.events) >= 9, "not settled")
        balance = await book.balance()
    released = [event for event in book.sink.events if event.event == "released"]
    assert [(event.outcome, event.status) for event in released] == [
        ("error_response", 500),
        ("error_response", 429),
    ]
    broken = upstream.calls[2]
    assert book.settled[0].outcome == "app_error"
    assert book.settled[0].charged.output_tokens == broken.generated == 3
    assert balance.held == 0
    assert balance.used == 3 + broken.prompt_tokens


async def test_whole_replies_are_counted_and_cut(server, upstream, books, connect):
    book = books()
    upstream.default = Plan(text=ENGLISH)
    with serve(StreamGuardMiddleware(proxy(upstream.base_url), guard=book.guard), server) as url:
        client = connect(url)
        whole = await client.chat.completions.create(model="gpt-4o", messages=HELLO)
        assert whole.choices[0].message.content == ENGLISH
        cut = await client.chat.completions.create(
            model="gpt-4o", messages=HELLO, max_completion_tokens=9
        )
        wait_until(lambda: len(book.settled) == 2, "not settled")
    assert count(cut.choices[0].message.content) == 9
    assert cut.choices[0].finish_reason == "length"
    assert [event.outcome for event in book.settled] == ["completed", "cut"]
    # What the upstream billed is what is charged, also where less was handed on.
    assert book.settled[1].charged.output_tokens == count(ENGLISH)


async def test_oversized_requests_are_refused_before_the_call(server, upstream, books, connect):
    book = books(Limit(input_tokens=2_000, name="prompt"))
    with serve(StreamGuardMiddleware(proxy(upstream.base_url), guard=book.guard), server) as url:
        client = connect(url)
        long: list[Any] = [{"role": "user", "content": "word " * 3_000}]
        for repeated in (None, True):
            with pytest.raises(openai.APIStatusError) as caught:
                await client.chat.completions.create(model="gpt-4o", messages=long)
            assert caught.value.status_code == 413
            assert caught.value.code == "request_budget_exceeded"
            numbers = caught.value.body["streamguard"]
            assert numbers.get("repeated") is repeated
            assert numbers["limit"] == 2_000
            assert numbers["components"]["user"] > 3_000
            assert caught.value.response.headers["x-should-retry"] == "false"
        huge: list[Any] = [{"role": "user", "content": "word " * 130_000}]
        with pytest.raises(openai.BadRequestError) as refused:
            await client.chat.completions.create(model="gpt-4o", messages=huge)
        assert refused.value.code == "context_length_exceeded"
    assert upstream.calls == []
    assert book.events == ["refused", "retry_refused", "refused"]


async def test_an_exhausted_window_is_a_429_that_says_when(server, upstream, books, connect):
    book = books(Limit(tokens=450, per="minute", name="small"))
    with serve(StreamGuardMiddleware(proxy(upstream.base_url), guard=book.guard), server) as url:
        client = connect(url)
        await client.chat.completions.create(model="gpt-4o", messages=HELLO)
        with pytest.raises(openai.APIStatusError) as caught:
            for _ in range(40):
                await client.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert caught.value.status_code == 429
    assert caught.value.code == "budget_exceeded"
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 61
    assert caught.value.body["streamguard"]["limit"] == 450
    assert float(caught.value.response.headers["x-streamguard-reset"]) > time.time()


async def test_bodies_are_bounded_and_must_be_sound(server, upstream: Upstream, books):
    book = books()
    app = StreamGuardMiddleware(proxy(upstream.base_url), guard=book.guard, max_body=10_000)
    wrong: list[tuple[bytes, dict[str, str], int]] = [
        (b"x" * 10_001, {}, 413),
        (b"{}", {"content-encoding": "snappy"}, 415),
        (b"a=1", {"content-type": "application/x-www-form-urlencoded"}, 415),
        (b"{", {}, 400),
        (b'{"model": "gpt-4o", "model": "gpt-4"}', {}, 400),
    ]
    with serve(app, server) as url:
        async with httpx2.AsyncClient() as client:
            for content, headers, status in wrong:
                answer = await client.post(
                    f"{url}/v1/chat/completions", content=content, headers=headers
                )
                assert answer.status_code == status
                assert answer.json()["error"]["code"] == "invalid_request"
    assert upstream.calls == []
