"""A guard that several event loops open and close."""

from __future__ import annotations

import asyncio

from support.loops import another_loop, in_threads, run_in

from streamguard import Guard, Limit
from streamguard.stores.memory import MemoryStore


class Slow(MemoryStore):
    """A store that takes a while to open, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = self.closed = 0

    async def open(self) -> None:
        await asyncio.sleep(0.1)
        self.opened += 1

    async def close(self) -> None:
        self.closed += 1


def test_loops_that_open_at_once_all_go_on():
    store = Slow()
    guard = Guard([Limit(tokens=100, per="hour")], store=store, sinks=[])
    in_threads(3, lambda _number: guard.open())
    assert store.opened == 1


def test_closing_waits_for_what_runs_in_another_loop():
    store = Slow()
    guard = Guard([Limit(tokens=100, per="hour")], store=store, sinks=[])
    done = []

    async def work():
        await asyncio.sleep(0.05)
        done.append(store.closed)

    async def begin():
        await guard.open()
        guard.books.in_background(work())

    with another_loop() as loop:
        run_in(loop, begin())
        asyncio.run(guard.close())
    assert (done, store.closed) == ([0], 1)
