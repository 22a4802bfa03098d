"""``guard.preflight`` tells what ``begin`` would answer, and holds nothing."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamguard import Guard, Limit, StoreUnavailableError, WindowBudgetExceededError
from streamguard.core.accounts import Refusal
from streamguard.core.outlook import outlook
from streamguard.guard.preflight import assess
from streamguard.guard.refusals import Refusals
from streamguard.sinks.memory import ListSink
from streamguard.stores.memory import MemoryStore

pytestmark = pytest.mark.anyio
PATH = "/v1/chat/completions"


def body(**more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "hi"}]  # 8 tokens
    return {"model": "gpt-4o", "messages": messages, "max_tokens": 50, **more}


async def begin(guard: Guard, request: dict[str, Any]) -> Any:
    return await guard.begin(await guard.subject(request, path=PATH))


async def test_an_exhausted_window_refuses_with_the_figures_that_begin_gives():
    async with Guard([Limit(tokens=60, per="hour", name="w")], sinks=[]) as guard:
        await begin(guard, body(max_tokens=45))
        with pytest.raises(WindowBudgetExceededError) as told:
            await guard.preflight(body())
        with pytest.raises(WindowBudgetExceededError) as refused:
            await begin(guard, body())
    for name in ("limit", "used", "requested", "limit_name", "unit"):
        assert getattr(told.value, name) == getattr(refused.value, name)
    assert told.value.retry_after is not None


async def test_a_soft_limit_refuses_nothing():
    async with Guard([Limit(tokens=5, per="hour", name="w", soft=True)], sinks=[]) as guard:
        assert (await guard.preflight(body())).output_limit == 50


@given(
    limits=st.lists(st.integers(1, 120), min_size=1, max_size=3),
    before=st.lists(st.integers(1, 60), max_size=3),
    cap=st.integers(1, 60),
    soft=st.booleans(),
)
def test_it_is_what_begin_answers(limits, before, cap, soft):
    """Whatever is held already: the same output, or the same refusal by the same limit."""
    kinds = [Limit(tokens=most, per="hour", name=f"w{at}") for at, most in enumerate(limits)]
    if soft:
        kinds.append(Limit(output_tokens=1, per="hour", name="soft", soft=True))

    async def go() -> None:
        async with Guard(kinds, sinks=[], adaptive_reserve=False) as guard:
            for earlier in before:
                with contextlib.suppress(WindowBudgetExceededError):
                    await begin(guard, body(max_tokens=earlier))
            try:
                foreseen: Any = (await guard.preflight(body(max_tokens=cap))).output_limit
            except WindowBudgetExceededError as error:
                foreseen = error.limit_name
            try:
                answered: Any = (await begin(guard, body(max_tokens=cap))).ceiling
            except WindowBudgetExceededError as error:
                answered = error.limit_name
            assert foreseen == answered

    asyncio.run(go())


async def test_what_can_never_fit_is_told_without_a_time():
    async with Guard([Limit(tokens=60, per="hour", name="w")], sinks=[]) as guard:
        subject = await guard.subject(body(), path=PATH)
        terms = (await assess(guard, subject)).terms
        (balance,) = await guard.books.balances(terms.demands)
        small = balance._replace(capacity=5, used=0, held=0)
    found = outlook(terms, [small], now=0.0)
    assert isinstance(found, Refusal)
    assert found.retry_after is None


async def test_a_window_that_is_exhausted_is_not_remembered_as_oversized():
    async with Guard([Limit(tokens=60, per="hour")], sinks=[]) as guard:
        refusals = Refusals()
        subject = await guard.subject(body(), path=PATH)
        error = WindowBudgetExceededError("none left")
        refusals.remember(body(), error, (), "gpt-4o", subject.identity)
        refusals.check(subject, ())


async def test_a_sink_that_cannot_close_stops_no_other():
    class Failing(ListSink):
        async def close(self) -> None:
            raise OSError("disk full")

    class Closing(ListSink):
        closed = False

        async def close(self) -> None:
            self.closed = True

    last = Closing()
    guard = Guard(sinks=[Failing(), last])
    async with guard:
        pass
    assert last.closed
    assert guard.teller.failures == 1


async def test_whether_the_store_can_be_reached():
    class Away(MemoryStore):
        async def balances(self, demands: Any) -> Any:
            raise StoreUnavailableError("away")

    async with Guard(sinks=[]) as here, Guard(store=Away(), sinks=[]) as away:
        assert await here.books.reachable()
        assert not await away.books.reachable()


async def test_many_calls_at_once_open_a_guard_once():
    class Counting(ListSink):
        opened = 0

        async def open(self) -> None:
            self.opened += 1
            await asyncio.sleep(0.01)

    sink = Counting()
    guard = Guard(sinks=[sink])
    await asyncio.gather(*(guard.open() for _ in range(5)))
    assert sink.opened == 1
    await guard.close()
