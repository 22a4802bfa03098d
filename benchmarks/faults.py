"""A wrapped client under random faults: what is held, charged and sent when all is over.

Faults of the provider (429, 500, 400 context_length_exceeded, silence before and within the
stream, broken connections, error events, streams without an end) and of the caller (leaving,
dropping, cancelling at any moment, timing out), 32 at a time, against a real upstream that obeys
output caps, and one that ignores them, so that streams are cut as well. ``unseen`` is what the
upstream had on the wire when the caller left or the budget cut: it was sent and never read.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.books import Deaf
from support.fault_load import Load
from support.upstream import Upstream


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--json", action="store_true")
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    rows = []
    for name, kind in (("obeys caps", Upstream), ("ignores caps", Deaf)):
        began = time.monotonic()
        with kind() as upstream:
            load = Load(upstream, 200 if given.quick else 2_000, given.seed)
            result = dataclasses.asdict(asyncio.run(load.run()))
        took = round(time.monotonic() - began, 1)
        rows.append({"upstream": name, **result, "seconds": took})
    if given.json:
        print(json.dumps(rows))
    else:
        for name in rows[0]:
            print(f"{name:<17}" + "   ".join(f"{row[name]!s:>14}" for row in rows))
    if any(row["held"] or row["wrong"] for row in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
