"""A real OpenAI-compatible upstream: it generates, meters, faults and keeps books per call.

::

    with Upstream() as upstream:
        upstream.default = Plan(text=ENGLISH, chunk="token", delay=0.002)
        upstream.queue(Plan(fault="rate_limit"), Plan())     # the next two calls
        client = AsyncOpenAI(base_url=upstream.base_url, api_key="k")
        ...
        call = upstream.calls[-1]
        call.wait_over()
        call.generated       # tokens that it would bill
        call.closed_at       # time.monotonic() when the peer went away before the end

A call takes its plan from the ``x-upstream-plan`` header (JSON of ``Plan`` fields), else from
``upstream.by_model[model]``, else from the queue, else the default.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from typing import Any, Self

from support.exchange import Call, Exchange
from support.plans import Plan, count, pieces
from support.servers import serve

__all__ = ["Call", "Plan", "Upstream", "count", "pieces"]


class Upstream:
    """Use as a context manager (it serves in a thread), or mount it as an ASGI app."""

    def __init__(self, *, context_window: int | None = None, default: Plan | None = None) -> None:
        self.context_window = context_window
        self.default = default or Plan()
        self.by_model: dict[str, Plan] = {}
        self.calls: list[Call] = []
        self.url = ""
        self._queue: list[Plan] = []
        self._stack = contextlib.ExitStack()

    @property
    def base_url(self) -> str:
        """For OpenAI clients."""
        return f"{self.url}/v1"

    @property
    def billed(self) -> int:
        """Output tokens of all calls that were generated."""
        return sum(call.generated for call in self.calls)

    def queue(self, *plans: Plan) -> None:
        """Plans for the next calls, first come first served."""
        self._queue += plans

    def __enter__(self) -> Self:
        self.url = self._stack.enter_context(serve(self))
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        call = Call(scope["path"], await _read(receive), _headers(scope), time.monotonic())
        exchange = Exchange(self, call, send)
        answer = asyncio.ensure_future(exchange.answer())
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                call.closed_at = time.monotonic()
                answer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await answer
        finally:
            answer.cancel()
            gone.cancel()
            call.over.set()

    def plan_for(self, call: Call) -> Plan:
        """The plan that this call gets."""
        header = call.headers.get("x-upstream-plan")
        if header:
            fields = json.loads(header)
            fields["tools"] = tuple(tuple(tool) for tool in fields.get("tools", ()))
            return Plan(**fields)
        named = self.by_model.get(call.body.get("model", ""))
        if named is not None:
            return named
        return self._queue.pop(0) if self._queue else self.default


def _headers(scope: Any) -> dict[str, str]:
    return {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
    }


async def _read(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body


async def _disconnected(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _lifespan(receive: Any, send: Any) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
