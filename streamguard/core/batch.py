"""A worker's own supply of one account: reserved up front in one piece, handed out in many.

A batch is one reservation of the store, so nothing is ever over; what it hands out needs no
store call. It is settled with what was really used when it is used up or old and its last call
has ended, which gives the rest back.
"""

from __future__ import annotations

from streamguard.core.accounts import Balance, Demand

GROWTH = 4
"""How much larger than the last one a batch may be."""

PART = 16
"""A batch takes at most this part of what remains: near the limit batches shrink to one call."""

MEMORY = 10
"""Ages after which the pace of an account is forgotten."""


class Batch:
    """What one batch has left to hand out, and what its calls used.

    Attributes:
        name: the reservation in the store.
        demand: what was asked of the store: ``rate`` 1, so that a grant is an amount.
        left: what is neither handed out nor used.
        spent: what ended calls used.
        flying: calls that hold a piece of it.
        born: when it was reserved, on any steady clock.
    """

    __slots__ = ("balance", "born", "demand", "flying", "left", "name", "size", "spent")

    def __init__(self, name: str, demand: Demand, size: int, balance: Balance, born: float) -> None:
        self.name = name
        self.demand = demand
        self.size = self.left = size
        self.balance = balance
        self.born = born
        self.spent = self.flying = 0

    def take(self, amount: int) -> None:
        """Hand a piece out."""
        self.left -= amount
        self.flying += 1

    def give(self, held: int, used: int) -> None:
        """A piece comes back with what was used of it, which may be more than it held."""
        self.flying -= 1
        if self.demand.window.seconds is not None:
            self.spent += used
            self.left += held - used
        else:
            self.left += held

    def next_size(self, needed: int, now: float, max_age: float) -> int:
        """What to ask for next: what ``max_age`` seconds take at the pace of this batch."""
        pace = (self.size - self.left) / max(now - self.born, 1e-6)
        wanted = min(self.size * GROWTH, int(pace * max_age))
        return max(needed, min(wanted, self.balance.remaining // PART))


def batch_demand(demand: Demand) -> Demand:
    """The demand a batch makes for calls that make this one."""
    return demand._replace(fixed=0, rate=1)
