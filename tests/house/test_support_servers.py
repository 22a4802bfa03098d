"""The harness itself: other tests lean on it."""

from __future__ import annotations

import asyncio
import contextlib

import httpx2
import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from support.servers import SERVERS, serve, wait_until
from support.texts import SAMPLES
from support.upstream import Plan, Upstream, count, pieces

MESSAGES = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def upstream():
    with Upstream() as running:
        yield running


def run(upstream, plan, **body):
    """One streamed call through the real client: its chunks and the upstream's record."""

    async def go():
        async with openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k", max_retries=0) as c:
            stream = await c.chat.completions.create(
                model="gpt-4o", messages=MESSAGES, stream=True, **body
            )
            return [chunk async for chunk in stream]

    upstream.queue(plan)
    chunks = asyncio.run(go())
    return chunks, upstream.calls[-1].wait_over()


def content(chunks, index=0):
    return "".join(
        choice.delta.content or ""
        for chunk in chunks
        for choice in chunk.choices
        if choice.index == index
    )


@pytest.mark.parametrize("server", SERVERS)
def test_serves_with_lifespan_and_notices_a_disconnect(server):
    seen = []

    async def endless(request: Request):
        async def body():
            try:
                while True:
                    yield b"x"
                    await asyncio.sleep(0.005)
            finally:
                seen.append("closed")

        return StreamingResponse(body())

    async def lifespan(_app):
        seen.append("up")
        yield
        seen.append("down")

    app = Starlette(routes=[Route("/", endless)], lifespan=contextlib.asynccontextmanager(lifespan))
    with serve(app, server) as url:
        assert seen == ["up"]
        with httpx2.stream("GET", url) as response:
            next(response.iter_raw())
        wait_until(lambda: "closed" in seen, "the generator is still open")
    assert seen == ["up", "closed", "down"]


@pytest.mark.parametrize("server", SERVERS)
def test_an_app_that_cannot_start_is_told(server):
    async def lifespan(_app):
        raise ValueError("no database")
        yield

    app = Starlette(lifespan=contextlib.asynccontextmanager(lifespan))
    with pytest.raises(RuntimeError, match="did not start"), serve(app, server):
        pass


@pytest.mark.parametrize("chunk", ["token", "char", "whole", 3, 50])
@pytest.mark.parametrize("name", SAMPLES)
def test_pieces_give_the_text_and_bill_each_token_once(name, chunk):
    text = SAMPLES[name]
    whole = pieces(text, chunk, None)
    assert "".join(piece.text for piece in whole) == text
    assert sum(piece.tokens for piece in whole) == count(text)
    for cap in (1, 2, 7, 100, 299):
        capped = pieces(text, chunk, cap)
        assert sum(piece.tokens for piece in capped) == cap
        assert text.startswith("".join(piece.text for piece in capped))


@pytest.mark.parametrize("cap", [{"max_tokens": 40}, {"max_completion_tokens": 40}])
def test_a_stream_honours_its_cap(upstream, cap):
    chunks, call = run(upstream, Plan(), stream_options={"include_usage": True}, **cap)
    assert chunks[-1].usage.completion_tokens == 40 == call.generated
    assert count(content(chunks)) == 40
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage.prompt_tokens == call.prompt_tokens == 8


def test_choices_tools_and_reasoning(upstream):
    plan = Plan(text="Good morning", reasoning="let me think", obfuscate=True)
    chunks, call = run(upstream, plan, n=2)
    assert content(chunks, 0) == content(chunks, 1) == "Good morning"
    assert call.generated == 2 * (count("Good morning") + count("let me think"))
    assert call.visible_tokens == call.generated
    tool = Plan(tools=(("look_up", '{"city": "Oslo"}'),))
    chunks, call = run(upstream, tool)
    calls = [c.choices[0].delta.tool_calls[0] for c in chunks if c.choices[0].delta.tool_calls]
    assert calls[0].function.name == "look_up"
    assert "".join(c.function.arguments for c in calls) == '{"city": "Oslo"}'
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_whole_reply_has_the_same_figures(upstream):
    upstream.queue(Plan(hidden_tokens=5))
    with openai.OpenAI(base_url=upstream.base_url, api_key="k") as client:
        reply = client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=20, n=2)
    assert reply.usage.completion_tokens == 40
    assert reply.usage.completion_tokens_details.reasoning_tokens == 10
    assert [count(choice.message.content) for choice in reply.choices] == [15, 15]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("rate_limit", openai.RateLimitError),
        ("server_error", openai.InternalServerError),
        ("context_length", openai.BadRequestError),
        ("error_event", openai.APIError),
        ("abort", (httpx2.RemoteProtocolError, openai.APIConnectionError)),
    ],
)
def test_faults_reach_the_client(upstream, fault, error):
    with pytest.raises(error):
        run(upstream, Plan(fault=fault))
    assert upstream.calls[-1].wait_over().closed_at is None


def test_a_window_is_kept(upstream):
    with Upstream(context_window=10) as small, pytest.raises(openai.BadRequestError) as caught:
        run(small, Plan(), max_tokens=3)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("fault", [None, "hang", "hang_midway"])
def test_a_peer_that_leaves_is_recorded(upstream, fault):
    plan = Plan(delay=0.002, fault=fault)
    upstream.queue(plan)
    before = len(upstream.calls)
    body = {"model": "m", "messages": MESSAGES, "stream": True}
    timeout = httpx2.Timeout(5, read=0.2 if fault == "hang" else 5)
    try:
        with httpx2.stream(
            "POST", f"{upstream.base_url}/chat/completions", json=body, timeout=timeout
        ) as response:
            next(response.iter_raw())
    except httpx2.ReadTimeout:
        assert fault == "hang"
    call = upstream.calls[before].wait_over()
    assert call.closed_at is not None
    assert call.finished_at is None
    assert call.generated < count(plan.text)


def test_the_plan_can_come_from_a_header_or_the_model(upstream):
    upstream.by_model["parrot"] = Plan(text="squawk")
    with openai.OpenAI(base_url=upstream.base_url, api_key="k") as client:
        named = client.chat.completions.create(model="parrot", messages=MESSAGES)
        told = client.chat.completions.create(
            model="m", messages=MESSAGES, extra_headers={"x-upstream-plan": '{"text": "hi"}'}
        )
    assert [r.choices[0].message.content for r in (named, told)] == ["squawk", "hi"]


def test_a_bare_end_has_no_finish_and_no_done(upstream):
    chunks, call = run(upstream, Plan(fault="bare_end", fault_after=4))
    assert {choice.finish_reason for chunk in chunks for choice in chunk.choices} == {None}
    assert call.chunks == 4
