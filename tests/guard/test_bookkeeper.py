"""A store that is slow, out of reach or cancelled: nothing is lost, nothing stays held."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from streamguard import Guard, Identity, Limit, StoreUnavailableError, Usage
from streamguard.core.billing import Spent
from streamguard.guard import bookkeeper
from streamguard.sinks.memory import ListSink
from streamguard.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio

BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
LIMIT = Limit(tokens=1_000, per="hour", name="w")
DONE = Spent("completed", Usage(output_tokens=4))


class Flaky(MemoryStore):
    """The memory store behind a line that fails or hangs as often as told."""

    def __init__(self) -> None:
        super().__init__()
        self.fail: dict[str, int] = {}
        self.hang: dict[str, int] = {}
        self.after = False
        self.asked: list[str] = []

    async def _line(self, name: str) -> None:
        self.asked.append(name)
        if self.hang.get(name, 0) > 0:
            self.hang[name] -= 1
            await asyncio.sleep(60)
        if self.fail.get(name, 0) > 0:
            self.fail[name] -= 1
            raise StoreUnavailableError("the store is out of reach")

    async def reserve(self, *args: Any, **kwargs: Any) -> Any:
        if not self.after:
            await self._line("reserve")
        answer = await super().reserve(*args, **kwargs)
        if self.after:
            await self._line("reserve")
        return answer

    async def settle(self, *args: Any) -> Any:
        await self._line("settle")
        return await super().settle(*args)

    async def release(self, *args: Any) -> None:
        await self._line("release")
        await super().release(*args)

    async def renew(self, *args: Any, **kwargs: Any) -> Any:
        await self._line("renew")
        return await super().renew(*args, **kwargs)


class Case:
    def __init__(self, **settings: Any) -> None:
        self.store = Flaky()
        self.sink = ListSink()
        self.guard = Guard([LIMIT], store=self.store, sinks=[self.sink], **settings)

    async def begin(self) -> Any:
        subject = await self.guard.subject(BODY, path="/v1/chat/completions", identity=Identity())
        return await self.guard.begin(subject)

    async def balance(self) -> Any:
        return (await self.guard.preflight(BODY)).balances["w"]

    @property
    def events(self) -> list[str]:
        return [event.event for event in self.sink.events]


@pytest.fixture
async def case() -> Any:
    case = Case()
    async with case.guard:
        yield case


async def test_reserve_fails_closed(case):
    case.store.fail = {"reserve": 1, "release": 1}
    with pytest.raises(StoreUnavailableError):
        await case.begin()
    assert case.events == ["store_error", "refused"]
    assert case.sink.events[-1].status == 503


async def test_a_store_that_hangs_is_given_up_after_the_timeout():
    case = Case(store_timeout=0.02)
    async with case.guard:
        case.store.hang = {"reserve": 1}
        with pytest.raises(StoreUnavailableError, match="within 0.02 s"):
            await case.begin()


async def test_a_reserve_of_unknown_outcome_is_released():
    case = Case(store_timeout=0.02)
    case.store.after = True
    async with case.guard:
        case.store.hang = {"reserve": 1}
        with pytest.raises(StoreUnavailableError):
            await case.begin()
        while "release" not in case.store.asked:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (await case.balance()).held == 0


async def test_a_reserve_that_is_cancelled_is_released(case):
    case.store.after = True
    case.store.hang = {"reserve": 1}
    with anyio.move_on_after(0.02):
        await case.begin()
    while "release" not in case.store.asked:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (await case.balance()).held == 0


async def test_a_settle_is_tried_again_until_it_is_in_the_books(case):
    call = await case.begin()
    case.store.fail = {"settle": 3}
    await call.finish(DONE)
    assert (await case.balance()).used == 0
    while case.store.fail["settle"] or (await case.balance()).used == 0:
        await asyncio.sleep(0.01)
    assert (await case.balance()).used == call.assessment.input_tokens + 4
    assert case.events.count("store_error") == 3


async def test_a_settle_is_given_up_after_enough_tries_and_told_each_time(case, monkeypatch):
    monkeypatch.setattr(bookkeeper, "SETTLE_ATTEMPTS", 2)
    call = await case.begin()
    case.store.fail = {"settle": 9}
    await call.finish(DONE)
    await case.guard.books.close()  # waits for the tries
    assert case.store.asked.count("settle") == 1 + 2
    assert case.events.count("store_error") == 3


async def test_closing_waits_for_settles_under_way():
    case = Case()
    async with case.guard:
        call = await case.begin()
        case.store.fail = {"settle": 1}
        await call.finish(DONE)
    assert case.store.asked.count("settle") == 2


async def test_a_settle_survives_the_cancellation_of_its_task(case):
    call = await case.begin()
    task = asyncio.ensure_future(call.finish(DONE))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    while (await case.balance()).held:
        await asyncio.sleep(0)
    assert (await case.balance()).used == call.assessment.input_tokens + 4
    assert "settled" in case.events


async def test_a_second_finish_changes_nothing(case):
    call = await case.begin()
    usage = await call.finish(DONE)
    assert usage.output_tokens == 4
    assert await call.finish(Spent("cancelled", Usage(output_tokens=9))) == usage
    assert case.store.asked.count("settle") == 1
    assert case.events.count("settled") == 1


async def test_a_long_call_keeps_its_hold():
    case = Case(hold_ttl=0.6)
    async with case.guard:
        call = await case.begin()
        case.store.fail = {"renew": 1}
        while case.store.asked.count("renew") < 4:
            await asyncio.sleep(0.005)
        assert (await case.balance()).held > 0
        await call.finish(DONE)
        asked = case.store.asked.count("renew")
        await asyncio.sleep(0.05)
        assert case.store.asked.count("renew") == asked


async def test_a_dropped_call_gives_its_hold_back():
    case = Case(hold_ttl=0.03)
    async with case.guard:
        await case.begin()
        while (await case.balance()).held:
            await asyncio.sleep(0.005)


async def test_calls_without_windows_ask_no_store():
    store = Flaky()
    async with Guard(store=store, sinks=[]) as guard:
        subject = await guard.subject(BODY, path="/v1/chat/completions")
        call = await guard.begin(subject)
        await call.finish(DONE)
    assert store.asked == []


async def test_closing_does_not_wait_for_what_has_ended():
    case = Case()
    async with case.guard:
        ended = case.guard.books.in_background(asyncio.sleep(0))
        while not ended.done():
            await asyncio.sleep(0)
        case.guard.books._tasks.add(ended)  # as where its callback has not run yet
    assert not case.guard.books._tasks
