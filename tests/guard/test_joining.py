"""Calls made inside a guarded request: charged once, whatever is made of them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import pytest

from streamguard import Catalog, Guard, Identity, Limit, Usage, WindowBudgetExceededError
from streamguard.core.billing import Spent
from streamguard.guard.context import current_call
from streamguard.sinks.memory import ListSink

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
LIMIT = Limit(tokens=1_000, per="hour", name="w")
REQUESTS = Limit(requests=10, per="hour", name="r")


def body(content: str = "hi", cap: int = 100) -> dict[str, Any]:
    messages = [{"role": "user", "content": content}]
    return {"model": "gpt-4o", "messages": messages, "max_tokens": cap}


@contextmanager
def inside(call: Any) -> Any:
    token = current_call.set(call)
    try:
        yield
    finally:
        current_call.reset(token)


class Case:
    def __init__(self, guard: Guard) -> None:
        self.guard = guard

    async def begin(self, request: dict[str, Any]) -> Any:
        subject = await self.guard.subject(request, path=PATH, identity=Identity("acme"))
        return await self.guard.begin(subject)

    async def balance(self, name: str = "w") -> Any:
        return (await self.guard.preflight(body())).balances[name]


@pytest.fixture
async def case() -> Any:
    async with Guard([LIMIT, REQUESTS], sinks=[ListSink()]) as guard:
        yield Case(guard)


def spent(output: int, given: int | None = None, outcome: str = "completed") -> Spent:
    return Spent(outcome, Usage(output_tokens=output), Usage(input_tokens=given))


@pytest.mark.parametrize("outer_searches", [False, True])
async def test_a_search_that_the_call_inside_makes_is_held_and_charged_once(outer_searches):
    money, cent = Limit(cost="1.00", per="hour", name="money"), 10_000_000
    large = Limit(tokens=200_000, per="hour", name="w")
    searches_cost = Catalog({"gpt-4o": {"input_price": "0", "output_price": "0"}})
    async with Guard([money, large], sinks=[], catalog=searches_cost) as guard:

        async def begin(words: int, *, searches: bool) -> Any:
            more = {"web_search_options": {"search_context_size": "low"}} if searches else {}
            request = {**body("word " * words), **more}
            return await guard.begin(await guard.subject(request, path=PATH))

        async def cents() -> int:
            (balance,) = await guard.books.balances(outer.assessment.terms.demands[:1])
            return (balance.held + balance.used) // cent

        outer = await begin(30_000, searches=outer_searches)
        assert await cents() == outer_searches
        with inside(outer):
            inner = await begin(1, searches=True)
            assert await cents() == 1
            assert [limit.name for limit in inner.assessment.terms.limits] == (
                [] if outer_searches else ["money"]
            )
            await inner.finish(Spent("completed", Usage(1, 1), Usage(1, 1)))
        await outer.finish(Spent("completed", Usage(1, 1), Usage(1, 1)))
        assert await cents() == 1


async def test_the_same_call_inside_is_charged_once(case):
    outer = await case.begin(body())
    given = outer.assessment.input_tokens
    with inside(outer):
        inner = await case.begin(body())
        assert inner.allowance == outer.allowance == 100
        assert (await case.balance()).held == given + 100
        await inner.finish(spent(40))
    await outer.finish(spent(40))
    balance = await case.balance()
    assert (balance.used, balance.held) == (given + 40, 0)
    assert (await case.balance("r")).used == 1


async def test_an_inner_call_is_held_to_the_outer_allowance(case):
    outer = await case.begin(body(cap=30))
    with inside(outer):
        inner = await case.begin(body(cap=100))
        assert inner.allowance == 30
        assert inner.body["max_tokens"] == 30
        await inner.finish(spent(30))
    await outer.finish(spent(30))


async def test_a_longer_prompt_inside_reserves_the_difference(case):
    outer = await case.begin(body())
    with inside(outer):
        inner = await case.begin(body("word " * 200))
        assert 1_000 - (await case.balance()).remaining == inner.assessment.input_tokens + 100
        await inner.finish(spent(10))
    await outer.finish(spent(10))
    balance = await case.balance()
    assert (balance.used, balance.held) == (inner.assessment.input_tokens + 10, 0)
    assert (await case.balance("r")).used == 1


async def test_an_agents_further_steps_reserve_what_is_lacking(case):
    outer = await case.begin(body())
    given = outer.assessment.input_tokens
    with inside(outer):
        for _ in range(3):
            step = await case.begin(body())
            assert step.allowance == 100
            await step.finish(spent(80))
    await outer.finish(spent(80))
    balance = await case.balance()
    assert (balance.used, balance.held) == (3 * (given + 80), 0)


async def test_a_step_that_cannot_be_paid_for_is_refused_and_leaves_the_fund_whole(case):
    outer = await case.begin(body(cap=600))
    with inside(outer):
        first = await case.begin(body(cap=600))
        await first.finish(spent(600))
        left = outer.fund.left
        with pytest.raises(WindowBudgetExceededError):
            await case.begin(body("word " * 400, cap=300))
        assert outer.fund.left == left
    await outer.finish(spent(600))
    assert (await case.balance()).held == 0


async def test_what_the_provider_billed_inside_is_what_the_outer_call_costs(case):
    outer = await case.begin(body())
    with inside(outer):
        inner = await case.begin(body())
        await inner.finish(spent(20, given=5))
    await outer.finish(Spent("error_response", billed=False))
    assert (await case.balance()).used == 25


async def test_an_inner_call_still_open_is_charged_in_full(case):
    outer = await case.begin(body())
    given = outer.assessment.input_tokens
    with inside(outer):
        inner = await case.begin(body())
    await outer.finish(spent(10))
    assert (await case.balance()).used == given + 100
    await inner.finish(spent(10))
    assert (await case.balance()).used == given + 100


async def test_after_its_end_nothing_joins_the_outer_call(case):
    outer = await case.begin(body())
    await outer.finish(spent(10))
    used = (await case.balance()).used
    with inside(outer):
        later = await case.begin(body())
        await later.finish(spent(10))
    assert (await case.balance()).used == 2 * used
