"""Hot accounts without a store call for each request: each worker reserves batches up front.

Batches start at what one call needs, grow to what ``max_age`` takes at the account's pace, and
shrink near the limit. None lives longer, so what is unused comes back; usage is charged when a
batch's last call has ended. The price: a killed worker's usage that the store was not told of.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Sequence
from typing import Any, NamedTuple
from uuid import uuid4

from streamguard.core.accounts import Balance, Decision, Demand, Grant, Refusal
from streamguard.core.batch import MEMORY, Batch, batch_demand
from streamguard.core.books import Key
from streamguard.core.ledger import NOTHING, check_apart
from streamguard.errors import StoreUnavailableError
from streamguard.stores.base import Store
from streamguard.stores.loops import cancelled, ended
from streamguard.stores.notes import note, noted

TTL = 10.0
"""Seconds after which the batches of a crashed worker come back."""


class _Piece(NamedTuple):
    batch: Batch
    held: int


class _Call:
    """A reservation: for each demand the pieces it holds."""

    __slots__ = ("demands", "due", "output", "pieces")

    def __init__(self, demands: Sequence[Demand], due: float) -> None:
        self.demands = demands
        self.due = due
        self.output = 0
        self.pieces: list[list[_Piece]] = [[] for _ in demands]


class BatchingStore:
    """``inner`` with batches; ``max_age`` is the longest a batch is handed out, in seconds."""

    def __init__(self, inner: Store, *, max_age: float = 1.0) -> None:
        self.inner = inner
        self.max_age = max_age
        self._batches: dict[Key, Batch] = {}
        self._retired: dict[str, Batch] = {}
        self._calls: dict[str, _Call] = {}
        self._last: dict[Key, Batch] = {}
        self._locks: dict[Key, asyncio.Lock] = {}
        self._keepers: set[asyncio.Task[None]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._renewed = 0.0

    async def open(self) -> None:
        """Open the inner store and start looking after the batches."""
        await self.inner.open()
        self._look_after()

    async def close(self) -> None:
        """Give unused batches back and close the inner store."""
        await cancelled(self._keepers)
        for batch in list(self._batches.values()):
            self._retire(batch)
        await ended(self._tasks)
        await self._settle_retired(force=True)
        await self.inner.close()

    async def reserve(
        self, reservation: str, demands: Sequence[Demand], *, want: int, least: int, ttl: float
    ) -> Decision:
        """See ``ledger.reserve``."""
        self._look_after()
        check_apart(demands)
        known = self._calls.get(reservation)
        if known is not None:
            return Grant(known.output, self._balances(known))
        call = _Call(demands, time.monotonic() + ttl)
        decision = await self._take(call, [d.fixed for d in demands], want, min(least, want))
        if isinstance(decision, Grant):
            call.output = decision.output
            self._calls[reservation] = call
        return decision

    async def extend(self, reservation: str, *, want: int, least: int, ttl: float) -> Decision:
        """See ``ledger.extend``."""
        call = self._calls.get(reservation)
        if call is None:
            return NOTHING
        decision = await self._take(call, [0] * len(call.demands), want, min(least, want))
        if isinstance(decision, Grant):
            call.output += decision.output
            call.due = time.monotonic() + ttl
        return decision

    async def renew(self, reservation: str, *, ttl: float) -> bool:
        """See ``ledger.renew``; the batches themselves are renewed in the background."""
        call = self._calls.get(reservation)
        if call is not None:
            call.due = time.monotonic() + ttl
        return call is not None

    async def settle(self, reservation: str, amounts: Sequence[int]) -> Sequence[Balance]:
        """See ``ledger.settle``; the store is told when the batch ends."""
        call = self._calls.pop(reservation, None)
        if call is None:
            return ()
        for pieces, amount in zip(call.pieces, amounts, strict=True):
            self._give(pieces, amount)
        return self._balances(call)

    async def release(self, reservation: str) -> None:
        """See ``ledger.release``."""
        call = self._calls.pop(reservation, None)
        for pieces in call.pieces if call is not None else ():
            self._give(pieces, 0)

    async def balances(self, demands: Sequence[Demand]) -> Sequence[Balance]:
        """See ``ledger.balances``; what batches hold counts as held."""
        return await self.inner.balances(demands)

    async def note(self, name: str, value: bytes) -> None:
        """See ``notes.Notes``."""
        await note(self.inner, name, value)

    async def noted(self, name: str) -> bytes | None:
        """See ``notes.Notes``."""
        return await noted(self.inner, name)

    async def _take(self, call: _Call, fixed: list[int], want: int, least: int) -> Decision:
        """A piece of every demand's batch for the largest output that all have."""
        taken: list[_Piece] = []
        try:
            for which, demand in enumerate(call.demands):
                needed, wanted = (fixed[which] + g * demand.rate for g in (least, want))
                answer = await self._supply(demand, needed, wanted)
                if isinstance(answer, Refusal):
                    self._give_all(taken)
                    return answer._replace(which=which, needed=needed)
                if demand.rate and not demand.soft:
                    want = min(want, (answer.left - fixed[which]) // demand.rate)
                taken.append(_Piece(answer, fixed[which] + want * demand.rate))
                answer.take(taken[-1].held)
        except BaseException:
            self._give_all(taken)
            raise
        for which, (demand, piece) in enumerate(zip(call.demands, taken, strict=True)):
            held = fixed[which] + want * demand.rate
            piece.batch.left += piece.held - held
            call.pieces[which].append(piece._replace(held=held))
        return Grant(want, self._balances(call), self._exceeded(call))

    async def _supply(self, demand: Demand, needed: int, wanted: int) -> Batch | Refusal:
        """A batch that has ``wanted`` left, else, near the limit, one that has ``needed``."""
        key = (demand.account, demand.window)
        batch = self._batches.get(key)
        if batch is not None and batch.left >= wanted:
            return batch
        async with self._locks.setdefault(key, asyncio.Lock()):
            batch = self._batches.get(key)
            if batch is not None and batch.left >= wanted:
                return batch
            return await self._refill(key, demand, needed, wanted)

    async def _refill(self, key: Key, demand: Demand, needed: int, wanted: int) -> Batch | Refusal:
        """A new batch, if it has more than the old one. Where the store refuses, what the old
        one has is used, or goes back before the store is asked again.
        """
        old, asked = self._batches.get(key), batch_demand(demand)
        last, now = self._last.get(key), time.monotonic()
        size = wanted if last is None else last.next_size(wanted, now, self.max_age)
        if old is None:
            return self._use(await self._new(asked, size, needed))
        if old.left < 0 and not old.flying:
            await self._hand_back(old)
        missing = max(0, -old.left) if old.flying else 0
        least = min(wanted, max(needed, old.left + 1))
        answer = await self._new(asked, size, least, missing)
        if isinstance(answer, Refusal) and old.left >= needed:
            return old
        if isinstance(answer, Refusal) and old.left > 0 and not old.flying:
            await self._hand_back(old)
            answer = await self._new(asked, wanted, needed)
        return self._use(answer)

    def _use(self, answer: Batch | Refusal) -> Batch | Refusal:
        if isinstance(answer, Batch):
            key = (answer.demand.account, answer.demand.window)
            if key in self._batches:
                self._retire(self._batches[key])
            self._batches[key] = self._last[key] = answer
        return answer

    async def _hand_back(self, batch: Batch) -> None:
        """Settle a batch now."""
        self._retire(batch)
        await asyncio.gather(*self._tasks)

    async def _new(
        self, asked: Demand, size: int, needed: int, missing: int = 0
    ) -> Batch | Refusal:
        """A batch from the store; it holds ``missing`` more for what the last one overspent."""
        name, size, least = f"batch/{uuid4().hex}", size + missing, needed + missing
        answer = await self.inner.reserve(name, [asked], want=size, least=least, ttl=TTL)
        if isinstance(answer, Refusal):
            return answer
        size = answer.output - missing
        return Batch(name, asked, size, answer.balances[0], time.monotonic())

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _retire(self, batch: Batch) -> None:
        """Hand a batch out no more; it is settled when its last call has ended."""
        key = (batch.demand.account, batch.demand.window)
        if self._batches.get(key) is batch:
            del self._batches[key]
            self._retired[batch.name] = batch
            self._settle_if_over(batch)

    def _settle_if_over(self, batch: Batch) -> None:
        if batch.name in self._retired and not batch.flying:
            self._later(self._settle_one(batch))

    def _give(self, pieces: Sequence[_Piece], used: int) -> None:
        """Give pieces back with what was used: each up to what it held, the last one the rest."""
        for piece in pieces:
            part = used if piece is pieces[-1] else min(used, piece.held)
            piece.batch.give(piece.held, part)
            used -= part
            self._settle_if_over(piece.batch)

    def _give_all(self, taken: Sequence[_Piece]) -> None:
        for piece in taken:
            self._give([piece], 0)

    def _look_after(self) -> None:
        if all(keeper.done() for keeper in self._keepers):  # none yet, or its loop has ended
            self._keepers = {asyncio.create_task(self._keep())}

    async def _keep(self) -> None:
        """Retire what is old, settle what has ended, renew what has not."""
        while True:
            await asyncio.sleep(self.max_age / 4)
            now = time.monotonic()
            for name in [name for name, call in self._calls.items() if call.due <= now]:
                await self.release(name)
            for batch in list(self._batches.values()):
                if now - batch.born >= self.max_age:
                    self._retire(batch)
            await self._settle_retired()
            if now - self._renewed > TTL / 3:
                self._renewed = now
                await self._renew_all()
            self._forget(now - MEMORY * self.max_age)

    def _forget(self, before: float) -> None:
        """Drop what is known of accounts that have no batch since ``before``."""
        for key, batch in list(self._last.items()):
            if batch.born < before and not self._locks[key].locked():
                del self._last[key], self._locks[key]

    async def _settle_retired(self, *, force: bool = False) -> None:
        for batch in list(self._retired.values()):
            if force or not batch.flying:
                await self._settle_one(batch)

    async def _settle_one(self, batch: Batch) -> None:
        """Tell the store what a batch used; kept for another attempt where it does not answer."""
        if batch.name in self._retired:
            with contextlib.suppress(StoreUnavailableError):
                await self.inner.settle(batch.name, [batch.spent])
                self._retired.pop(batch.name, None)

    async def _renew_all(self) -> None:
        for batch in [*self._batches.values(), *self._retired.values()]:
            try:
                await self.inner.renew(batch.name, ttl=TTL)
            except StoreUnavailableError:
                return

    def _balances(self, call: _Call) -> list[Balance]:
        return [pieces[-1].batch.balance for pieces in call.pieces]

    def _exceeded(self, call: _Call) -> tuple[int, ...]:
        standing = zip(call.demands, self._balances(call), strict=True)
        return tuple(
            which
            for which, (demand, balance) in enumerate(standing)
            if demand.soft and balance.used + balance.held > demand.capacity
        )
