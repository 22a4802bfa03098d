"""The demo's fallback: when a model's day is spent, a cheaper one answers."""

from __future__ import annotations

from itertools import pairwise

import openai

from streamguard.catalog import cost_nano
from streamguard.cli.demo_scenes import MODEL, Figures, Stage, Watch
from streamguard.cli.upstream import DemoUpstream
from streamguard.facade import Guard
from streamguard.limits import NANO, Limit
from streamguard.usage import Usage

CHEAPER = "gpt-4o-mini"
DAY_BUDGET = "0.0025"
CALLS = 6


async def fallback(stage: Stage, watch: Watch) -> Figures:
    """Six calls under a budget that pays for three."""
    limit = Limit(name="a day of gpt-4o", cost=DAY_BUDGET, per="day", where={"model": MODEL})
    guard = Guard([limit], fallback=(CHEAPER,), min_output=80, sinks=())
    plain = openai.AsyncOpenAI(base_url=f"{stage.upstream_url}/v1", api_key="sk-app", max_retries=0)
    async with guard, plain:
        client = guard.wrap(plain)
        calls = [await _call(client, stage.upstream, watch) for _ in range(CALLS)]
    answered = [call["answered_by"] for call in calls]
    return {
        "budget_usd": float(DAY_BUDGET),
        "asked_for": MODEL,
        "calls": calls,
        "switched": sum(one != other for one, other in pairwise(answered)),
    }


async def _call(client: openai.AsyncOpenAI, upstream: DemoUpstream, watch: Watch) -> Figures:
    chunks = await client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": "What is a budget?"}],
        max_tokens=100,
        stream=True,
    )
    answered = {chunk.model async for chunk in chunks}.pop()
    served = upstream.books[-1]
    cost = cost_nano(answered, Usage(served.prompt_tokens, served.output_tokens)) or 0
    watch(f"{answered} ")
    return {
        "answered_by": answered,
        "output_tokens": served.output_tokens,
        "cost_usd": cost / NANO,
    }
