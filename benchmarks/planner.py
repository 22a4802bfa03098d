"""What planning costs as a conversation grows: append-only, each turn planned.

Side by side in one run: the planner that keeps what it counted, a new planner each turn, and a
plain recount of the rendered prompt with tiktoken.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator

from streamguard.planner import BudgetPlanner
from streamguard.tokenizers import get_tokenizer
from streamguard.tokenizers.encodings import encoding_spec
from streamguard.tokenizers.reference import load_reference

WORDS = ("the", "plan", "was", "to", "walk", "along", "a", "river", "until", "light", "went", "and")


def message(turn: int) -> dict[str, str]:
    """About a hundred tokens, different each turn."""
    words = " ".join(WORDS[(turn * 7 + at) % len(WORDS)] for at in range(95))
    return {"role": "assistant" if turn % 2 else "user", "content": f"{turn}: {words}"}


def growing(messages: list[dict[str, str]], window: int) -> Callable[[int], object]:
    planner = BudgetPlanner("gpt-4o", window=window)

    def turn(at: int) -> object:
        return planner.add_message(messages[at]).plan()

    return turn


def afresh(messages: list[dict[str, str]], window: int) -> Callable[[int], object]:
    def turn(at: int) -> object:
        return BudgetPlanner("gpt-4o", window=window).add_messages(messages[: at + 1]).plan()

    return turn


def recount(messages: list[dict[str, str]], _window: int) -> Callable[[int], object]:
    encoding = load_reference(encoding_spec("o200k_base"))

    def turn(at: int) -> object:
        return sum(3 + len(encoding.encode(m["content"])) for m in messages[: at + 1])

    return turn


WAYS = {"planner": growing, "new planner each turn": afresh, "tiktoken recount": recount}


def rows(turns: int, window: int, sampled: int) -> Iterator[dict[str, object]]:
    """Median milliseconds a turn near the beginning, the middle and the end."""
    messages = [message(turn) for turn in range(turns)]
    spots = [turns // 10, turns // 2, turns - sampled]
    for name, make in WAYS.items():
        turn = make(messages, window)
        taken: dict[int, float] = {}
        for at in range(turns):
            if name != "planner" and not any(spot <= at < spot + sampled for spot in spots):
                continue
            start = time.perf_counter()
            turn(at)
            taken[at] = (time.perf_counter() - start) * 1e3
        yield {"way": name} | {
            f"turn {spot:,}": statistics.median(taken[at] for at in range(spot, spot + sampled))
            for spot in spots
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    get_tokenizer("o200k_base").count("warm")
    turns, sampled = (300, 5) if args.quick else (1_000, 9)
    found = {
        f"window of {window:,}": list(rows(turns, window, sampled)) for window in (16_000, 200_000)
    }
    if args.json:
        print(json.dumps({"ms_per_turn": found}))
        return
    print(f"milliseconds to add a turn of some 100 tokens and plan again, median of {sampled}")
    for name, table in found.items():
        print(f"\n{name}")
        print("".join(f"{head:>24}" for head in table[0]))
        for row in table:
            cells = [f"{v:>24.3f}" if isinstance(v, float) else f"{v:>24}" for v in row.values()]
            print("".join(cells))


if __name__ == "__main__":
    main()
