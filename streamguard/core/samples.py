"""The latest figures by tenant and key, and their quantiles; bounded in memory. Pure.

Each tenant has room of its own: whatever one of them sends, what was learnt of another stays as
it is. Only when there are too many tenants is the one that was longest unseen forgotten.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

Number = TypeVar("Number", bound=float)


class Sample(Generic[Number]):
    """The latest figures of one key, in order of arrival and of size."""

    __slots__ = ("latest", "sorted")

    def __init__(self, size: int) -> None:
        """Keep the latest ``size``."""
        self.latest: deque[Number] = deque(maxlen=size)
        self.sorted: list[Number] = []

    def __len__(self) -> int:
        """How many there are."""
        return len(self.sorted)

    def add(self, figure: Number) -> None:
        """Take one more; the oldest goes where there is no room."""
        if len(self.latest) == self.latest.maxlen:
            del self.sorted[bisect_left(self.sorted, self.latest[0])]
        self.latest.append(figure)
        insort(self.sorted, figure)


class Room(NamedTuple):
    """How much is kept: tenants, keys of each, latest figures of each key."""

    tenants: int
    keys: int
    size: int


class Samples(Generic[Number]):
    """Samples by tenant and key."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._tenants: OrderedDict[str, OrderedDict[str, Sample[Number]]] = OrderedDict()

    def add(self, tenant: str, key: str, figure: Number) -> None:
        """Note a figure; what was longest unseen goes where there is no room."""
        none: OrderedDict[str, Sample[Number]] = OrderedDict()
        own = latest(self._tenants, tenant, none, self._room.tenants)
        latest(own, key, Sample(self._room.size), self._room.keys).add(figure)

    def get(self, tenant: str, key: str) -> Sample[Number] | None:
        """What is known of a tenant's key."""
        own = self._tenants.get(tenant)
        return None if own is None else own.get(key)

    def of(self, tenant: str) -> dict[str, Sample[Number]]:
        """All that is known of a tenant."""
        return dict(self._tenants.get(tenant) or ())

    def __iter__(self) -> Iterator[str]:
        """The tenants, the one seen last at the end."""
        return iter(self._tenants)


Value = TypeVar("Value")


def latest(held: OrderedDict[str, Value], key: str, new: Value, most: int) -> Value:
    """The value of a key, ``new`` where it had none; beyond ``most`` the longest unseen goes."""
    found = held.setdefault(key, new)
    held.move_to_end(key)
    if len(held) > most:
        held.popitem(last=False)
    return found
