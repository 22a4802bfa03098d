"""The usage ledger: time per emit, rows per second in, and every query on a million rows.

    python benchmarks/usage_ledger.py [--quick] [--json] [--rows N] [--db URL]…

SQLite goes to a temporary folder; PostgreSQL is tried at --db (default
postgresql://postgres@127.0.0.1/test), in a schema of its own that is dropped again. The cpu
column is the processor's time alone, which says more on a machine that is busy with other work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import text

from streamguard.identity import Identity
from streamguard.sinks.ledger import LedgerSink
from streamguard.sinks.ledger_database import Inserter, connect
from streamguard.sinks.ledger_queries import Ledger, Period
from streamguard.sinks.ledger_row import encode
from streamguard.sinks.ledger_table import DIMENSIONS, migrate
from streamguard.sinks.memory import ListSink
from streamguard.usage import Usage, UsageEvent

START, DAYS = 1_790_000_000.0, 30
MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-5", "o3", "claude-sonnet-4-5")
ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/messages")


def event(number: int, rows: int, rng: random.Random) -> UsageEvent:
    """A plausible call: Zipf-like tenants and users, one in fifty refused."""
    tenant = min(int(rng.paretovariate(0.9)), 500)
    user = rng.randrange(40)
    taken, made = int(rng.lognormvariate(7, 1.4)), int(rng.lognormvariate(5.5, 1))
    refused = rng.random() < 0.02
    used = Usage(taken, made, None, taken // 3)
    return UsageEvent(
        "refused" if refused else "settled",
        f"sg-{number:032x}",
        START + number * DAYS * 86_400 / rows,
        Identity(f"tenant-{tenant}", f"user-{tenant}-{user}", f"feature-{user % 12}"),
        model=rng.choice(MODELS),
        endpoint=rng.choice(ENDPOINTS),
        counted=Usage(taken, None if refused else made),
        reported=None if refused else used,
        charged=None if refused else used,
        method="exact",
        cost_nano_usd=None if refused else taken * 2_500 + made * 10_000,
        outcome=None if refused else rng.choice(("completed",) * 9 + ("cut",)),
        duration=rng.random() * 9,
        first_token=rng.random(),
        status=429 if refused else 200,
        code="budget_exceeded" if refused else None,
        components={"system": 200, "user": taken - 200},
        conversation=f"{rng.randrange(rows // 10 or 1):032x}",
        context_window=128_000,
    )


def emit_times(count: int) -> dict[str, float]:
    """Microseconds per emit into a file spool whose writer is at work, against a list."""
    rng = random.Random(1)
    events = [event(number, count, rng) for number in range(count)]

    async def run(folder: str) -> dict[str, float]:
        url = f"sqlite:///{folder}/usage.db"
        sink = LedgerSink(url, report=lambda *_args, **_figures: None)
        plain = ListSink()
        await sink.open()
        times: dict[str, list[float]] = {"ledger": [], "list": []}
        for each in events:
            for name, target in (("list", plain), ("ledger", sink)):
                began = time.perf_counter()
                target.emit(each)
                times[name].append(time.perf_counter() - began)
            await asyncio.sleep(0)
        await sink.close()
        return {
            f"{name} {what}": figure(taken) * 1e6
            for name, taken in times.items()
            for what, figure in (
                ("median", statistics.median),
                ("p99", lambda taken: sorted(taken)[int(len(taken) * 0.99)]),
            )
        }

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(run(folder))


def questions(ledger: Ledger) -> dict[str, object]:
    """Every query that ``streamguard usage`` asks."""
    week = Period(since=START + 20 * 86_400, until=START + 27 * 86_400)
    tenant = Period(only={"tenant": "tenant-1"})
    return {
        "totals": ledger.totals,
        "totals, a week": lambda: ledger.totals(week),
        "totals, a tenant": lambda: ledger.totals(tenant),
        **{f"top {by}": (lambda by=by: ledger.top(by)) for by in DIMENSIONS},
        "top user, a week": lambda: ledger.top("user", 10, week),
        "top feature, a tenant": lambda: ledger.top("feature", 10, tenant),
        "top model, a tenant": lambda: ledger.top("model", 10, tenant),
        "by day": lambda: ledger.series(86_400),
        "by hour": lambda: ledger.series(3_600),
        "by hour, a tenant": lambda: ledger.series(3_600, tenant),
        "outliers > 100,000": lambda: ledger.outliers(100_000),
        "growth": ledger.growth,
        "growth, a week": lambda: ledger.growth(10, week),
        "drift": ledger.drift,
        "drift, a week": lambda: ledger.drift(week),
    }


def fill(url: str, rows: int) -> tuple[Ledger, float]:
    """A ledger of so many rows, and the rows a second it took."""
    engine = connect(url)
    migrate(engine)
    inserter, rng, spent = Inserter(engine), random.Random(7), 0.0
    for start in range(0, rows, 2_000):
        lines = [encode(event(n, rows, rng)) for n in range(start, min(rows, start + 2_000))]
        began = time.perf_counter()
        inserter.insert(lines)
        spent += time.perf_counter() - began
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        connection.execute(text("ANALYZE"))
    return Ledger(engine), rows / spent


def ask(ledger: Ledger, rounds: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median milliseconds a query."""
    result = {}
    for name, question in questions(ledger).items():
        times = []
        for _ in range(rounds):
            began = clock()
            question()
            times.append(clock() - began)
        result[name] = statistics.median(times) * 1e3
    return result


def databases(given: str, folder: str) -> dict[str, str]:
    schema = f"bench_{os.getpid()}"
    return {
        "sqlite": f"sqlite:///{Path(folder) / 'usage.db'}",
        "postgresql": f"{given}?options=-csearch_path%3D{schema}",
    }


def with_schema(url: str, *, create: bool) -> None:
    schema = url.rpartition("%3D")[2]
    with connect(url).begin() as connection:
        word = f"CREATE SCHEMA {schema}" if create else f"DROP SCHEMA {schema} CASCADE"
        connection.execute(text(word))


def measure(given: str, rows: int, rounds: int) -> dict[str, dict[str, float]]:
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, url in databases(given, folder).items():
            if name == "postgresql":
                with_schema(url, create=True)
            try:
                ledger, rate = fill(url, rows)
                result[name] = {"rows in per s": rate, **ask(ledger, rounds, time.perf_counter)}
                if name == "sqlite":
                    result["sqlite cpu"] = ask(ledger, rounds, time.process_time)
            finally:
                if name == "postgresql":
                    with_schema(url, create=False)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rows", type=int)
    parser.add_argument("--db", default="postgresql://postgres@127.0.0.1/test")
    given = parser.parse_args()
    rows = given.rows or (20_000 if given.quick else 1_000_000)
    found = {"emit_us": emit_times(5_000 if given.quick else 50_000)}
    found |= measure(given.db, rows, 1 if given.quick else 3)
    if given.json:
        print(json.dumps({"rows": rows, **found}))
        return
    print("microseconds per emit: ", {name: round(us, 1) for name, us in found["emit_us"].items()})
    print(f"\n{rows:,} rows; milliseconds a query")
    columns = ("sqlite", "sqlite cpu", "postgresql")
    print(f"{'':<26}{''.join(f'{column:>12}' for column in columns)}")
    for name in found["sqlite"]:
        figures = (found[column].get(name, float("nan")) for column in columns)
        print(f"{name:<26}{''.join(f'{figure:>12,.0f}' for figure in figures)}")


if __name__ == "__main__":
    main()
