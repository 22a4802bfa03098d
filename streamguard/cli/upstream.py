"""The demo's model server: OpenAI-compatible, on this machine, with books of what it billed."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from streamguard.counting import count_request
from streamguard.tokenizers import get_tokenizer

REPLY = (
    "A budget is a promise about the future, made by somebody who cannot see it. The oldest ones "
    "we have are pressed into clay: so many measures of barley for the weavers, so many for the "
    "boatmen, and at the foot of the tablet a remainder that has to be zero. "
)
ESSAY = REPLY + (
    "What the scribes of Ur knew, and what every treasurer since has learnt again, is that a limit "
    "written down afterwards is only a complaint. The barley is gone; the tablet says so. A limit "
    "that holds must stand at the door of the granary, count what goes out as it goes out, and "
    "close the door in the middle of a sack. "
)
_WORDS = re.compile(r"\s*\S+\s*?(?=\s|$)")


@dataclass(slots=True)
class Served:
    """One request, as the model server's own books have it.

    ``closed_at`` (``time.monotonic()``) is when a stream's reader went away before its end.
    """

    prompt_tokens: int
    oversized: bool = False
    sent: str = ""
    closed_at: float | None = None
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def output_tokens(self) -> int:
        """Tokens of the text that was sent: what a provider bills."""
        return get_tokenizer("o200k_base").count(self.sent)


class DemoUpstream:
    """Answers chat completions, streamed or whole. It refuses prompts over its window with a 400.

    It does not honour ``max_tokens``: some servers do not, and the budget has to hold with them.
    ``pace`` is seconds between two words of a stream.
    """

    def __init__(self, *, context_window: int, pace: float = 0.004) -> None:
        self.context_window = context_window
        self.pace = pace
        self.books: list[Served] = []
        self.app = Starlette(routes=[Route("/v1/chat/completions", self._chat, methods=["POST"])])

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        counted = await asyncio.to_thread(count_request, body)
        served = Served(counted.input_tokens, counted.input_tokens > self.context_window)
        self.books.append(served)
        if served.oversized:
            return JSONResponse(self._too_long(served.prompt_tokens), 400)
        text = _answer(body)
        if body.get("stream"):
            events = self._stream(served, text, body["model"])
            return StreamingResponse(events, media_type="text/event-stream")
        served.sent = text
        return JSONResponse(_whole(served, body["model"]))

    def _too_long(self, tokens: int) -> Mapping[str, Any]:
        message = (
            f"This model's maximum context length is {self.context_window} tokens. "
            f"However, your messages resulted in {tokens} tokens."
        )
        kind, code = "invalid_request_error", "context_length_exceeded"
        return {"error": {"message": message, "type": kind, "param": "messages", "code": code}}

    async def _stream(self, served: Served, text: str, model: str) -> AsyncIterator[bytes]:
        finished = False
        try:
            for word in _WORDS.findall(text):
                served.sent += word
                yield _event(model, {"role": "assistant", "content": word})
                await asyncio.sleep(self.pace)
            yield _event(model, {}, finish="stop")
            yield b"data: [DONE]\n\n"
            finished = True
        finally:
            if not finished:
                served.closed_at = time.monotonic()
            served.over.set()


def _answer(body: Mapping[str, Any]) -> str:
    """A long essay where one is asked for, else a short acknowledgement."""
    asked = str(body["messages"][-1].get("content", ""))
    if "essay" in asked:
        return ESSAY * 8
    return REPLY if body.get("stream") else "Noted. Checking the next batch."


def _event(model: str, delta: Mapping[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    data = json.dumps({**_base("chat.completion.chunk", model), "choices": [choice]})
    return f"data: {data}\n\n".encode()


def _whole(served: Served, model: str) -> Mapping[str, Any]:
    message = {"role": "assistant", "content": served.sent}
    made = served.output_tokens
    usage = {
        "prompt_tokens": served.prompt_tokens,
        "completion_tokens": made,
        "total_tokens": served.prompt_tokens + made,
    }
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return {**_base("chat.completion", model), "choices": choices, "usage": usage}


def _base(kind: str, model: str) -> Mapping[str, Any]:
    return {"id": "chatcmpl-demo", "object": kind, "created": 1_790_000_000, "model": model}
