"""Rows lost when processes are killed and when the database is away: must be 0.

    python benchmarks/usage_ledger_outage.py [--quick] [--json]

PostgreSQL is reached through a proxy that is down for a minute (2 s with --quick) while calls
are settled; then processes that settle as fast as they can are killed with SIGKILL, ten times
(twice), on PostgreSQL and on SQLite. STREAMGUARD_TEST_POSTGRES names the server's database.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.databases import Proxy, postgres_schema  # noqa: E402
from support.events import settled  # noqa: E402

from streamguard.sinks.ledger import LedgerSink  # noqa: E402
from streamguard.sinks.ledger_database import connect  # noqa: E402
from streamguard.sinks.ledger_table import USAGE  # noqa: E402


def ids(url: str) -> set[str]:
    """The request ids in a ledger."""
    engine = connect(url)
    with engine.connect() as connection:
        query = USAGE.select().with_only_columns(USAGE.c.request_id)
        found = {row[0] for row in connection.execute(query)}
    engine.dispose()
    return found


async def outage(url: str, proxy: Proxy, spool: str, seconds: float) -> dict[str, float]:
    """Settle about 500 calls a second before, during and after an outage."""
    sink = LedgerSink(url, spool=spool, report=lambda *_args, **_figures: None)
    await sink.open()
    sent, slowest, started, fullest = 0, 0.0, time.monotonic(), 0
    while (passed := time.monotonic() - started) < seconds + 4:
        (proxy.down if 2 < passed < seconds + 2 else proxy.up)()
        began = time.perf_counter()
        sink.emit(dataclasses.replace(settled(sent), request_id=f"out-{sent}"))
        slowest = max(slowest, time.perf_counter() - began)
        sent += 1
        fullest = max(fullest, sink.pending_bytes)
        await asyncio.sleep(0.0018)
    back = time.monotonic()
    while not await sink.flush():  # noqa: ASYNC110 - there is nothing to be told by
        await asyncio.sleep(0.1)
    caught_up = time.monotonic() - back
    await sink.close()
    return {
        "settled": sent,
        "spooled_bytes": fullest,
        "slowest_emit_ms": slowest * 1e3,
        "caught_up_s": caught_up,
    }


def killed(url: str, spool: str, rounds: int) -> set[str]:
    """Kill a loaded process so many times; the ids whose emit had returned."""
    sent: set[str] = set()
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    for number in range(rounds):
        command = [sys.executable, "-m", "support.ledger_load", url, spool, f"kill{number}"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
        ) as process:
            for count, line in enumerate(process.stdout or (), start=1):
                sent.add(f"kill{number}-{int(line)}")
                if count == 5_000 + 731 * number:
                    process.kill()
    return sent


async def replay(url: str, spool: str) -> None:
    sink = LedgerSink(url, spool=spool, report=lambda *_args, **_figures: None)
    await sink.open()
    await sink.flush()
    await sink.close()


def measure(folder: str, *, quick: bool) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    with postgres_schema() as url, Proxy("127.0.0.1", 5432) as proxy:
        seconds = 2.0 if quick else 60.0
        behind = url.replace(":5432", f":{proxy.port}")
        figures = asyncio.run(outage(behind, proxy, f"{folder}/a", seconds))
        lost = {f"out-{n}" for n in range(int(figures["settled"]))} - ids(url)
        rows.append({"case": f"outage of {seconds:.0f} s", **figures, "lost": len(lost)})
        for name, target in (("postgresql", url), ("sqlite", f"sqlite:///{folder}/usage.db")):
            rounds = 2 if quick else 10
            sent = killed(target, f"{folder}/{name}", rounds)
            asyncio.run(replay(target, f"{folder}/{name}"))
            lost = sent - ids(target)
            case = f"{rounds} x kill -9, {name}"
            rows.append({"case": case, "settled": len(sent), "lost": len(lost)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(folder, quick=given.quick)
    if given.json:
        print(json.dumps(rows))
        return
    for row in rows:
        rest = {name: round(value, 2) for name, value in row.items() if name != "case"}  # type: ignore[call-overload]
        print(f"{row['case']:<26}{rest}")


if __name__ == "__main__":
    main()
