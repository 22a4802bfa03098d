"""A provider of every wire format, and an app that passes its streams on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from streamguard.core.json_lines import LineSplitter
from streamguard.core.sse import EventSplitter
from streamguard.protocols import protocol_for_path
from support.formats import FORMATS


@dataclass
class Streamed:
    """One stream; times are ``time.time()``."""

    path: str
    closed_at: float | None = None
    finished: bool = False


@dataclass
class Provider:
    """An ASGI app that streams these words in the format of the path, an event at a time."""

    words: Sequence[str]
    delay: float = 0.002
    calls: list[Streamed] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError("http only")
        while (await receive()).get("more_body"):
            pass
        known = protocol_for_path(scope["path"])
        name = known.name if known else scope["path"].strip("/")
        call = Streamed(scope["path"])
        self.calls.append(call)
        headers = [(b"content-type", FORMATS[name].media.encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.ensure_future(receive())
        try:
            events = _events(name, self.words)
            for event in events:
                await send({"type": "http.response.body", "body": event, "more_body": True})
                call.finished = event is events[-1]
                await asyncio.wait({gone}, timeout=self.delay)
                if gone.done():
                    return
            await send({"type": "http.response.body", "body": b""})
        finally:
            call.closed_at = time.time()
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone


def _events(name: str, words: Sequence[str]) -> list[bytes]:
    splitter = LineSplitter() if name == "ollama" else EventSplitter()
    return [event.raw for event in splitter.feed(FORMATS[name].build(words))]


def relay(provider: str) -> Starlette:
    """Passes any POST on and streams the answer, as an app in front of a provider does."""

    async def post(request: Request) -> Response:
        client = httpx2.AsyncClient(timeout=30)
        body = await request.body()
        sent = client.build_request("POST", f"{provider}{request.url.path}", content=body)
        answer = await client.send(sent, stream=True)

        async def pieces() -> AsyncIterator[bytes]:
            try:
                async for piece in answer.aiter_raw():
                    yield piece
            finally:
                await answer.aclose()
                await client.aclose()

        return StreamingResponse(pieces(), media_type=answer.headers["content-type"])

    return Starlette(routes=[Route("/{path:path}", post, methods=["POST"])])
