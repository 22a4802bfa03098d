"""Every provider behind one server: streams, whole replies, free calls, faults; it keeps books."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from support.formats import FORMATS
from support.texts import ENGLISH
from support.upstream import pieces

WORDS = [piece.text for piece in pieces(ENGLISH, "token", 90)]
TEXT = "".join(WORDS)
COOKIE = ("set-cookie", "session=provider; HttpOnly")


@dataclass
class Seen:
    """One request as the provider got it."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: list[tuple[str, str]]
    body: Any
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


class Providers:
    """An ASGI app. The model's name tells what happens: ``break`` and ``silent`` midway, ``wait``,
    ``redirect``, ``status-401``, ``echo-500`` (quotes the request's headers), ``gzip-500``,
    ``big-500``, ``slow`` (a chunk each 20 ms). Others answer.
    """

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    @property
    def last(self) -> Seen:
        return self.seen[-1]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise RuntimeError("http only")
        raw, more = b"", True
        while more:
            message = await receive()
            raw += message.get("body", b"")
            more = message.get("more_body", False)
        seen = Seen(
            scope["method"],
            scope["raw_path"].decode(),
            parse_qs(scope["query_string"].decode()),
            [(key.decode(), value.decode("latin-1")) for key, value in scope["headers"]],
            json.loads(raw) if raw else None,
        )
        self.seen.append(seen)
        answering = asyncio.ensure_future(self._answer(seen, send))
        leaving = asyncio.ensure_future(_gone(receive))
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            seen.closed.set()
        leaving.cancel()
        answering.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)
        if not answering.cancelled() and answering.exception() is not None:
            raise RuntimeError("broken off") from None

    async def _answer(self, seen: Seen, send: Any) -> None:
        model = _model(seen)
        kind, _, figure = model.partition("-")
        if kind == "redirect":
            await whole(send, 307, {}, ("location", "http://127.0.0.1:1/elsewhere"))
        elif kind in ("status", "echo", "gzip", "big"):
            await self._error(seen, kind, int(figure), send)
        elif kind == "wait":
            await asyncio.Event().wait()
        elif (reply := _free(seen)) is not None:
            await whole(send, 200, reply, COOKIE, ("x-streamguard-limit", "1"))
        elif _streams(seen):
            await self._stream(seen, kind, send)
        else:
            await whole(send, 200, _reply(seen))

    async def _error(self, seen: Seen, kind: str, status: int, send: Any) -> None:
        error: dict[str, Any] = {"message": f"status {status}", "code": "c", "type": "t"}
        more = []
        if kind == "echo":
            error["message"] = json.dumps(seen.headers)
            more = [("x-echo", seen.header("authorization") or "")]
        if kind == "gzip":
            more = [("content-encoding", "gzip")]
        if kind == "big":
            error["message"] = "x" * 1_100_000
        await whole(send, status, {"error": error}, *more)

    async def _stream(self, seen: Seen, kind: str, send: Any) -> None:
        name = next(
            name for name, one in FORMATS.items() if one.path and _same(one.path, seen.path)
        )
        media = FORMATS[name].media.encode()
        headers = [(b"content-type", media), (b"x-request-id", b"req-1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        data = FORMATS[name].build(WORDS)
        for at in range(0, len(data), 400):
            part = {"type": "http.response.body", "body": data[at : at + 400], "more_body": True}
            await send(part)
            if kind == "break" and at > len(data) // 2:
                raise RuntimeError("broken off")
            if kind == "silent" and at > len(data) // 2:
                await asyncio.Event().wait()
            await asyncio.sleep(0.02 if kind == "slow" else 0)
        await send({"type": "http.response.body", "body": b""})


async def whole(send: Any, status: int, body: Any, *more: tuple[str, str]) -> None:
    data = json.dumps(body).encode()
    pairs = [("content-type", "application/json"), ("content-length", str(len(data))), *more]
    headers = [(key.encode(), value.encode()) for key, value in pairs]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})


async def _gone(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _model(seen: Seen) -> str:
    if "/models/" in seen.path:
        return seen.path.partition("/models/")[2].partition(":")[0]
    return str((seen.body or {}).get("model", ""))


def _same(path: str, asked: str) -> bool:
    return asked.rpartition("/")[2].rpartition(":")[2] == path.rpartition("/")[2].rpartition(":")[2]


def _streams(seen: Seen) -> bool:
    if "streamGenerateContent" in seen.path or seen.path.startswith("/api/"):
        return True
    return bool((seen.body or {}).get("stream"))


def _free(seen: Seen) -> Any:
    end = seen.path.rpartition("/")[2].rpartition(":")[2]
    if seen.method == "GET":
        one = {"id": "m", "object": "model", "created": 1, "owned_by": "us", "type": "model",
               "display_name": "M", "created_at": "2026-01-01T00:00:00Z"}  # fmt: skip
        return {"object": "list", "data": [one], "has_more": False, "first_id": "m",
                "last_id": "m", "models": [{"name": "models/m"}]}  # fmt: skip
    if end in ("count_tokens", "countTokens"):
        return {"input_tokens": 3, "totalTokens": 3}
    return {"id": "modr-1", "model": "m", "results": []} if end == "moderations" else None


def _reply(seen: Seen) -> Any:
    path, model = seen.path, _model(seen)
    if path.endswith("/messages"):
        return {"id": "msg_1", "type": "message", "role": "assistant", "model": model,
                "content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn",
                "stop_sequence": None,
                "usage": {"input_tokens": 9, "output_tokens": 90}}  # fmt: skip
    if "enerateContent" in path:
        part = {"role": "model", "parts": [{"text": TEXT}]}
        usage = {"promptTokenCount": 2, "candidatesTokenCount": 90, "totalTokenCount": 92}
        return {"candidates": [{"content": part, "index": 0, "finishReason": "STOP"}],
                "usageMetadata": usage}  # fmt: skip
    if path.endswith("/embeddings"):
        return {"object": "list", "model": model, "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5]}],
            "usage": {"prompt_tokens": 1, "total_tokens": 1}}  # fmt: skip
    choice = {"index": 0, "message": {"role": "assistant", "content": TEXT, "refusal": None},
              "logprobs": None, "finish_reason": "stop"}  # fmt: skip
    usage = {"prompt_tokens": 8, "completion_tokens": 90, "total_tokens": 98}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
            "choices": [choice], "usage": usage}  # fmt: skip
