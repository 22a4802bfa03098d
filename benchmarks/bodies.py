"""What strict JSON costs for a request body of 1 MB, against the parsers it is built on.

python benchmarks/bodies.py [--quick] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import msgspec

from streamguard.core.strict_json import loads

TEXT = "The lighthouse keeper wrote about the fog, l'été and 灯塔.\n"


def bodies() -> dict[str, bytes]:
    """Bodies of about 1 MB: a conversation, one long text, token ids, a wide schema."""
    messages = [{"role": "user", "content": TEXT * 8} for _ in range(2_000)]
    fields = {f"field_{at}": {"type": "string", "description": "a field"} for at in range(18_000)}
    made = {
        "2,000 messages": {"model": "gpt-4o", "messages": messages},
        "one long text": {
            "model": "gpt-4o",
            "messages": [{"role": "user", "content": "x" * 10**6}],
        },
        "180,000 token ids": {"model": "m", "input": [list(range(10_000, 12_000))] * 75},
        "18,000 schema fields": {"model": "m", "tools": [{"properties": fields}]},
    }
    return {name: json.dumps(body, ensure_ascii=False).encode() for name, body in made.items()}


def cost(run: Callable[[], object], rounds: int) -> float:
    """Median milliseconds of CPU."""
    seen = []
    for _ in range(rounds):
        start = time.thread_time()
        run()
        seen.append((time.thread_time() - start) * 1e3)
    return statistics.median(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rounds = 3 if args.quick else 15
    found = {
        name: {
            "bytes": len(body),
            "msgspec": cost(lambda body=body: msgspec.json.decode(body), rounds),
            "json": cost(lambda body=body: json.loads(body), rounds),
            "strict": cost(lambda body=body: loads(body), rounds),
        }
        for name, body in bodies().items()
    }
    if args.json:
        print(json.dumps(found))
        return
    print(f"CPU milliseconds a body, median of {rounds}")
    print(f"{'':>22}{'bytes':>12}{'msgspec':>10}{'json':>10}{'strict':>10}")
    for name, row in found.items():
        figures = "".join(f"{row[kind]:>10.2f}" for kind in ("msgspec", "json", "strict"))
        print(f"{name:>22}{row['bytes']:>12,}{figures}")


if __name__ == "__main__":
    main()
