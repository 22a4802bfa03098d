"""Budgets of one process, in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Lock

from streamguard.core import ledger
from streamguard.core.accounts import Balance, Decision, Demand
from streamguard.core.books import Books


def steady_clock() -> Callable[[], float]:
    """Unix seconds that never step: the wall time of this moment plus what has elapsed."""
    offset = time.time() - time.monotonic()
    monotonic = time.monotonic
    return lambda: offset + monotonic()


class MemoryStore:
    """``core.ledger`` behind the ``Store`` protocol, safe across threads and event loops.

    ``clock`` gives Unix seconds; by default it is unmoved by changes of the system's time.
    """

    def __init__(self, *, clock: Callable[[], float] | None = None) -> None:
        self.books = Books()
        self._notes: dict[str, bytes] = {}
        self._clock = clock or steady_clock()
        self._lock = Lock()

    async def open(self) -> None:
        """Nothing to prepare."""

    async def close(self) -> None:
        """Nothing to give back: the books live as long as this object."""

    async def reserve(
        self, reservation: str, demands: Sequence[Demand], *, want: int, least: int, ttl: float
    ) -> Decision:
        """See ``ledger.reserve``."""
        with self._lock:
            return ledger.reserve(
                self.books,
                reservation,
                demands,
                want=want,
                least=least,
                ttl=ttl,
                now=self._clock(),
            )

    async def extend(self, reservation: str, *, want: int, least: int, ttl: float) -> Decision:
        """See ``ledger.extend``."""
        with self._lock:
            now = self._clock()
            return ledger.extend(self.books, reservation, want=want, least=least, ttl=ttl, now=now)

    async def renew(self, reservation: str, *, ttl: float) -> bool:
        """See ``ledger.renew``."""
        with self._lock:
            return ledger.renew(self.books, reservation, ttl=ttl, now=self._clock())

    async def settle(self, reservation: str, amounts: Sequence[int]) -> Sequence[Balance]:
        """See ``ledger.settle``."""
        with self._lock:
            return ledger.settle(self.books, reservation, amounts, now=self._clock())

    async def release(self, reservation: str) -> None:
        """See ``ledger.release``."""
        with self._lock:
            ledger.release(self.books, reservation, now=self._clock())

    async def balances(self, demands: Sequence[Demand]) -> Sequence[Balance]:
        """See ``ledger.balances``."""
        with self._lock:
            return ledger.balances(self.books, demands, now=self._clock())

    async def note(self, name: str, value: bytes) -> None:
        """See ``notes.Notes``."""
        self._notes[name] = value

    async def noted(self, name: str) -> bytes | None:
        """See ``notes.Notes``."""
        return self._notes.get(name)


def from_url(url: str) -> MemoryStore:  # noqa: ARG001
    """The store of ``memory://``."""
    return MemoryStore()
