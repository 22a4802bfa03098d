"""For what is used from several event loops: asyncio's own locks and tasks belong to one each.

A program has several when it runs a blocking client beside asynchronous code, gives each thread
a loop, or calls ``asyncio.run`` again and again, as Starlette's ``TestClient`` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

PAUSE = 0.005
"""Seconds between two looks at what another loop does."""

ELSEWHERE = 5.0
"""Most seconds to wait for tasks of other loops: such a loop may itself be waiting for this one."""

T = TypeVar("T")


class Turn:
    """A lock that tasks of any loop may wait for; meant for what is rarely contended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def __aenter__(self) -> None:
        while not self._lock.acquire(blocking=False):  # noqa: ASYNC110 - an Event wakes one loop
            await asyncio.sleep(PAUSE)

    async def __aexit__(self, *_: object) -> None:
        self._lock.release()


class PerLoop(Generic[T]):
    """A value for each loop that asks; those of closed loops are forgotten."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        # Not by weak keys: what belongs to a loop refers to it, so none would ever go.
        self._values: dict[asyncio.AbstractEventLoop, T] = {}

    def here(self) -> T:
        """The running loop's value."""
        loop = asyncio.get_running_loop()
        value = self._values.get(loop)
        return self._first(loop) if value is None else value

    def take(self) -> list[tuple[asyncio.AbstractEventLoop, T]]:
        """All loops with their values, which start anew."""
        values, self._values = self._values, {}
        return list(values.items())

    def _first(self, loop: asyncio.AbstractEventLoop) -> T:
        for known in list(self._values):
            if known.is_closed():
                self._values.pop(known, None)
        return self._values.setdefault(loop, self._make())


def run_on(loop: asyncio.AbstractEventLoop, work: Callable[[], object]) -> None:
    """Have ``work`` done by a loop, unless it is closed: then nothing of it is left."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(work)


async def cancelled(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel tasks of any loop and wait until they have ended."""
    for task in tuple(tasks):
        run_on(task.get_loop(), task.cancel)
    await ended(tasks)


async def ended(tasks: set[asyncio.Task[Any]]) -> None:
    """Wait until tasks are done, this loop's and those of other loops that run; forget them all."""
    here = asyncio.get_running_loop()
    due = here.time() + ELSEWHERE

    def under_way(task: asyncio.Task[Any]) -> bool:
        loop = task.get_loop()
        alive = loop is here or (loop.is_running() and here.time() < due)
        return alive and not task.done()

    while any(under_way(task) for task in tuple(tasks)):  # noqa: ASYNC110 - of several loops
        await asyncio.sleep(PAUSE)
    tasks.clear()
