"""What a reservation asks of the ledger and what it answers: whole numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Window:
    """How an account's usage ages.

    Attributes:
        seconds: the window's length. 0 with ``calendar`` is a month; ``None`` is no window at
            all: only what is held counts (concurrency).
        calendar: starts at the clock's own boundary in ``timezone``; otherwise it slides.
        timezone: IANA name.
    """

    seconds: int | None
    calendar: bool = False
    timezone: str = "UTC"


class Demand(NamedTuple):
    """What one call asks of one account (a limit for one combination of its scope).

    ``fixed`` must fit whole; ``rate`` is the amount per output token, so a grant of ``g``
    output tokens holds ``fixed + g * rate``. Amounts are in the limit's own unit (tokens,
    requests, nano-dollars).
    """

    account: str
    capacity: int
    window: Window
    fixed: int
    rate: int
    soft: bool = False


class Balance(NamedTuple):
    """An account after an operation. ``resets_at`` is Unix seconds on the store's clock:
    when enough (or, if nothing lacks, the oldest part) of the usage is released.
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

    ``needed`` is what the demand had to hold at least. ``retry_after`` is seconds on the
    store's clock until it could fit, ``None`` when it never can.
    """

    which: int
    needed: int
    balance: Balance
    retry_after: float | None


Decision = Grant | Refusal
