"""What the guard does while its store is out of reach, limit by limit."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from streamguard import (
    ConfigurationError,
    Guard,
    Limit,
    StoreUnavailableError,
    Usage,
    WindowBudgetExceededError,
)
from streamguard.core.billing import Spent
from streamguard.sinks.memory import ListSink
from streamguard.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 92}


class Line(MemoryStore):
    """The memory store behind a line that can be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False

    async def _through(self) -> None:
        if self.down:
            raise StoreUnavailableError("the line is cut")

    async def reserve(self, *args: Any, **kwargs: Any) -> Any:
        await self._through()
        return await super().reserve(*args, **kwargs)

    async def settle(self, *args: Any) -> Any:
        await self._through()
        return await super().settle(*args)

    async def release(self, *args: Any) -> None:
        await self._through()
        await super().release(*args)


async def call(guard: Guard) -> None:
    running = await guard.begin(await guard.subject(BODY, path="/v1/chat/completions"))
    await running.finish(Spent("completed", Usage(output_tokens=running.allowance)))


async def used(guard: Guard) -> int | None:
    try:
        return (await guard.preflight(BODY)).balances["w"].used
    except StoreUnavailableError:  # the breaker rests
        return None


async def outage(limit: Limit, **settings: Any) -> tuple[int, int | None, list[str]]:
    """Calls that went through with the store away, what is charged when it is back, events."""
    store, sink = Line(), ListSink()
    async with Guard([limit], store=store, sinks=[sink], **settings) as guard:
        await call(guard)
        store.down = True
        through = 0
        try:
            for _ in range(30):
                await call(guard)
                through += 1
        except (StoreUnavailableError, WindowBudgetExceededError):
            pass
        store.down = False
        while guard.books.owes or await used(guard) is None:
            await asyncio.sleep(0.02)
        return through, await used(guard), [event.event for event in sink.events]


async def test_closed_is_the_default():
    through, charged, events = await outage(Limit(tokens=10_000, per="hour", name="w"))
    assert (through, charged) == (0, 100)
    assert "store_error" in events


async def test_open_lets_all_through_and_charges_them_when_the_store_is_back():
    limit = Limit(tokens=10_000, per="hour", name="w")
    through, charged, _ = await outage(limit, store_policy="open")
    assert (through, charged) == (30, 3_100)


async def test_a_share_of_what_was_left_and_no_more():
    limit = Limit(tokens=10_000, per="hour", name="w", fail=0.1)
    through, charged, _ = await outage(limit)
    # A tenth of the 9,900 left after the first call: the tenth call is cut to what is left.
    assert (through, charged) == (10, 100 + 990)


async def test_a_limits_own_policy_comes_first():
    limit = Limit(tokens=10_000, per="hour", name="w", fail="closed")
    assert (await outage(limit, store_policy="open"))[0] == 0


@pytest.mark.parametrize("policy", ["ajar", 0, 2.0])
def test_policies_that_are_none(policy):
    with pytest.raises(ConfigurationError):
        Guard([Limit(tokens=1, per="hour", fail=policy)])
    with pytest.raises(ConfigurationError):
        Guard(store_policy=policy)
