"""A chat endpoint as people write it: Starlette, passing an upstream's stream on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


def proxy(base_url: str, *, keep_caps: bool = False, media: str = "text/event-stream") -> Starlette:
    """Forwards ``/v1/chat/completions``; by default an upstream that ignores output caps."""

    async def chat(request: Request) -> Response:
        body = await request.json()
        if not keep_caps:
            body = {key: value for key, value in body.items() if not key.startswith("max_")}
        if body.get("stream"):
            return StreamingResponse(_events(base_url, body), media_type=media)
        async with httpx2.AsyncClient(timeout=60) as client:
            answer = await client.post(f"{base_url}/chat/completions", json=body)
        kept = {key: answer.headers[key] for key in ("retry-after",) if key in answer.headers}
        kind = answer.headers["content-type"]
        return Response(answer.content, answer.status_code, media_type=kind, headers=kept)

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


async def _events(base_url: str, body: dict[str, Any]) -> AsyncIterator[bytes]:
    async with (
        httpx2.AsyncClient(timeout=60) as client,
        client.stream("POST", f"{base_url}/chat/completions", json=body) as answer,
    ):
        async for chunk in answer.aiter_raw():
            yield chunk
