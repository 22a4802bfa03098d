"""What a reservation asks of the ledger and what it answers: whole numbers only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import msgspec


class Window(msgspec.Struct, frozen=True, cache_hash=True):
    """How an account's usage ages.

    Attributes:
        seconds: the window's length. 0 is a calendar month; ``None`` is no window at all: only
            what is held counts (concurrency).
        calendar: starts at the clock's own boundary in ``timezone``; otherwise it slides.
        timezone: IANA name.
        leak: units that flow off each ``seconds``, evenly (smooth); 0 is no such window.
    """

    seconds: int | None
    calendar: bool = False
    timezone: str = "UTC"
    leak: int = 0


class Demand(NamedTuple):
    """What one call asks of one account (a limit for one combination of its scope).

    ``fixed`` must fit whole; ``rate`` is the amount per output token, so a grant of ``g``
    output tokens holds ``fixed + g * rate``. Amounts are in the limit's own unit (tokens,
    requests, nano-dollars). ``account`` is an ``account_key``.
    """

    account: str
    capacity: int
    window: Window
    fixed: int
    rate: int
    soft: bool = False


MAX_CAPACITY = 2**53
"""The largest capacity every store can compare exactly (nine million dollars)."""


def representable(demands: Sequence[Demand]) -> Sequence[Demand]:
    """The demands with no capacity over ``MAX_CAPACITY``: beyond it no call can matter."""
    if all(demand.capacity <= MAX_CAPACITY for demand in demands):
        return demands
    return [demand._replace(capacity=min(demand.capacity, MAX_CAPACITY)) for demand in demands]


class Balance(NamedTuple):
    """An account after an operation. ``resets_at`` is Unix seconds on the store's clock:
    when enough of the usage is released; if nothing lacks, its oldest part, or, of a smooth
    window, all of it.
    """

    capacity: int
    used: int
    held: int
    resets_at: float | None = None

    @property
    def remaining(self) -> int:
        """What is neither used nor held, never below 0."""
        return max(0, self.capacity - self.used - self.held)


class Grant(NamedTuple):
    """The reservation holds: ``output`` tokens may be produced. Balances follow the demands.

    ``exceeded`` are the indexes of soft demands that are over.
    """

    output: int
    balances: Sequence[Balance]
    exceeded: Sequence[int] = ()


class Refusal(NamedTuple):
    """Nothing was held: the demand at position ``which`` has too little left.

    When several lack, ``which`` is the one that takes longest. ``needed`` is what the demand
    had to hold at least. ``retry_after`` is seconds on the store's clock until it could fit,
    ``None`` when it never can.
    """

    which: int
    needed: int
    balance: Balance
    retry_after: float | None


Decision = Grant | Refusal


def account_key(limit: str, scope: Mapping[str, str | None], window: Window) -> str:
    """An account's name in every store: ``tag|limit|scope``, each part hashed.

    ``tag`` comes from the tenant (where the scope has one), so that all accounts of a tenant
    share a Redis Cluster slot. Tenant and user ids never appear in the clear. The window is
    part of the limit's hash: a limit that changes its window starts a new account.
    """
    values = sorted(scope.items())
    tag = [("tenant", scope["tenant"])] if "tenant" in scope else values
    return f"{_digest(repr(tag))}|{limit_key(limit, window)}|{_digest(repr(values))}"


def limit_key(limit: str, window: Window) -> str:
    """The part of an account's name that all accounts of a limit share."""
    parts = (window.seconds, window.calendar, window.timezone)
    return _digest(repr((limit, (*parts, window.leak) if window.leak else parts)))


def tenant_key(tenant: str) -> str:
    """How a tenant is called in what is kept, where its name shall not stand."""
    return _digest(f"tenant {tenant}")


def account_tag(account: str) -> str:
    """The part of an account's name that decides its Redis Cluster slot."""
    return account.partition("|")[0]


def account_limit(account: str) -> str:
    """The ``limit_key`` in an account's name."""
    return account.partition("|")[2].partition("|")[0]


@lru_cache(maxsize=16_384)
def _digest(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
