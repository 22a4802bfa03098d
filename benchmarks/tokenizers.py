"""Hostile texts of 1 and 2 MB, long conversations, and how long the event loop stands still.

    python benchmarks/tokenizers.py [--quick] [--json]

"growth" is the time of 2 MB over that of 1 MB, best of rounds. tiktoken is called with the same
text; white space is left out there, since a million spaces make it panic. "fallback" is this
package over tiktoken alone, as where toktok has no wheel.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable

import anyio
import anyio.lowlevel

from streamguard import Guard
from streamguard.core.count_cache import CountCache
from streamguard.core.counting import count_prompt
from streamguard.core.prompt import Part, Prompt
from streamguard.tokenizers import get_tokenizer
from streamguard.tokenizers.encodings import encoding_spec
from streamguard.tokenizers.reference import load_reference

NAME = "o200k_base"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
BASE64 = LETTERS + LETTERS.upper() + "0123456789+/"
PROSE = (
    "He wrote about the gulls, about the price of lamp oil in 1911, and about the fog that walked "
    "up the stairs like a tired guest. Nobody answered, which didn't surprise him.\n"
)
TEXTS: dict[str, Callable[[int], str]] = {
    "prose": lambda size: (PROSE * (size // len(PROSE) + 1))[:size],
    "one letter": lambda size: "a" * size,
    "random letters": lambda size: scatter(LETTERS, size),
    "base64": lambda size: scatter(BASE64, size),
    "spaces": lambda size: " " * size,
    "tabs": lambda size: "\t" * size,
    "no-break spaces": lambda size: "\xa0" * (size // 2),
    "line end, spaces": lambda size: "\n" + " " * size,
    "CJK": lambda size: "字" * (size // 3),
    "random CJK": lambda size: scatter("你好世界的人在有我他这为之大来以个中上", size // 3),
    "combining marks": lambda size: "e" + "\u0301" * (size // 2),
    "emoji": lambda size: "😀" * (size // 4),
    "special tokens": lambda size: "<|endoftext|>" * (size // 13),
    "lone surrogates": lambda size: "\ud800" * (size // 3),
    "long s": lambda size: "x'\u017f" * (size // 4),
}
PANICS = {"spaces", "tabs", "no-break spaces", "line end, spaces"}


def scatter(alphabet: str, size: int) -> str:
    """Random characters, the same ones each time."""
    return "".join(random.Random(size).choices(alphabet, k=size))


def best(run: Callable[[], object], rounds: int) -> float:
    """Best time of some rounds, in milliseconds."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times) * 1e3


def side_by_side(count: Callable[[str], int], text: str, double: str, rounds: int) -> list[float]:
    """Best times of both texts, in milliseconds, taken in turns."""
    turns = [(best(lambda: count(text), 1), best(lambda: count(double), 1)) for _ in range(rounds)]
    return [min(times) for times in zip(*turns, strict=True)]


def hostile(size: int, rounds: int) -> list[dict]:
    """A row a text."""
    fast, fallback = get_tokenizer(NAME), load_reference(encoding_spec(NAME))
    plain = fallback._direct
    rows = []
    for kind, make in TEXTS.items():
        text, double = make(size), make(2 * size)
        once, twice = side_by_side(fast.count, text, double, rounds)
        slow = best(lambda text=text: fallback.count(text), 1)
        row = {"text": kind, "tokens": fast.count(text), "ms": once, "growth": twice / once}
        row |= {"fallback ms": slow, "tiktoken ms": None, "times faster": None}
        if kind not in PANICS:
            row["tiktoken ms"] = best(lambda text=text: plain.count(text), 1)
            row["times faster"] = row["tiktoken ms"] / once
        rows.append(row)
    return rows


def conversation(rounds: int) -> dict:
    """A conversation of 100k tokens: all of it by tiktoken, and one new turn by the cache."""
    tokenizer, plain = get_tokenizer(NAME), load_reference(encoding_spec(NAME))._direct
    turns = tuple(Part("history", f"Turn {turn}. {PROSE * 12}") for turn in range(210))
    cache = CountCache()
    tokens = count_prompt(Prompt(turns), tokenizer, cache).input_tokens
    news = [(*turns, Part("user", f"{number} {PROSE * 12}")) for number in range(rounds)]
    whole = best(lambda: count_prompt(Prompt(news[0]), plain), rounds)
    cached = min(
        best(lambda new=new: count_prompt(Prompt(new), tokenizer, cache), 1) for new in news
    )
    uncached = best(lambda: count_prompt(Prompt(news[0]), tokenizer), rounds)
    return {
        "tokens": tokens,
        "tiktoken ms": whole,
        "toktok ms": uncached,
        "cached, one new turn ms": cached,
        "times faster": whole / cached,
    }


async def stall(text: str) -> float:
    """The longest time in milliseconds that the loop stood still while a guard counted a prompt of
    this text.

    An empty text waits 50 ms instead: what this machine does on its own.
    """
    guard = Guard(sinks=[])
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    subject = await guard.subject(body, path="/v1/chat/completions")
    worst, last = 0.0, time.perf_counter()

    async def tick() -> None:
        nonlocal worst, last
        while True:
            await anyio.lowlevel.checkpoint()
            now = time.perf_counter()
            worst, last = max(worst, now - last), now

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        await anyio.sleep(0.01)
        worst = 0.0
        await (guard.counter.count(subject) if text else anyio.sleep(0.05))
        await anyio.lowlevel.checkpoint()
        group.cancel_scope.cancel()
    return worst * 1e3


def stalls(size: int) -> list[dict]:
    """A row a text of so many bytes."""
    get_tokenizer(NAME).count("'\u017f")
    makers = {"(nothing)": lambda _: "", **TEXTS}
    rows = []
    for kind, make in makers.items():
        text = make(size)
        times = sorted(anyio.run(stall, text) for _ in range(5))
        rows.append({"text": kind, "best ms": times[0], "median ms": times[2]})
    return rows


def table(rows: list[dict]) -> None:
    """Print rows of one shape."""
    print("  ".join(f"{name:>15}" for name in rows[0]))
    for row in rows:
        cells = (
            f"{v:.2f}" if isinstance(v, float) else "-" if v is None else str(v)
            for v in row.values()
        )
        print("  ".join(f"{cell:>15}" for cell in cells))
    print()


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a fifth of the size, fewer rounds")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    size, rounds = (200_000, 3) if options.quick else (1_000_000, 15)
    result = {
        "hostile": hostile(size, rounds),
        "conversation": [conversation(rounds)],
        "stall": stalls(4 * size),
    }
    if options.json:
        print(json.dumps(result))
        return
    for rows in result.values():
        table(rows)


if __name__ == "__main__":
    main()
