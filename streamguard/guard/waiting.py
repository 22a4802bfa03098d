"""Calls that wait for a budget to have room again: bounded, fair, by priority, with a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from threading import RLock
from typing import NamedTuple

from streamguard.core.admission import applies
from streamguard.core.fair_queue import FairQueue, Ticket
from streamguard.errors import WindowBudgetExceededError
from streamguard.guard.call import Call
from streamguard.guard.settings import Queue
from streamguard.guard.subject import Subject
from streamguard.guard.teller import Teller
from streamguard.limits import Limit
from streamguard.usage import UsageEvent

Attempt = Callable[[Subject], Awaitable[Call]]

Key = tuple[str, tuple[tuple[str, str], ...]]
"""A limit's name and the scope of one account of it."""

POLL = 1.0
"""Seconds after which the first in line asks again: other processes' settles are not seen."""


class Waiting(NamedTuple):
    """One call that waits, as ``positions`` shows it; ``position`` counts from 1."""

    request_id: str
    tenant: str | None
    limit: str
    position: int
    seconds: float


class WaitingRoom:
    """One line for each budget that is exhausted. Also a sink: settled calls wake the lines."""

    def __init__(
        self, queue: Queue, teller: Teller, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``clock`` is monotonic seconds."""
        self._queue = queue
        self._teller = teller
        self._clock = clock
        self._lines: dict[Key, _Line] = {}
        self._lock = RLock()  # wrapped blocking clients wait on loops of their own

    def __len__(self) -> int:
        return sum(len(line.queue) for line in self._lines.values())

    def emit(self, event: UsageEvent) -> None:
        """A call that is over may have given budget back."""
        if event.event in ("settled", "released"):
            with self._lock:
                for line in self._lines.values():
                    line.wake(self._clock())

    def ahead(self, subject: Subject) -> WindowBudgetExceededError | None:
        """What those refuse who wait for a budget of this call: it may not overtake them."""
        scope = subject.scope()
        with self._lock:
            found = (copy(line.error) for line in self._lines.values() if line.covers(scope))
            return next(found, None)

    def positions(self) -> list[Waiting]:
        """Everybody who waits, line by line."""
        with self._lock:
            return [each for line in self._lines.values() for each in line.shown(self._clock())]

    async def wait(
        self,
        subject: Subject,
        error: WindowBudgetExceededError,
        limit: Limit | None,
        attempt: Attempt,
    ) -> Call:
        """Wait in line, then ``attempt`` until it is admitted.

        Raises:
            WindowBudgetExceededError: the line is full, or the deadline has come, or would come
                before there is room.
        """
        if not self._worth_it(error):
            raise error
        waiter = _Waiter(self._ticket(subject), subject.identity.tenant, self._clock())
        line, position = self._join(waiter, error, limit)
        served = False
        try:
            self._teller.tell("queued", subject, limit_name=line.name, position=position)
            subject = replace(subject, position=position)
            call = await self._in_line(line, waiter, subject, error, attempt)
            served = True
            return call
        finally:
            self._leave(line, waiter, served=served)

    def _join(
        self, waiter: _Waiter, error: WindowBudgetExceededError, limit: Limit | None
    ) -> tuple[_Line, int]:
        with self._lock:
            if len(self) >= self._queue.capacity:
                raise _said(error, f"The queue is full: {len(self):,} calls wait already.")
            line = self._lines.get(_key(error))
            if line is None:
                line = self._lines[_key(error)] = _Line(error, limit, self._clock())
            return line, line.join(waiter)

    def _leave(self, line: _Line, waiter: _Waiter, *, served: bool) -> None:
        with self._lock:
            line.leave(waiter, self._clock(), served=served)
            if not line.queue:
                del self._lines[line.key]

    async def _in_line(
        self,
        line: _Line,
        waiter: _Waiter,
        subject: Subject,
        error: WindowBudgetExceededError,
        attempt: Attempt,
    ) -> Call:
        deadline = waiter.since + self._queue.max_wait
        while self._worth_it(error):
            await self._turn(line, waiter, deadline)
            waited = self._clock() - waiter.since
            if waited >= self._queue.max_wait:
                raise _said(error, f"It waited {waited:.1f} s in the queue.")
            try:
                return await attempt(replace(subject, queued=waited))
            except WindowBudgetExceededError as refused:
                error = line.error = refused
                line.due = self._clock() + min(POLL, error.retry_after or POLL)
        raise error

    async def _turn(self, line: _Line, waiter: _Waiter, deadline: float) -> None:
        """Return when the waiter is first and may ask, or when its deadline has come."""
        while (now := self._clock()) < deadline:
            with self._lock:
                first = line.queue.head() == waiter.ticket.id
            if first and now >= line.due:
                return
            await waiter.wait((min(deadline, line.due) if first else deadline) - now)

    def _worth_it(self, error: WindowBudgetExceededError) -> bool:
        return error.retry_after is not None and error.retry_after <= self._queue.max_wait

    def _ticket(self, subject: Subject) -> Ticket:
        identity = subject.identity
        priority = self._queue.priority(identity) if self._queue.priority else 0
        return Ticket(subject.request_id, identity.tenant or "", priority)


def _key(error: WindowBudgetExceededError) -> Key:
    return str(error.limit_name), tuple(sorted(error.scope.items()))


def _said(error: WindowBudgetExceededError, more: str) -> WindowBudgetExceededError:
    """The refusal with one more sentence."""
    longer = copy(error)
    longer.args = (f"{error.message} {more}",)
    return longer


class _Waiter:
    """One call in line and the loop it waits on."""

    def __init__(self, ticket: Ticket, tenant: str | None, since: float) -> None:
        self.ticket = ticket
        self.tenant = tenant
        self.since = since
        self.loop = asyncio.get_running_loop()
        self.event = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return when it is woken, after ``seconds`` at the latest."""
        timer = self.loop.call_later(seconds, self.event.set)
        try:
            await self.event.wait()
        finally:
            timer.cancel()
        self.event.clear()

    def call(self) -> None:
        """Wake it, from whatever thread."""
        self.loop.call_soon_threadsafe(self.event.set)


class _Line:
    """Those who wait for one budget. Only the first in line asks for it."""

    def __init__(self, error: WindowBudgetExceededError, limit: Limit | None, now: float) -> None:
        self.key = _key(error)
        self.error = error
        self.limit = limit
        self.due = now + min(POLL, error.retry_after or POLL)
        self.queue = FairQueue()
        self.waiters: dict[str, _Waiter] = {}

    @property
    def name(self) -> str:
        """The budget's name."""
        return str(self.error.limit_name)

    def covers(self, scope: Mapping[str, str]) -> bool:
        """Whether a call of this scope is charged to the line's account."""
        mine = all(scope.get(key, "") == value for key, value in self.error.scope.items())
        return mine and (self.limit is None or applies(self.limit, scope))

    def shown(self, now: float) -> Iterator[Waiting]:
        """Everybody in line, the first one first."""
        for request_id, position in self.queue.positions().items():
            waiter = self.waiters[request_id]
            yield Waiting(request_id, waiter.tenant, self.name, position, now - waiter.since)

    def join(self, waiter: _Waiter) -> int:
        """The new one's position."""
        self.waiters[waiter.ticket.id] = waiter
        return self.queue.join(waiter.ticket)

    def leave(self, waiter: _Waiter, now: float, *, served: bool) -> None:
        """Take one out; the next may ask at once."""
        self.queue.leave(waiter.ticket.id, served=served)
        del self.waiters[waiter.ticket.id]
        self.wake(now)

    def wake(self, now: float) -> None:
        """Let the first in line ask now."""
        self.due = now
        head = self.queue.head()
        if head is not None:
            self.waiters[head].call()
