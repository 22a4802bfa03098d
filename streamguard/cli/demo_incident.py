"""The demo's incident: an agent whose conversation grows, and a loop that resends it all night."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import openai
from tenacity import AsyncRetrying

from streamguard.catalog import cost_nano
from streamguard.cli.demo_scenes import MODEL, WINDOW, Figures, Stage, Watch
from streamguard.facade import Guard
from streamguard.limits import NANO, Limit
from streamguard.retry import retry_policy
from streamguard.usage import Usage

TURN_BUDGET = 32_000
TURN_TOKENS = 6_000
NIGHT_RETRIES = 300
BARS = "▁▂▃▄▅▆▇█"
CROSS_EVERY = 15


async def incident(stage: Stage, watch: Watch) -> Figures:
    """The same agent three times: as it is, guarded, and guarded with a retry policy."""
    without = await _night(stage, "without the guard  ", watch)
    limit = Limit(name="tokens of a prompt", input_tokens=TURN_BUDGET)
    async with Guard([limit], sinks=()) as guard:
        guarded = await _night(stage, "\nwith the guard     ", watch, guard)
        patient = await _night(stage, "\nand a retry_policy ", watch, guard, policy=True)
    return {
        "context_window": WINDOW,
        "prompt_budget_tokens": TURN_BUDGET,
        "without": without,
        "with": guarded,
        "with_retry_policy": patient,
        "saved_usd": round(without["cost_usd"] - guarded["cost_usd"], 2),
    }


async def _night(
    stage: Stage, title: str, watch: Watch, guard: Guard | None = None, *, policy: bool = False
) -> Figures:
    watch(title)
    before = len(stage.upstream.books)
    plain = openai.AsyncOpenAI(
        base_url=f"{stage.upstream_url}/v1", api_key="sk-agent", max_retries=0
    )
    agent = _Agent(
        plain if guard is None else guard.wrap(plain),
        partial(retry_policy, guard) if guard is not None and policy else None,
        watch,
    )
    async with plain:
        error = await agent.run()
    books = stage.upstream.books[before:]
    billed = [served for served in books if not served.oversized]
    usage = Usage(sum(s.prompt_tokens for s in billed), sum(s.output_tokens for s in billed))
    return {
        "requests_made": agent.requests,
        "requests_upstream": len(books),
        "oversized_upstream": len(books) - len(billed),
        "oversized_tokens_upstream": sum(s.prompt_tokens for s in books if s.oversized),
        "tokens_billed": usage.total_tokens,
        "cost_usd": round((cost_nano(MODEL, usage) or 0) / NANO, 4),
        "last_status": error.status_code,
        "last_code": error.code,
    }


class _Agent:
    """Keeps every answer in its conversation. Without a policy it tries any error again."""

    def __init__(
        self, client: openai.AsyncOpenAI, policy: Callable[[], AsyncRetrying] | None, watch: Watch
    ) -> None:
        self._client = client
        self._policy = policy
        self._watch = watch
        self._messages: list[Any] = [
            {"role": "system", "content": "Watch the batches. Say what is wrong."}
        ]
        self.requests = 0

    async def run(self) -> openai.APIStatusError:
        """Work until a turn fails for good; that error."""
        turn = 0
        while True:
            self._messages.append({"role": "user", "content": _log_of(turn)})
            self._watch(BARS[min(turn * TURN_TOKENS * len(BARS) // WINDOW, len(BARS) - 1)])
            turn += 1
            send = self._policy().wraps(self._send) if self._policy else self._hastily
            try:
                answer = await send()
            except openai.APIStatusError as error:
                return error
            self._messages.append({"role": "assistant", "content": answer})

    async def _hastily(self) -> str | None:
        """As it is written in a hurry: again and again, until somebody comes in the morning."""
        for retry in range(1, NIGHT_RETRIES):
            try:
                return await self._send()
            except openai.APIStatusError:
                self._watch("" if retry % CROSS_EVERY else "x")
        return await self._send()

    async def _send(self) -> str | None:
        self.requests += 1
        reply = await self._client.chat.completions.create(model=MODEL, messages=self._messages)
        return reply.choices[0].message.content


def _log_of(turn: int) -> str:
    """Some 6,000 tokens of a log, other ones each turn."""
    lines = TURN_TOKENS // 13
    return "\n".join(
        f"batch {turn:03}-{line:03} rows={line * 7919 % 9973} state=late" for line in range(lines)
    )
