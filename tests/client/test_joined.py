"""A wrapped client inside a guarded app: one call is charged once."""

from __future__ import annotations

import asyncio

import httpx2
import openai
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from support.books import HELLO, Books
from support.servers import serve, wait_until
from support.texts import ENGLISH
from support.upstream import Plan, count

from streamguard import Identity, Limit, StreamGuardMiddleware

CHAT = {"model": "gpt-4o", "messages": HELLO}


def app_of(upstream, book):
    """A chat endpoint as users write it, streamed, whole, and in a thread."""
    app = FastAPI()
    raw = openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k")
    client = book.guard.wrap(raw)
    blocking = book.guard.wrap(openai.OpenAI(base_url=upstream.base_url, api_key="k"))

    @app.post("/v1/chat/completions")
    async def chat(request: Request):
        body = await request.json()
        if not body.get("stream"):
            return (await client.chat.completions.create(**body)).model_dump(mode="json")

        async def events():
            async for chunk in await client.chat.completions.create(**body):
                yield f"data: {chunk.model_dump_json()}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.post("/blocking/chat/completions")
    def blocked(body: dict):
        return blocking.chat.completions.create(**body).model_dump(mode="json")

    @app.post("/streamed/chat/completions")
    async def streamed(body: dict):
        source = raw.chat.completions.create(**body)

        async def events():
            request = {**body, "stream_options": {"include_usage": False}}
            async with book.guard.stream(source, **request) as stream:
                async for chunk in stream:
                    yield f"data: {chunk.model_dump_json()}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.post("/ask")
    async def ask():
        return (await client.chat.completions.create(**CHAT)).model_dump(mode="json")

    return StreamGuardMiddleware(
        app, guard=book.guard, identify=lambda _scope: Identity(tenant="acme")
    )


async def used(book):
    async with book.guard:
        return await book.balance()


@pytest.mark.parametrize(
    ("path", "stream"), [("/v1", False), ("/v1", True), ("/blocking", False), ("/streamed", True)]
)
def test_one_call_is_charged_once(upstream, path, stream):
    book = Books()
    with serve(app_of(upstream, book)) as url:
        answer = httpx2.post(f"{url}{path}/chat/completions", json={**CHAT, "stream": stream})
        wait_until(lambda: len(book.ended) == 2, "not settled")
    assert answer.status_code == 200
    call = upstream.calls[0]
    balance = asyncio.run(used(book))
    assert (balance.used, balance.held) == (call.prompt_tokens + call.generated, 0)
    assert {event.identity.tenant for event in book.ended} == {"acme"}


def test_an_inner_stream_is_cut_at_the_outer_budget(deaf):
    book = Books(Limit(output_tokens=21))
    deaf.default = Plan(chunk="token", delay=0.001)
    with serve(app_of(deaf, book)) as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0)
        with client:
            text, finish = "", None
            for chunk in client.chat.completions.create(**CHAT, stream=True):
                text += chunk.choices[0].delta.content or ""
                finish = chunk.choices[0].finish_reason or finish
        wait_until(lambda: len(book.ended) == 2, "not settled")
        call = deaf.calls[0].wait_over()
    assert (count(text), finish) == (21, "length")
    assert call.closed_at is not None
    assert asyncio.run(used(book)).held == 0


def test_a_client_that_leaves_closes_the_inner_upstream(upstream):
    book = Books()
    upstream.default = Plan(delay=0.005)
    with serve(app_of(upstream, book)) as url:
        with httpx2.stream(
            "POST", f"{url}/v1/chat/completions", json={**CHAT, "stream": True}
        ) as answer:
            next(answer.iter_bytes())
        call = upstream.calls[0].wait_over()
        wait_until(lambda: len(book.ended) == 2, "not settled")
    assert call.closed_at is not None
    balance = asyncio.run(used(book))
    assert balance.held == 0
    assert balance.used >= call.prompt_tokens


def test_an_unguarded_route_charges_the_requests_identity(upstream):
    book = Books()
    with serve(app_of(upstream, book)) as url:
        answer = httpx2.post(f"{url}/ask")
    assert answer.json()["choices"][0]["message"]["content"] == ENGLISH
    assert [event.identity.tenant for event in book.ended] == ["acme"]
