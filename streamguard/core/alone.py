"""What a worker decides alone while the store is out of reach, and what it owes afterwards.

A limit is *closed* (refuse), *open* (grant without it), or has a local *share*: this worker may
go on with that part of what it last knew to remain. With ``n`` workers that each have a share
of ``1/n`` the outage spends no more than was last known to be left; a window that ends during
it gives the share again, and of a smooth rate each worker has its share. An account that was
never seen has nothing to share.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from msgspec import structs

from streamguard.core import ledger
from streamguard.core.accounts import MAX_CAPACITY, Balance, Decision, Demand, Grant, Window
from streamguard.core.books import Books, Key

FailPolicy = Literal["closed", "open"] | float
"""What to do without the store; a number is this worker's share, over 0 and up to 1."""

KNOWN = 100_000
"""Accounts whose last known balance is remembered."""


class Debt(NamedTuple):
    """What an account is still to be charged."""

    demand: Demand
    amount: int


class Alone:
    """The worker's own books for an outage."""

    def __init__(self, policy: Callable[[Demand], FailPolicy]) -> None:
        self.debts: dict[Key, Debt] = {}
        self._policy = policy
        self._left: dict[Key, int] = {}
        self._books = Books()
        self._demands: dict[str, Sequence[Demand]] = {}

    def learn(self, demands: Sequence[Demand], balances: Sequence[Balance]) -> None:
        """Remember what the store said is left."""
        for demand, balance in zip(demands, balances, strict=True):
            self._left.pop(key := _key(demand), None)
            self._left[key] = balance.remaining
        while len(self._left) > KNOWN:
            del self._left[next(iter(self._left))]

    def holds(self, reservation: str) -> bool:
        """Whether the reservation was granted here."""
        return reservation in self._demands

    def reserve(
        self,
        reservation: str,
        demands: Sequence[Demand],
        *,
        want: int,
        least: int,
        ttl: float,
        now: float,
    ) -> Decision | None:
        """Decide by the limits' policies; ``None`` when one is closed (or nothing is known)."""
        allowed = [self._allowance(demand) for demand in demands]
        if any(amount is None for amount in allowed):
            return None
        own = [
            demand._replace(capacity=amount or 0, window=self._window(demand))
            for demand, amount in zip(demands, allowed, strict=True)
        ]
        decision = ledger.reserve(
            self._books, reservation, own, want=want, least=least, ttl=ttl, now=now
        )
        if isinstance(decision, Grant):
            self._demands[reservation] = demands
        return decision

    def extend(
        self, reservation: str, *, want: int, least: int, ttl: float, now: float
    ) -> Decision:
        """See ``ledger.extend``."""
        return ledger.extend(self._books, reservation, want=want, least=least, ttl=ttl, now=now)

    def renew(self, reservation: str, *, ttl: float, now: float) -> bool:
        """See ``ledger.renew``."""
        return ledger.renew(self._books, reservation, ttl=ttl, now=now)

    def settle(
        self, reservation: str, amounts: Sequence[int], *, now: float, owed: bool = True
    ) -> Sequence[Balance]:
        """Charge the share, and owe it to the store unless that is charged in another way."""
        demands = self._demands.pop(reservation, ())
        if owed:
            for demand, amount in zip(demands, amounts, strict=True):
                self.owe(demand, amount)
        return ledger.settle(self._books, reservation, amounts, now=now)

    def release(self, reservation: str, *, now: float) -> None:
        """See ``ledger.release``."""
        self._demands.pop(reservation, None)
        ledger.release(self._books, reservation, now=now)

    def owe(self, demand: Demand, amount: int) -> None:
        """Add to what an account is still to be charged; holds alone are never owed."""
        if amount > 0 and demand.window.seconds is not None:
            before = self.debts.get(_key(demand), Debt(demand, 0)).amount
            self.debts[_key(demand)] = Debt(demand, before + amount)

    def take_debts(self) -> list[Debt]:
        """All debts, no longer kept here. The share stays spent until they are ``paid``."""
        debts, self.debts = list(self.debts.values()), {}
        return debts

    def paid(self) -> None:
        """All that was taken is charged: with no call under way the next outage starts anew."""
        if not self._demands:
            self._books = Books()

    def _window(self, demand: Demand) -> Window:
        """The demand's window, at this worker's share of its rate."""
        window, policy = demand.window, self._policy(demand)
        if not window.leak or demand.soft or isinstance(policy, str):
            return window
        return structs.replace(window, leak=max(1, int(window.leak * policy)))

    def _allowance(self, demand: Demand) -> int | None:
        policy = self._policy(demand)
        if demand.soft or policy == "open":
            return MAX_CAPACITY
        if policy == "closed":
            return None
        left = self._left.get(_key(demand))
        return None if left is None else int(left * float(policy))


def _key(demand: Demand) -> Key:
    return demand.account, demand.window
