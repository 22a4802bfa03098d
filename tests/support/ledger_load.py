"""A process that settles calls as fast as it can until it is killed.

    python ledger_load.py URL SPOOL PREFIX

Prints the number of a row after ``emit`` has returned for it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import sys

from streamguard.sinks.ledger import LedgerSink
from support.events import settled


async def main(url: str, spool: str, prefix: str) -> None:
    """Emit, and say so, for ever."""
    sink = LedgerSink(url, spool=spool, flush_seconds=0.02, report=lambda *_a, **_k: None)
    await sink.open()
    number = 0
    while True:
        for _ in range(20):
            sink.emit(dataclasses.replace(settled(number), request_id=f"{prefix}-{number}"))
            sys.stdout.write(f"{number}\n")
            number += 1
        sys.stdout.flush()
        await asyncio.sleep(0.001)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
