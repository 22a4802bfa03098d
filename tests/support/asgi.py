"""One ASGI connection without a server, and an OpenAI chunk."""

from __future__ import annotations

import json
from typing import Any

import anyio

BODY = {
    "model": "gpt-4o",
    "stream": True,
    "max_completion_tokens": 50,
    "messages": [{"role": "user", "content": "hi"}],
}
REQUEST = json.dumps(BODY).encode()


def chunk(text: str, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    return b"data: " + json.dumps({**head, "choices": [choice], **more}).encode() + b"\n\n"


SSE = [(b"content-type", b"text/event-stream"), (b"content-length", b"999")]
WHOLE = [chunk("Hello"), chunk(" there"), chunk("", "stop"), b"data: [DONE]\n\n"]


class Wire:
    """One connection: what the server gives and what it got."""

    def __init__(self, body: bytes = REQUEST, path: str = "/v1/chat/completions", **scope: Any):
        self.got: list[Any] = []
        self.left = anyio.Event()
        self._waiting = [body]
        self.scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": [(b"content-type", b"application/json")],
            **scope,
        }

    async def receive(self) -> Any:
        if self._waiting:
            body = self._waiting.pop()
            return {"type": "http.request", "body": body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.got.append(message)

    async def through(self, app: Any) -> Wire:
        await app(self.scope, self.receive, self.send)
        return self

    @property
    def status(self) -> int:
        return next(m["status"] for m in self.got if m["type"] == "http.response.start")

    @property
    def headers(self) -> dict[bytes, bytes]:
        start = next(m for m in self.got if m["type"] == "http.response.start")
        return dict(start["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(m.get("body", b"") for m in self.got if m["type"] == "http.response.body")
