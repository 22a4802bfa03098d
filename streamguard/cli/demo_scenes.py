"""The scenes of the demo: each runs real HTTP calls and gives its figures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple

import openai
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from streamguard.asgi import StreamGuardMiddleware
from streamguard.cli.serving import serving
from streamguard.cli.upstream import DemoUpstream
from streamguard.facade import Guard
from streamguard.identity import Identity
from streamguard.limits import Limit
from streamguard.sinks.base import Sink
from streamguard.tokenizers.counter import OutputCounter

MODEL = "gpt-4o"
WINDOW = 128_000
REPLY_BUDGET = 120
MINUTE_BUDGET = 500
MOST_CALLS = 20
PAUSE = 0.1  # seconds between two calls: the first one is settled by then

Figures = Mapping[str, Any]
Watch = Callable[[str], None]

# What the app's own authentication knows: which key belongs to whom.
_KEYS = {
    "Bearer sk-reader": Identity(tenant="reader"),
    "Bearer sk-writer": Identity(tenant="writer"),
    "Bearer sk-acme": Identity(tenant="acme"),
}
_LIMITS = (
    Limit(
        name="tokens of a reply",
        output_tokens=REPLY_BUDGET,
        where={"tenant": "writer"},
    ),
    Limit(
        name="tokens a minute",
        tokens=MINUTE_BUDGET,
        per="minute",
        scope=("tenant",),
        where={"tenant": "acme"},
    ),
)


@dataclass(frozen=True, slots=True)
class Stage:
    """What every scene plays on: a model server and a guarded app in front of it."""

    upstream: DemoUpstream
    upstream_url: str
    app_url: str

    def client(self, key: str) -> openai.AsyncOpenAI:
        """The ordinary OpenAI client, pointed at the guarded app."""
        return openai.AsyncOpenAI(base_url=f"{self.app_url}/v1", api_key=key, max_retries=0)


@contextmanager
def stage(sinks: Sequence[Sink] = ()) -> Iterator[Stage]:
    """Start both servers; events of the guarded app go to ``sinks``."""
    with ExitStack() as stack:
        upstream = DemoUpstream(context_window=WINDOW)
        url = stack.enter_context(serving(upstream.app))
        app = StreamGuardMiddleware(
            _chat_app(url), guard=Guard(limits=_LIMITS, sinks=sinks), identify=_identify
        )
        yield Stage(upstream, url, stack.enter_context(serving(app)))


def _identify(scope: Any) -> Identity:
    headers = dict(scope["headers"])
    return _KEYS.get(headers.get(b"authorization", b"").decode("latin-1"), Identity())


def _chat_app(upstream_url: str) -> Starlette:
    """An app as a team would write it: it passes chats on to its model server."""
    model = openai.AsyncOpenAI(base_url=f"{upstream_url}/v1", api_key="sk-app", max_retries=0)

    async def chat(request: Request) -> StreamingResponse:
        chunks = await model.chat.completions.create(**await request.json())

        async def lines() -> AsyncIterator[str]:
            async with chunks:
                async for chunk in chunks:
                    yield f"data: {chunk.model_dump_json()}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(lines(), media_type="text/event-stream")

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with model:
            yield

    routes = [Route("/v1/chat/completions", chat, methods=["POST"])]
    return Starlette(routes=routes, lifespan=lifespan)


async def normal_stream(stage: Stage, watch: Watch) -> Figures:
    """A reply within its budget passes as it is."""
    got = await _read(stage.client("sk-reader"), "What is a budget?", watch)
    return got.figures | {"upstream_sent_tokens": stage.upstream.books[-1].output_tokens}


async def cut_stream(stage: Stage, watch: Watch) -> Figures:
    """A reply that would run on is ended at the exact token, and its upstream closed."""
    got = await _read(stage.client("sk-writer"), "Write me an essay on budgets.", watch)
    served = stage.upstream.books[-1]
    await asyncio.to_thread(served.over.wait, 5)
    took = None if served.closed_at is None else served.closed_at - got.last_token_at
    return got.figures | {
        "budget_tokens": REPLY_BUDGET,
        "upstream_sent_tokens": served.output_tokens,
        "upstream_closed_after_ms": None if took is None else round(took * 1000, 1),
    }


class _Got(NamedTuple):
    """What a client read, and when its last token came."""

    figures: dict[str, Any]
    last_token_at: float


async def _read(client: openai.AsyncOpenAI, question: str, watch: Watch) -> _Got:
    counter, began = OutputCounter(MODEL), time.monotonic()
    finish, last = None, began
    async with client:
        chunks = await client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": question}], stream=True
        )
        async for chunk in chunks:
            for choice in chunk.choices:
                finish = choice.finish_reason or finish
                if choice.delta.content:
                    counter.feed(choice.delta.content)
                    last = time.monotonic()
                    watch(choice.delta.content)
    took = round(time.monotonic() - began, 3)
    figures = {"received_tokens": counter.count, "finish_reason": finish, "seconds": took}
    return _Got(figures, last)


async def window(stage: Stage, watch: Watch) -> Figures:
    """One tenant's minute runs out: it is told when to come back; others go on."""
    calls: list[Figures] = []
    async with stage.client("sk-acme") as client:
        while not calls or (calls[-1]["status"] == HTTPStatus.OK and len(calls) < MOST_CALLS):
            calls.append(await _one_call(client))
            watch(f"{calls[-1]['status']} ")
            await asyncio.sleep(PAUSE)
    other = await _read(stage.client("sk-reader"), "Am I refused too?", lambda _text: None)
    return {
        "budget_tokens": MINUTE_BUDGET,
        "calls": calls,
        "admitted": sum(call["status"] == HTTPStatus.OK for call in calls),
        "refused": sum(call["status"] == HTTPStatus.TOO_MANY_REQUESTS for call in calls),
        "retry_after_seconds": calls[-1].get("retry_after"),
        "other_tenant_finish_reason": other.figures["finish_reason"],
    }


async def _one_call(client: openai.AsyncOpenAI) -> Figures:
    create = client.chat.completions.with_streaming_response.create
    try:
        async with create(
            model=MODEL,
            messages=[{"role": "user", "content": "What is a budget?"}],
            max_tokens=100,
            stream=True,
        ) as response:
            await response.read()
            left = response.headers.get("x-streamguard-remaining")
            return {
                "status": response.status_code,
                "remaining": None if left is None else int(left),
            }
    except openai.APIStatusError as error:
        return {
            "status": error.status_code,
            "code": error.code,
            "retry_after": int(error.response.headers.get("retry-after", 0)) or None,
        }
