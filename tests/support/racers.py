"""Processes that race on one budget of a store, and are killed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from streamguard.core.accounts import Demand, Grant, Window, account_key
from streamguard.stores import open_store

ROOT = Path(__file__).parents[2]
DAY = Window(86_400)
SIZE = 100
"""What one racer asks for, input and output together."""


def budget(capacity: int) -> list[Demand]:
    """One hot tenant's day, and a limit over all tenants."""
    tenant = account_key("tenant", {"tenant": "hot"}, DAY)
    everyone = account_key("all", {}, DAY)
    return [Demand(tenant, capacity, DAY, 10, 1), Demand(everyone, 10 * capacity, DAY, 10, 1)]


async def race(url: str, name: str, racers: int, capacity: int) -> int:
    """What this process was granted in all; every grant is settled whole."""
    store = open_store(url)
    await store.open()

    async def one(number: int) -> int:
        reservation, demands = f"{name}/{number}", budget(capacity)
        output = SIZE - 10
        decision = await store.reserve(reservation, demands, want=output, least=output, ttl=60)
        if not isinstance(decision, Grant):
            return 0
        await store.settle(reservation, [SIZE, SIZE])
        return SIZE

    granted = await asyncio.gather(*(one(number) for number in range(racers)))
    await store.close()
    return sum(granted)


async def hold_for_ever(url: str, name: str, ttl: float) -> None:
    """Reserve again and again, settle half of it, say each settled amount, never end."""
    store = open_store(url)
    await store.open()
    for number in range(10**9):
        reservation = f"{name}/{number}"
        await store.reserve(reservation, budget(10**9), want=90, least=90, ttl=ttl)
        if number % 2:
            await store.settle(reservation, [7, 7])
            sys.stdout.write("7\n")
            sys.stdout.flush()


def start(job: str, *words: object) -> subprocess.Popen:
    """A process that runs a job of this file."""
    return subprocess.Popen(
        [sys.executable, "-m", "support.racers", job, json.dumps(words)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PATH": ""},
    )


def race_processes(url: str, processes: int, racers: int, capacity: int) -> int:
    """All processes' grants together."""
    each = racers // processes
    running = [start("race", url, f"p{n}", each, capacity) for n in range(processes)]
    return sum(int(process.communicate(timeout=90)[0]) for process in running)


def kill_in_midstream(url: str, times: int, ttl: float = 1.0) -> int:
    """Workers killed while they hold; what each said it settled."""
    said = 0
    for number in range(times):
        worker = start("hold", url, f"k{number}", ttl)
        said += sum(int(worker.stdout.readline()) for _ in range(3))
        worker.kill()
        said += sum(int(line) for line in worker.communicate()[0].splitlines())
    return said


if __name__ == "__main__":
    words = json.loads(sys.argv[2])
    if sys.argv[1] == "race":
        sys.stdout.write(f"{asyncio.run(race(*words))}\n")
    else:
        asyncio.run(hold_for_ever(*words))
