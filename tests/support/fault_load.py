"""Many requests through a wrapped client, with random faults on both sides; the books after it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
from dataclasses import dataclass, field
from typing import Any

import httpx2
import openai

from streamguard import Guard, Identity, Limit, StreamGuardError
from streamguard.sinks.memory import ListSink
from support.upstream import Upstream

FAULTS = (
    None, None, None, "rate_limit", "server_error", "context_length", "hang", "hang_midway",
    "abort", "error_event", "bare_end",
)  # fmt: skip
MANNERS = ("stream", "stream", "stream", "whole", "leave", "drop", "cancel")


@dataclass
class Outcome:
    """``sent`` and ``charged`` are output tokens; ``unseen`` were sent and not read when the
    client left, timed out or was cut: no guard can know of them.
    """

    requests: int
    calls: int = 0
    sent: int = 0
    charged: int = 0
    unseen: int = 0
    prompts_sent: int = 0
    prompts_charged: int = 0
    held: int = 0
    used: int = 0
    wrong: list[str] = field(default_factory=list)
    outcomes: dict[str, int] = field(default_factory=dict)


class Load:
    """One run against one upstream; ``seed`` decides it all."""

    def __init__(self, upstream: Upstream, requests: int, seed: int) -> None:
        self.upstream = upstream
        self.requests = requests
        self.random = random.Random(seed)
        self.timed_out: set[str | None] = set()
        self.sink = ListSink()
        self.window = Limit(tokens=10**9, per="day")
        limits = [self.window, Limit(output_tokens=150)]
        self.guard = Guard(limits=limits, sinks=[self.sink])

    async def run(self, at_once: int = 32) -> Outcome:
        raw = openai.AsyncOpenAI(
            base_url=self.upstream.base_url, api_key="k", max_retries=0, timeout=1.0
        )
        waiting = asyncio.Semaphore(at_once)

        async def one(number: int, fault: Any, manner: str, pause: float) -> None:
            async with waiting:
                await self.one(raw, number, fault, manner, pause)

        async with raw, self.guard:
            await asyncio.gather(*(one(*self.choice(number)) for number in range(self.requests)))
            await self.settle()
            return await self.outcome()

    def choice(self, number: int) -> tuple[int, Any, str, float]:
        pick = self.random
        return number, pick.choice(FAULTS), pick.choice(MANNERS), pick.random() * 0.05

    async def one(self, raw: Any, number: int, fault: Any, manner: str, pause: float) -> None:
        name = f"r{number}"
        plan = {
            "fault": fault,
            "fault_after": number % 40,
            "delay": 0.0005 * (number % 3),
            "chunk": number % 20 + 1,
        }
        client = self.guard.wrap(raw, identity=Identity(user=name))
        body = {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": f"Tell story {number}."}],
            "stream": manner != "whole",
            "extra_headers": {"x-name": name, "x-upstream-plan": json.dumps(plan)},
        }
        task = asyncio.ensure_future(self.consume(client, body, manner))
        if manner == "cancel":
            await asyncio.sleep(pause)
            task.cancel()
        ends = (openai.APIError, StreamGuardError, asyncio.CancelledError, httpx2.TransportError)
        with contextlib.suppress(*ends):
            try:
                await task
            except openai.APITimeoutError:
                self.timed_out.add(name)
                raise

    async def consume(self, client: Any, body: dict[str, Any], manner: str) -> None:
        answer = await client.chat.completions.create(**body)
        if manner == "whole":
            return
        async for _ in answer:
            if manner == "leave":
                await answer.close()
            if manner in ("leave", "drop"):
                return

    async def settle(self) -> None:
        """Wait until every call is over on both sides; what was dropped is collected."""
        for call in list(self.upstream.calls):
            while not call.over.is_set():
                gc.collect()
                await asyncio.sleep(0.01)
        while len(self.ended()) < self.sink_count("preflight"):
            gc.collect()
            await asyncio.sleep(0.01)

    def ended(self) -> list[Any]:
        return [event for event in self.sink.events if event.event in ("settled", "released")]

    def sink_count(self, name: str) -> int:
        return sum(event.event == name for event in self.sink.events)

    async def outcome(self) -> Outcome:
        result = Outcome(self.requests, calls=len(self.upstream.calls))
        calls = {call.headers["x-name"]: call for call in self.upstream.calls}
        for event in self.ended():
            self.compare(result, event, calls.get(event.identity.user))
        probe = {"model": "gpt-4o", "messages": [], "max_tokens": 1}
        balance = (await self.guard.preflight(probe)).balances[self.window.name]
        result.held, result.used = balance.held, balance.used
        if result.used != result.charged + result.prompts_charged:
            result.wrong.append(f"used {result.used}")
        return result

    def compare(self, result: Outcome, event: Any, call: Any) -> None:
        result.outcomes[event.outcome] = result.outcomes.get(event.outcome, 0) + 1
        charged, prompt = event.charged.output_tokens, event.charged.input_tokens
        result.charged += charged
        result.prompts_charged += prompt
        if call is None or not call.body:  # cancelled before it was sent whole
            return
        told = event.reported is not None and event.reported.output_tokens is not None
        sent = call.generated if told else call.visible_tokens
        billed = call.prompt_tokens if call.status == 200 or call.closed_at is not None else 0
        result.sent += sent
        result.prompts_sent += billed
        if event.outcome in ("cancelled", "cut") or event.identity.user in self.timed_out:
            result.unseen += sent - charged
            right = charged <= sent and prompt == call.prompt_tokens
        else:
            right = (charged, prompt) == (sent, billed)
        if not right:
            result.wrong.append(f"{event.identity.user}: {event.outcome} {charged} of {sent}")
