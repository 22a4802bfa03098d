"""Notes: what a guard learns and wants to find again, beside the budgets. Optional for a store.

A note is a few bytes under a name; the last writer wins. Losing one loses no money.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from streamguard.stores.base import Store


@runtime_checkable
class Notes(Protocol):
    """A store that keeps notes. Each call raises ``StoreUnavailableError`` as a store's do."""

    async def note(self, name: str, value: bytes) -> None:
        """Keep ``value`` under ``name`` instead of what was there."""

    async def noted(self, name: str) -> bytes | None:
        """What is kept under ``name``; ``None`` when nothing is."""


async def note(store: Store, name: str, value: bytes) -> None:
    """Keep a note where the store can; elsewhere nothing happens."""
    if isinstance(store, Notes):
        await store.note(name, value)


async def noted(store: Store, name: str) -> bytes | None:
    """A note of the store; ``None`` when there is none or it keeps none."""
    return await store.noted(name) if isinstance(store, Notes) else None
