"""Budgets in an SQLite file: several processes of one machine, across restarts.

Each operation is ``core.ledger`` itself, over the few rows it touches, in one transaction that
holds the write lock from its start. Calls that wait together share a transaction. WAL mode: a
process killed at any point leaves the books as after its last commit. The clock is the
machine's wall clock. The file must be on a local disk.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from streamguard.core import ledger
from streamguard.core.accounts import Balance, Decision, Demand, representable
from streamguard.errors import ConfigurationError, StoreUnavailableError
from streamguard.stores.sqlite_file import File, Operation, read_note, write_note

TOGETHER = 128
"""Most calls that share a transaction."""

_Job = tuple[Operation, "Future[Any]"]


class SqliteStore:
    """The books in a file, written by one thread off the event loop.

    ``timeout`` is seconds a call may take, waiting for the other processes' locks included;
    after it ``StoreUnavailableError`` is raised and a reserve is undone. ``clock`` gives Unix
    seconds and must be the same for all processes that share the file.
    """

    def __init__(
        self, path: str, *, timeout: float = 5.0, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self.timeout = timeout
        self._clock = clock
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: Thread | None = None

    async def open(self) -> None:
        """Create or open the file."""
        if self._thread is None:
            self._thread = Thread(target=self._work, name="streamguard-sqlite", daemon=True)
            self._thread.start()
        await self._call(lambda *_, **__: None)

    async def close(self) -> None:
        """Finish what is queued and close the file."""
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    async def reserve(
        self, reservation: str, demands: Sequence[Demand], *, want: int, least: int, ttl: float
    ) -> Decision:
        """See ``ledger.reserve``."""
        operation = partial(
            ledger.reserve,
            reservation=reservation,
            demands=representable(demands),
            want=want,
            least=least,
            ttl=ttl,
        )
        try:
            decision: Decision = await self._call(operation)
        except BaseException:
            self._send(partial(ledger.release, reservation=reservation))
            raise
        return decision

    async def extend(self, reservation: str, *, want: int, least: int, ttl: float) -> Decision:
        """See ``ledger.extend``."""
        decision: Decision = await self._call(
            partial(ledger.extend, reservation=reservation, want=want, least=least, ttl=ttl)
        )
        return decision

    async def renew(self, reservation: str, *, ttl: float) -> bool:
        """See ``ledger.renew``."""
        held: bool = await self._call(partial(ledger.renew, reservation=reservation, ttl=ttl))
        return held

    async def settle(self, reservation: str, amounts: Sequence[int]) -> Sequence[Balance]:
        """See ``ledger.settle``."""
        balances: Sequence[Balance] = await self._call(
            partial(ledger.settle, reservation=reservation, amounts=amounts)
        )
        return balances

    async def release(self, reservation: str) -> None:
        """See ``ledger.release``."""
        await self._call(partial(ledger.release, reservation=reservation))

    async def balances(self, demands: Sequence[Demand]) -> Sequence[Balance]:
        """See ``ledger.balances``."""
        balances: Sequence[Balance] = await self._call(partial(ledger.balances, demands=demands))
        return balances

    async def note(self, name: str, value: bytes) -> None:
        """See ``notes.Notes``."""
        await self._call(partial(write_note, name=name, value=value))

    async def noted(self, name: str) -> bytes | None:
        """See ``notes.Notes``."""
        value: bytes | None = await self._call(partial(read_note, name=name))
        return value

    async def _call(self, operation: Operation) -> Any:
        if self._thread is None:
            message = f"the store {self.path} is not open; use 'async with guard'"
            raise StoreUnavailableError(message)
        answer = asyncio.wrap_future(self._send(operation))
        try:
            # Shielded: what is queued runs, whoever stops waiting for it.
            async with asyncio.timeout(self.timeout):
                return await asyncio.shield(answer)
        except TimeoutError as error:
            message = f"the budget store {self.path} did not answer in {self.timeout} s"
            raise StoreUnavailableError(message) from error

    def _send(self, operation: Operation) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.put((operation, future))
        return future

    def _work(self) -> None:
        """The thread: takes what waits, runs it together, answers."""
        file: File | None = None
        while jobs := self._waiting():
            try:
                file = file or File(self.path, self.timeout)
                results = file.run([operation for operation, _ in jobs], self._clock)
            except sqlite3.Error as error:
                message = f"the budget store {self.path} failed: {error}"
                results = [StoreUnavailableError(message)] * len(jobs)
            for (_, future), result in zip(jobs, results, strict=True):
                _answer(future, result)
        if file is not None:
            file.connection.close()

    def _waiting(self) -> list[_Job]:
        """All that is queued, at least one; empty when the store is closed."""
        jobs: list[_Job] = []
        while len(jobs) < TOGETHER:
            try:
                job = self._jobs.get(block=not jobs)
            except Empty:
                break
            if job is None:
                if jobs:
                    self._jobs.put(None)
                break
            jobs.append(job)
        return jobs


def _answer(future: Future[Any], result: Any) -> None:
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)


def from_url(url: str) -> SqliteStore:
    """The store of ``sqlite:///path`` (``sqlite:////absolute/path``), ``?timeout=`` seconds.

    Raises:
        ConfigurationError: no path, or a host, or a timeout that is not a number.
    """
    parts = urlsplit(url)
    path = unquote(parts.path[1:])
    if not path or parts.netloc:
        message = f"{url!r} names no file; write sqlite:///budgets.db or sqlite:////var/budgets.db"
        raise ConfigurationError(message)
    try:
        timeout = float(parse_qs(parts.query).get("timeout", ["5"])[0])
    except ValueError as error:
        message = f"timeout in {url!r} is not a number of seconds"
        raise ConfigurationError(message) from error
    return SqliteStore(path, timeout=timeout)
