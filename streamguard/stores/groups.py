"""A call's demands by the Redis Cluster slot of their accounts, and the slots' answers as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamguard.core.accounts import Balance, Demand, Grant, Refusal, account_tag
from streamguard.core.ledger import NOTHING
from streamguard.stores.scripts import Row, account_keys, window_row

Rows = Sequence[Sequence[int]]
"""Used, held and reset (milliseconds, 0 for none) of each demand in a group."""


class Group:
    """Demands whose accounts live in one slot: one script call."""

    __slots__ = ("demands", "keys", "places", "tag")

    def __init__(self, tag: str, places: Sequence[int], demands: Sequence[Demand]) -> None:
        self.tag = tag
        self.places = places
        self.demands = demands
        self.keys = [key for d in demands for key in account_keys(d.account, d.window)]

    def rows(self, at: int) -> list[Row]:
        """The demands as the scripts read them; ``at`` is about the server's time."""
        return [
            [d.capacity, d.fixed, d.rate, d.soft, *window_row(d.window, at)] for d in self.demands
        ]


def groups(demands: Sequence[Demand], *, apart: bool) -> list[Group]:
    """One group, or (Redis Cluster, ``apart``) one for each tag."""
    if not apart or not demands:
        return [Group("", range(len(demands)), demands)]
    by_tag: dict[str, list[int]] = {}
    for place, demand in enumerate(demands):
        by_tag.setdefault(account_tag(demand.account), []).append(place)
    return [
        Group(tag, places, [demands[place] for place in places]) for tag, places in by_tag.items()
    ]


class Call:
    """What this process knows of a reservation: where its accounts are, and what it may spend."""

    __slots__ = ("groups", "output", "size")

    def __init__(self, parts: list[Group], size: int, output: int = 0) -> None:
        self.groups = parts
        self.size = size
        self.output = output


def _balance(demand: Demand, row: Sequence[int]) -> Balance:
    return Balance(demand.capacity, row[0], row[1], row[2] / 1000 if row[2] else None)


def merge(call: Call, rows: Sequence[Rows]) -> list[Balance]:
    """The groups' balances in the order of the demands."""
    found: dict[int, Balance] = {}
    for part, group_rows in zip(call.groups, rows, strict=True):
        for place, demand, row in zip(part.places, part.demands, group_rows, strict=True):
            found[place] = _balance(demand, row)
    return [found[place] for place in range(call.size)]


def grant(call: Call, output: int, rows: Sequence[Rows]) -> Grant:
    """The grant of all groups together."""
    standing = merge(call, rows)
    soft = sorted(
        place
        for part in call.groups
        for place, demand in zip(part.places, part.demands, strict=True)
        if demand.soft and standing[place].used + standing[place].held > demand.capacity
    )
    return Grant(output, standing, tuple(soft))


def refusal(part: Group, answer: Sequence[Any]) -> Refusal:
    """A group's refusal, its demand named by its place in the call."""
    if answer[0] == "nothing":
        return NOTHING
    _, which, needed, row, wait = answer
    balance = _balance(part.demands[which], row)
    return Refusal(part.places[which], needed, balance, None if wait < 0 else wait / 1000)


def patience(refusal: Refusal) -> tuple[float, int]:
    """How long a refusal asks to wait, for ever when waiting does not help; then the first
    demand goes before, as in the ledger.
    """
    wait = float("inf") if refusal.retry_after is None else refusal.retry_after
    return wait, -refusal.which
