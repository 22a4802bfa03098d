"""What a limit on output lets an agent spend: pydantic-ai's own limits, and streamguard's.

Needs pydantic-ai beside the tests' packages, else only streamguard is measured with its client::

    uv run --group test --with 'pydantic-ai-slim[openai]' python benchmarks/agents.py

The model server ignores caps and counts what it makes: that is what a provider would bill.
*stream*: one streamed run under a limit of 60 tokens, of a reply of 600. *at once*: eight runs at
the same time under one limit of 200 tokens; each asks for 100 by ``max_tokens``, and gets them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import openai
from support.books import HELLO, Deaf
from support.upstream import Plan

from streamguard import Guard, Limit

EACH, TOGETHER, RUNS = 60, 200, 8
CAP: dict[bool, Any] = {True: {}, False: {"max_tokens": 100}}
Run = Callable[[openai.AsyncOpenAI, Any], Awaitable[None]]


def guard(**limit: Any) -> Guard:
    return Guard(limits=[Limit(**limit)], sinks=[])


async def by_client(client: openai.AsyncOpenAI, _limits: Any, *, stream: bool) -> None:
    """One call with the SDK."""
    with contextlib.suppress(openai.APIError):
        answer: Any = await client.chat.completions.create(
            model="gpt-4o", messages=HELLO, stream=stream, **CAP[stream]
        )
        if stream:
            async for _ in answer:
                pass


async def by_agent(client: openai.AsyncOpenAI, limits: Any, *, stream: bool) -> None:
    """One run of an agent; ``limits`` are pydantic-ai's, and the usage they are held against."""
    from pydantic_ai import Agent
    from pydantic_ai.exceptions import ModelHTTPError, UsageLimitExceeded
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    agent = Agent(OpenAIChatModel("gpt-4o", provider=OpenAIProvider(openai_client=client)))
    with contextlib.suppress(UsageLimitExceeded, ModelHTTPError):
        if not stream:
            await agent.run("Hello!", model_settings=CAP[stream], **limits)
            return
        async with agent.run_stream("Hello!", **limits) as run:
            async for _ in run.stream_text(delta=True):
                pass


def theirs(limit: int) -> dict[str, Any]:
    """pydantic-ai's limits, with one usage that all runs share."""
    from pydantic_ai.usage import RunUsage, UsageLimits

    return {"usage_limits": UsageLimits(output_tokens_limit=limit), "usage": RunUsage()}


async def spent(
    upstream: Deaf, run: Callable[..., Awaitable[None]], own: Callable[[int], Any] | None
) -> dict[str, int]:
    """Tokens that the server made, by scene."""
    found = {}
    async with openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k", max_retries=0) as raw:
        for scene, limit, per, runs, made in (
            ("stream", EACH, "request", 1, 600),
            ("at once", TOGETHER, "day", RUNS, 100),
        ):
            upstream.default = Plan(text=" word" * made, chunk="token", delay=0.001)
            before = upstream.billed
            client = raw if own else guard(output_tokens=limit, per=per).wrap(raw)
            limits = own(limit) if own else {}
            one = partial(run, client, limits, stream=scene == "stream")
            await asyncio.gather(*(one() for _ in range(runs)))
            await asyncio.sleep(0.3)  # what is still made although nobody reads it
            found[scene] = upstream.billed - before
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="the same: it takes seconds")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    sides: dict[str, tuple[Any, Any]] = {"streamguard, openai's client": (by_client, None)}
    if find_spec("pydantic_ai"):
        sides["streamguard, pydantic-ai's agent"] = (by_agent, None)
        sides["pydantic-ai's UsageLimits"] = (by_agent, theirs)
    with Deaf() as upstream:
        found = {name: asyncio.run(spent(upstream, *side)) for name, side in sides.items()}
    if given.json:
        print(json.dumps(found))
        return
    print(f"{'':<36}{f'stream, limit {EACH}':>18}{f'{RUNS} at once, limit {TOGETHER}':>24}")
    for name, scenes in found.items():
        print(f"{name:<36}{scenes['stream']:>18}{scenes['at once']:>24}")


if __name__ == "__main__":
    main()
