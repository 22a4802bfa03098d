"""Every budget from 1 to 300 tokens, on four kinds of text, in random chunks: is the cut exact?

Real SDK, real upstream that ignores output caps. For each way of guarding: how many streams were
cut at exactly the budget, how many short of it because the budget ends inside a character
(which is then left out whole), and how many otherwise (there must be none). Each must also end in
``finish_reason: "length"`` and be closed at its upstream.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import openai
from support.books import HELLO, Deaf
from support.streamed import drained
from support.texts import SAMPLES
from support.upstream import Plan, count

from streamguard import Guard, Limit

CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": HELLO}
CHUNKS: list[Any] = ["token", "char", "whole", 2, 3, 7, 20, 100]


async def wrapped(raw: openai.AsyncOpenAI, guard: Guard) -> tuple[str, str | None]:
    client = guard.wrap(raw)
    return await drained(await client.chat.completions.create(**CHAT, stream=True))


async def helper(raw: openai.AsyncOpenAI, guard: Guard) -> tuple[str, str | None]:
    async with guard.wrap(raw).chat.completions.stream(**CHAT) as stream:
        async for _ in stream:
            pass
        choice = stream.current_completion_snapshot.choices[0]
        return choice.message.content or "", choice.finish_reason


async def guarded(raw: openai.AsyncOpenAI, guard: Guard) -> tuple[str, str | None]:
    source = raw.chat.completions.create(**CHAT, stream=True)
    async with guard.stream(source, **CHAT) as stream:
        return await drained(stream)


WAYS = {"guard.wrap": wrapped, "guard.wrap, .stream()": helper, "guard.stream": guarded}


def verdict(text: str, got: str, finish: str | None, budget: int) -> str:
    if not text.startswith(got) or finish != "length":
        return "wrong"
    if count(got) == budget:
        return "exact"
    inside = count(got) < budget < count(text[: len(got) + 1])
    return "inside a character" if inside else "wrong"


async def measure(upstream: Deaf, budgets: range, seed: int) -> dict[str, Counter[str]]:
    pick = random.Random(seed)
    found: dict[str, Counter[str]] = {way: Counter() for way in WAYS}
    async with openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k", max_retries=0) as raw:
        for text in SAMPLES.values():
            for budget in budgets:
                upstream.default = Plan(text=text, chunk=pick.choice(CHUNKS))
                guard = Guard(limits=[Limit(output_tokens=budget)], sinks=[])
                for way, read in WAYS.items():
                    got, finish = await read(raw, guard)
                    found[way][verdict(text, got, finish, budget)] += 1
    return found


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--json", action="store_true")
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    budgets = range(1, 301, 25) if given.quick else range(1, 301)
    with Deaf() as upstream:
        found = asyncio.run(measure(upstream, budgets, given.seed))
    if given.json:
        print(json.dumps(found))
    else:
        print(f"{'way':<24}{'streams':>9}{'exact':>9}{'inside a character':>20}{'wrong':>8}")
        for way, seen in found.items():
            row = f"{way:<24}{seen.total():>9}{seen['exact']:>9}"
            print(f"{row}{seen['inside a character']:>20}{seen['wrong']:>8}")
    if any(seen["wrong"] for seen in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
