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
import threading
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Self

import toktok

from support.servers import serve
from support.texts import ENGLISH

Fault = Literal[
    "rate_limit",  # 429 with Retry-After
    "server_error",  # 500 before the stream
    "context_length",  # 400 context_length_exceeded
    "hang",  # 200 headers never come
    "hang_midway",  # silent after `fault_after` chunks
    "abort",  # the connection breaks after `fault_after` chunks
    "error_event",  # an error event after `fault_after` chunks, then the end
    "bare_end",  # the stream ends after `fault_after` chunks: no finish chunk, no [DONE]
]


@dataclass(frozen=True)
class Plan:
    """How a call is answered.

    ``chunk``: "token", "char", "whole", or a number of characters. ``delay`` is seconds before
    each chunk, ``first_delay`` before the first. ``tools`` are (name, arguments) pairs.
    ``hidden_tokens`` are reasoning tokens that are billed and not shown.
    """

    text: str = ENGLISH
    chunk: str | int = "token"
    delay: float = 0.0
    first_delay: float = 0.0
    fault: Fault | None = None
    fault_after: int = 3
    retry_after: str = "1"
    reasoning: str = ""
    tools: tuple[tuple[str, str], ...] = ()
    hidden_tokens: int = 0
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    obfuscate: bool = False
    report_usage: bool = True


@dataclass
class Call:
    """What one request was and what became of it; times are ``time.monotonic()``."""

    path: str
    raw: bytes
    headers: dict[str, str]
    started: float
    body: dict[str, Any] = field(default_factory=dict)
    plan: Plan = Plan()
    status: int | None = None
    prompt_tokens: int = 0
    generated: int = 0
    chunks: int = 0
    sent: dict[tuple[int, str], str] = field(default_factory=dict)
    bytes_sent: int = 0
    last_sent_at: float | None = None
    closed_at: float | None = None
    finished_at: float | None = None
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def text(self) -> str:
        """Content of choice 0 that was sent."""
        return self.sent.get((0, "content"), "")

    @property
    def visible_tokens(self) -> int:
        """Tokens of everything that was sent, each channel counted as one text."""
        return sum(count(text) for text in self.sent.values())

    def wait_over(self, timeout: float = 10.0) -> Call:
        """Wait until the response ended or the peer closed it."""
        if not self.over.wait(timeout):
            raise TimeoutError(f"call to {self.path} is still going on after {timeout} s")
        return self


class Piece(NamedTuple):
    text: str
    tokens: int


class Step(NamedTuple):
    """One delta of one choice: kind is content, reasoning or the tool call's number."""

    kind: str
    piece: Piece


_ENCODING = toktok._encoding("o200k_base")


def count(text: str) -> int:
    """Tokens of the text in o200k_base."""
    return len(_ENCODING.encode_ordinary(text))


@lru_cache(256)
def pieces(text: str, chunk: str | int, cap: int | None) -> tuple[Piece, ...]:
    """The first ``cap`` tokens of the text in pieces; no piece splits a character."""
    return tuple(_by_token(text, cap) if chunk == "token" else _by_size(text, chunk, cap))


def _by_token(text: str, cap: int | None) -> Iterator[Piece]:
    held, tokens = b"", 0
    for token in _ENCODING.encode_ordinary(text)[:cap]:
        held += _ENCODING.decode_single_token_bytes(token)
        tokens += 1
        with contextlib.suppress(UnicodeDecodeError):
            yield Piece(held.decode(), tokens)
            held, tokens = b"", 0
    if tokens:  # the cap fell inside a character: its tokens are billed, nothing shows
        yield Piece("", tokens)


def _by_size(text: str, chunk: str | int, cap: int | None) -> Iterator[Piece]:
    parts = list(_by_token(text, cap))
    shown = "".join(part.text for part in parts)
    size = {"char": 1, "whole": max(1, len(shown))}.get(str(chunk)) or int(chunk)
    ends = []  # (characters so far, tokens so far)
    chars = total = 0
    for part in parts:
        ends.append((chars, part.tokens))
        chars += len(part.text)
    for start in range(0, len(shown), size):
        begun = 0
        while ends and ends[0][0] < start + size:
            begun += ends.pop(0)[1]
        total += begun
        yield Piece(shown[start : start + size], begun)
    if ends:
        yield Piece("", sum(tokens for _chars, tokens in ends))


def prompt_tokens(body: dict[str, Any]) -> int:
    """What this upstream bills for a text prompt: content, role and 3 a message, 3 at the end."""
    total = 3
    for message in body.get("messages", []):
        content = message.get("content") or ""
        parts = content if isinstance(content, list) else [{"text": content}]
        total += 4 + sum(count(part.get("text", "")) for part in parts)
    return total


def _cap(body: dict[str, Any]) -> int | None:
    return body.get("max_completion_tokens", body.get("max_tokens"))


def _steps(plan: Plan, cap: int | None) -> tuple[list[Step], bool]:
    """The deltas of one choice and whether the cap cut them."""
    left = None if cap is None else cap - plan.hidden_tokens
    sources = [("reasoning", plan.reasoning), ("content", "" if plan.tools else plan.text)]
    sources += [(str(number), arguments) for number, (_name, arguments) in enumerate(plan.tools)]
    steps: list[Step] = []
    for kind, text in sources:
        if text and left is not None and left <= 0:
            return steps, True
        got = pieces(text, plan.chunk, left) if text else ()
        steps += [Step(kind, piece) for piece in got]
        spent = sum(piece.tokens for piece in got)
        if left is not None:
            if spent == left and count(text) > left:
                return steps, True
            left -= spent
    return steps, False


def _error(status: int, message: str, code: str | None, **headers: str) -> tuple[int, bytes, Any]:
    kind = {429: "rate_limit_error", 400: "invalid_request_error"}.get(status, "server_error")
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return status, json.dumps(body).encode(), headers


class _Broken(Exception):  # noqa: N818
    """Raised to make the server break the connection."""


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
        exchange = _Exchange(self, call, send)
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


class _Exchange:
    """One request and its response."""

    def __init__(self, upstream: Upstream, call: Call, send: Any) -> None:
        self.upstream, self.call, self._send = upstream, call, send
        self.body: dict[str, Any] = {}
        self.usage_wanted = False

    async def answer(self) -> None:
        try:
            self.call.body = self.body = json.loads(self.call.raw or b"{}")
        except ValueError:
            self.upstream.calls.append(self.call)
            await self._whole(*_error(400, "could not parse the JSON body", None))
            return
        self.call.plan = self.upstream.plan_for(self.call)
        self.upstream.calls.append(self.call)
        fixed = self.call.plan.prompt_tokens
        self.call.prompt_tokens = prompt_tokens(self.body) if fixed is None else fixed
        refused = self._refusal()
        if self.call.plan.fault == "hang":
            await asyncio.Event().wait()
        if refused is not None:
            await self._whole(*refused)
        elif self.body.get("stream"):
            await self._stream()
        else:
            await self._reply()
        self.call.finished_at = time.monotonic()

    def _refusal(self) -> tuple[int, bytes, Any] | None:
        fault, window = self.call.plan.fault, self.upstream.context_window
        asked = self.call.prompt_tokens + (_cap(self.body) or 0)
        if not self.call.path.endswith("/chat/completions"):
            return _error(404, f"no such path: {self.call.path}", "not_found")
        if fault == "rate_limit":
            wait = self.call.plan.retry_after
            return _error(429, "slow down", "rate_limit_exceeded", **{"retry-after": wait})
        if fault == "server_error":
            return _error(500, "the server had an error", None)
        if fault == "context_length" or (window is not None and asked > window):
            text = f"maximum context length is {window} tokens, you requested {asked}"
            return _error(400, text, "context_length_exceeded")
        return None

    async def _whole(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        await self._start(status, "application/json", headers)
        self.call.bytes_sent += len(body)
        await self._send({"type": "http.response.body", "body": body})

    async def _start(self, status: int, media: str, headers: dict[str, str]) -> None:
        self.call.status = status
        pairs = [(b"content-type", media.encode()), (b"x-request-id", b"req-upstream")]
        pairs += [(name.encode(), value.encode()) for name, value in headers.items()]
        message = {"type": "http.response.start", "status": status, "headers": pairs}
        await self._send(message)

    def _base(self, kind: str) -> dict[str, Any]:
        return {
            "id": f"chatcmpl-{id(self.call):x}",
            "object": kind,
            "created": 1_760_000_000,
            "model": self.body.get("model", "gpt-4o"),
            "system_fingerprint": "fp_test",
        }

    def _usage(self) -> dict[str, Any]:
        prompt, output = self.call.prompt_tokens, self.call.generated
        hidden = self.call.plan.hidden_tokens * self.body.get("n", 1)
        reasoning = hidden + count(self.call.sent.get((0, "reasoning"), ""))
        return {
            "prompt_tokens": prompt,
            "completion_tokens": output,
            "total_tokens": prompt + output,
            "prompt_tokens_details": {"cached_tokens": self.call.plan.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": reasoning},
        }

    def _note(self, index: int, step: Step) -> None:
        key = (index, step.kind)
        self.call.sent[key] = self.call.sent.get(key, "") + step.piece.text
        self.call.generated += step.piece.tokens
        self.call.last_sent_at = time.monotonic()

    async def _reply(self) -> None:
        plan = self.call.plan
        steps, cut = _steps(plan, _cap(self.body))
        await asyncio.sleep(plan.first_delay + plan.delay * len(steps))
        choices = []
        for index in range(self.body.get("n", 1)):
            self.call.generated += plan.hidden_tokens
            for step in steps:
                self._note(index, step)
            choices.append(self._choice(index, cut))
        body = {**self._base("chat.completion"), "choices": choices}
        if plan.report_usage:
            body["usage"] = self._usage()
        await self._whole(200, json.dumps(body, ensure_ascii=False).encode(), {})

    def _choice(self, index: int, cut: bool) -> dict[str, Any]:
        plan, sent = self.call.plan, self.call.sent
        message: dict[str, Any] = {"role": "assistant", "content": sent.get((index, "content"))}
        if plan.reasoning:
            message["reasoning_content"] = sent.get((index, "reasoning"), "")
        if plan.tools:
            message["tool_calls"] = [
                _tool(number, name, sent.get((index, str(number)), ""))
                for number, (name, _arguments) in enumerate(plan.tools)
            ]
        reason = _finish(plan, cut)
        return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}

    async def _stream(self) -> None:
        options = self.body.get("stream_options") or {}
        self.usage_wanted = bool(options.get("include_usage"))
        await self._start(200, "text/event-stream; charset=utf-8", {})
        plan, choices = self.call.plan, range(self.body.get("n", 1))
        steps, cut = _steps(plan, _cap(self.body))
        for index in choices:
            self.call.generated += plan.hidden_tokens
            await self._chunk(index, {"role": "assistant", "content": "", "refusal": None})
        async for index, step in self._paced(steps):
            await self._fault()
            if plan.fault == "bare_end" and self.call.chunks >= plan.fault_after:
                await self._write(b"", more=False)
                return
            self._note(index, step)
            await self._chunk(index, self._delta(index, step))
            self.call.chunks += 1
        for index in choices:
            await self._chunk(index, {}, _finish(plan, cut))
        await self._end()

    async def _paced(self, steps: list[Step]) -> AsyncIterator[tuple[int, Step]]:
        await asyncio.sleep(self.call.plan.first_delay)
        for step in steps:
            for index in range(self.body.get("n", 1)):
                if self.call.plan.delay:
                    await asyncio.sleep(self.call.plan.delay)
                yield index, step

    async def _fault(self) -> None:
        plan = self.call.plan
        if self.call.chunks < plan.fault_after:
            return
        if plan.fault == "abort":
            raise _Broken
        if plan.fault == "hang_midway":
            await asyncio.Event().wait()
        if plan.fault == "error_event":
            _status, body, _headers = _error(500, "the model broke down", None)
            await self._write(b"data: " + body + b"\n\n")
            raise _Broken

    def _delta(self, index: int, step: Step) -> dict[str, Any]:
        text = step.piece.text
        if step.kind == "content":
            return {"content": text}
        if step.kind == "reasoning":
            return {"reasoning_content": text}
        number = int(step.kind)
        if self.call.sent[index, step.kind] == text:  # its first piece
            return {"tool_calls": [_tool(number, self.call.plan.tools[number][0], text, number)]}
        return {"tool_calls": [{"index": number, "function": {"arguments": text}}]}

    async def _chunk(self, index: int, delta: Any, finish: str | None = None) -> None:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
        body = {**self._base("chat.completion.chunk"), "choices": [choice]}
        if self.usage_wanted:
            body["usage"] = None
        if self.call.plan.obfuscate:
            body["obfuscation"] = "x" * (self.call.chunks % 7)
        await self._event(body)

    async def _end(self) -> None:
        if self.usage_wanted and self.call.plan.report_usage:
            usage = self._usage()
            await self._event(
                {**self._base("chat.completion.chunk"), "choices": [], "usage": usage}
            )
        await self._write(b"data: [DONE]\n\n", more=False)

    async def _event(self, body: dict[str, Any]) -> None:
        data = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        await self._write(b"data: " + data.encode() + b"\n\n")

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        self.call.bytes_sent += len(data)
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


def _finish(plan: Plan, cut: bool) -> str:
    return "length" if cut else "tool_calls" if plan.tools else "stop"


def _tool(number: int, name: str, arguments: str, index: int | None = None) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    call = {"id": f"call_{number}", "type": "function", "function": function}
    return call if index is None else {"index": index, **call}


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
