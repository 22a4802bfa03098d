"""One request to the upstream, the books kept of it, and the response."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from support.plans import Plan, Step, cap_of, count, finish_of, prompt_tokens, steps_of


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


class Host(Protocol):
    """The upstream, as an exchange sees it."""

    context_window: int | None
    calls: list[Call]

    def plan_for(self, call: Call) -> Plan: ...


def _error(status: int, message: str, code: str | None, **headers: str) -> tuple[int, bytes, Any]:
    kind = {429: "rate_limit_error", 400: "invalid_request_error"}.get(status, "server_error")
    body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
    return status, json.dumps(body).encode(), headers


class _Broken(Exception):  # noqa: N818
    """Raised to make the server break the connection."""


class Exchange:
    """One request and its response."""

    def __init__(self, upstream: Host, call: Call, send: Any) -> None:
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
        asked = self.call.prompt_tokens + (cap_of(self.body) or 0)
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
        steps, cut = steps_of(plan, cap_of(self.body))
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
        reason = finish_of(plan, cut)
        return {"index": index, "message": message, "logprobs": None, "finish_reason": reason}

    async def _stream(self) -> None:
        options = self.body.get("stream_options") or {}
        self.usage_wanted = bool(options.get("include_usage"))
        await self._start(200, "text/event-stream; charset=utf-8", {})
        plan, choices = self.call.plan, range(self.body.get("n", 1))
        steps, cut = steps_of(plan, cap_of(self.body))
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
            await self._chunk(index, {}, finish_of(plan, cut))
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


def _tool(number: int, name: str, arguments: str, index: int | None = None) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    call = {"id": f"call_{number}", "type": "function", "function": function}
    return call if index is None else {"index": index, **call}
