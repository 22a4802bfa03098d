"""What the guard asks of a budget store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from streamguard.core.accounts import Balance, Decision, Demand


class Store(Protocol):
    """Holds the books. Every call is idempotent by reservation id and all-or-nothing.

    Each raises ``StoreUnavailableError`` when the store is out of reach or too slow.
    """

    async def open(self) -> None:
        """Connect and prepare; called once by the guard."""

    async def close(self) -> None:
        """Give back connections and unused batches."""

    async def reserve(
        self, reservation: str, demands: Sequence[Demand], *, want: int, least: int, ttl: float
    ) -> Decision:
        """Hold ``fixed + g * rate`` of every demand for the largest ``g`` in least..want.

        The hold comes back by itself after ``ttl`` seconds without a ``renew``.
        """

    async def extend(self, reservation: str, *, want: int, least: int, ttl: float) -> Decision:
        """Hold up to ``want`` more output tokens for a reservation that is held already."""

    async def renew(self, reservation: str, *, ttl: float) -> bool:
        """Heartbeat; False when the reservation is no longer held."""

    async def settle(self, reservation: str, amounts: Sequence[int]) -> Sequence[Balance]:
        """Replace the hold by what was used, per demand. A late settle still charges; a
        second one changes nothing.
        """

    async def release(self, reservation: str) -> None:
        """Give the whole hold back; unknown ids are fine."""

    async def balances(self, demands: Sequence[Demand]) -> Sequence[Balance]:
        """The accounts as they stand, without changing them."""
