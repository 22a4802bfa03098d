"""Batches: few store calls, never over, the unused comes back."""

from __future__ import annotations

import asyncio

import pytest

from streamguard.core.accounts import Demand, Grant, Refusal, Window
from streamguard.core.ledger import NOTHING
from streamguard.errors import ConfigurationError, StoreUnavailableError
from streamguard.stores import batching
from streamguard.stores.batching import BatchingStore
from streamguard.stores.memory import MemoryStore

MINUTE, SLOTS = Window(60), Window(None)


class Counted(MemoryStore):
    """A memory store that counts its calls and may be out of reach."""

    def __init__(self):
        super().__init__()
        self.calls = 0
        self.out = False

    def count(self):
        self.calls += 1
        if self.out:
            raise StoreUnavailableError("out")

    async def reserve(self, *words, **named):
        self.count()
        await asyncio.sleep(0)
        return await super().reserve(*words, **named)

    async def settle(self, *words):
        self.count()
        return await super().settle(*words)

    async def renew(self, *words, **named):
        self.count()
        return await super().renew(*words, **named)


def demand(account="a", capacity=1000, *, rate=1, fixed=10, window=MINUTE, soft=False):
    return Demand(account, capacity, window, fixed, rate, soft)


async def reserve(store, name, *demands, want=90, least=1, ttl=30.0):
    return await store.reserve(name, demands or [demand()], want=want, least=least, ttl=ttl)


def run(work, inner=None, *, max_age=0.05, close=True):
    async def go():
        below = inner or Counted()
        store = BatchingStore(below, max_age=max_age)
        await store.open()
        try:
            return await work(store, below)
        finally:
            if close:
                await store.close()

    return asyncio.run(go())


async def standing(store, *demands):
    return [(b.used, b.held) for b in await store.balances(demands or [demand()])]


def test_first_call_reserves_what_it_needs():
    async def work(store, inner):
        assert (await reserve(store, "1")).output == 90
        assert await standing(store) == [(0, 100)]
        assert [b.held for b in await store.settle("1", [60])] == [100]
        await store.close()
        assert await standing(inner) == [(60, 0)]
        await store.open()

    run(work)


def test_hot_account_costs_a_tenth_of_a_call_a_request():
    async def work(store, inner):
        big = demand(capacity=10_000_000)
        for number in range(1000):
            assert (await reserve(store, str(number), big)).output == 90
            await store.settle(str(number), [50])
        return inner.calls

    inner = Counted()
    assert run(work, inner, max_age=60) <= 100
    assert asyncio.run(standing(inner, demand(capacity=10_000_000))) == [(50_000, 0)]


def test_racers_of_several_workers_never_overshoot_and_leave_less_than_one_request():
    inner, capacity = MemoryStore(), 49_950

    async def worker(name):
        store = BatchingStore(inner, max_age=0.02)
        await store.open()
        spent = 0

        async def one(number):
            nonlocal spent
            for _ in range(20):
                decision = await reserve(
                    store, f"{name}/{number}", demand(capacity=capacity), least=90
                )
                if isinstance(decision, Grant):
                    await asyncio.sleep(0)
                    await store.settle(f"{name}/{number}", [100])
                    spent += 100
                    return
                await asyncio.sleep(0.01)

        await asyncio.gather(*(one(number) for number in range(150)))
        await store.close()
        return spent

    async def go():
        return sum(await asyncio.gather(*(worker(name) for name in range(4))))

    assert asyncio.run(go()) == 49_900
    assert asyncio.run(standing(inner, demand(capacity=capacity))) == [(49_900, 0)]


def test_grant_is_what_all_batches_have_and_a_refusal_gives_back():
    async def work(store, inner):
        demands = [demand("a"), demand("b", 70, rate=3), demand("s", 5, soft=True)]
        granted = await reserve(store, "1", *demands)
        assert (granted.output, granted.exceeded) == (20, (2,))
        refused = await reserve(store, "2", *demands)
        assert isinstance(refused, Refusal)
        assert (refused.which, refused.needed) == (1, 13)
        await store.release("1")
        assert (await reserve(store, "3", *demands)).output == 20
        await store.settle("3", [30, 70, 30])

    inner = Counted()
    run(work, inner)
    assert asyncio.run(standing(inner, demand("a"), demand("b", 70))) == [(30, 0), (70, 0)]


def test_extend_takes_more_pieces():
    async def work(store, inner):
        both = [demand(), demand("r", rate=0, fixed=1)]
        await reserve(store, "1", *both)
        assert (await store.extend("1", want=300, least=1, ttl=30)).output == 300
        assert (await store.extend("1", want=900, least=1, ttl=30)).output == 600
        assert isinstance(await store.extend("1", want=9, least=1, ttl=30), Refusal)
        await store.settle("1", [700, 1])
        assert await store.extend("1", want=9, least=1, ttl=30) == NOTHING

    inner = Counted()
    run(work, inner)
    assert asyncio.run(standing(inner, demand(), demand("r"))) == [(700, 0), (1, 0)]


def test_settle_over_what_was_held_is_charged_whole():
    async def work(store, inner):
        await reserve(store, "1")
        await store.settle("1", [950])
        assert isinstance(await reserve(store, "2", least=90), Refusal)

    inner = Counted()
    run(work, inner)
    assert asyncio.run(standing(inner)) == [(950, 0)]


def test_overspending_is_held_while_the_batch_has_other_calls():
    async def work(store, inner):
        await reserve(store, "0", want=20)
        await store.release("0")
        await reserve(store, "1", want=2)
        await reserve(store, "2", want=2)
        await store.settle("1", [500])
        refused = await reserve(store, "3", want=800, least=800)
        granted = await reserve(store, "4", want=300)
        await store.settle("2", [10])
        return refused, granted

    refused, granted = run(work)
    assert isinstance(refused, Refusal)
    assert granted.output == 300


def test_leftover_is_used_where_the_store_has_no_more():
    async def work(store, inner):
        await reserve(store, "1", want=990)
        await store.settle("1", [950])
        granted = await reserve(store, "2", want=90)
        await store.release("2")
        assert isinstance(await reserve(store, "3", want=90, least=90), Refusal)
        return granted.output

    assert run(work) == 40


def test_calls_that_wait_for_the_same_batch_share_it():
    async def work(store, inner):
        await reserve(store, "0", want=10)
        await store.settle("0", [20])
        await asyncio.sleep(0)
        inner.calls = 0
        granted = await asyncio.gather(*(reserve(store, str(n), want=1) for n in range(1, 4)))
        assert [g.output for g in granted] == [1, 1, 1]
        return inner.calls

    assert run(work, max_age=60) < 6


def test_refused_for_good_while_calls_hold_the_batch():
    async def work(store, inner):
        await reserve(store, "1", want=800)
        await reserve(store, "2", want=100)
        await store.settle("1", [5])
        refused = await reserve(store, "3", want=2000, least=2000)
        await store.release("2")
        return refused

    assert isinstance(run(work, max_age=60), Refusal)


def test_retiring_twice_changes_nothing():
    async def work(store, inner):
        await reserve(store, "1")
        batch = next(iter(store._batches.values()))
        store._retire(batch)
        store._retire(batch)
        assert list(store._retired) == [batch.name]
        await store.release("1")

    run(work)


def test_slots_are_handed_out_again():
    async def work(store, inner):
        one = demand("c", 1, fixed=1, rate=0, window=SLOTS)
        for name in "ab":
            assert isinstance(await reserve(store, name, one), Grant)
            assert isinstance(await reserve(store, "x", one), Refusal)
            await store.settle(name, [1])

    run(work)


def test_repeats_change_nothing():
    async def work(store, inner):
        first = await reserve(store, "1")
        assert (await reserve(store, "1")).output == first.output
        assert await store.renew("1", ttl=30)
        await store.settle("1", [10])
        assert await store.settle("1", [10]) == ()
        assert not await store.renew("1", ttl=30)
        await store.release("1")

    inner = Counted()
    run(work, inner)
    assert asyncio.run(standing(inner)) == [(10, 0)]


def test_old_batches_and_forgotten_calls_come_back():
    async def work(store, inner):
        await reserve(store, "1", ttl=0.01)
        await reserve(store, "2")
        await store.settle("2", [30])
        while await standing(inner) != [(30, 0)]:
            await asyncio.sleep(0.01)
        while store._locks or store._last:
            await asyncio.sleep(0.01)

    run(work, max_age=0.02)


def test_batches_are_renewed_while_calls_last(monkeypatch):
    monkeypatch.setattr(batching, "TTL", 0.2)

    async def work(store, inner):
        await reserve(store, "1")
        await asyncio.sleep(0.5)
        return await standing(inner)

    assert run(work) == [(0, 100)]


def test_store_out_of_reach():
    async def work(store, inner):
        big = [demand(), demand("b")]
        await reserve(store, "1", *big)
        await store.settle("1", [10, 10])
        inner.out = True
        with pytest.raises(StoreUnavailableError):
            await reserve(store, "2", demand(), demand("new"))
        await asyncio.sleep(0.1)
        monkey = batching.TTL
        batching.TTL = 0.0
        await asyncio.sleep(0.1)
        batching.TTL = monkey
        inner.out = False

    inner = Counted()
    run(work, inner)
    assert asyncio.run(standing(inner, demand(), demand("b"))) == [(10, 0), (10, 0)]


def test_two_demands_on_one_account_are_refused():
    async def work(store, inner):
        with pytest.raises(ConfigurationError):
            await reserve(store, "1", demand(), demand())

    run(work)


def test_close_without_open():
    asyncio.run(BatchingStore(MemoryStore()).close())
