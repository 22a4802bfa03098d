"""A store that fails: what each policy does meanwhile, and what is charged afterwards."""

from __future__ import annotations

import asyncio

import pytest
from support.redis_server import needs_redis, redis_server

from streamguard.core.accounts import Demand, Grant, Refusal, Window, account_key, limit_key
from streamguard.core.breaker import Breaker
from streamguard.core.ledger import NOTHING
from streamguard.errors import ConfigurationError, StoreUnavailableError
from streamguard.stores import open_store
from streamguard.stores.memory import MemoryStore
from streamguard.stores.policy import PolicyStore

MINUTE = Window(60)
FAST = {"threshold": 1, "cooldown": 0.01}


class Flaky(MemoryStore):
    """A memory store that may be out of reach, or may hang."""

    def __init__(self):
        super().__init__()
        self.out = self.hangs = False
        self.asked = 0

    async def reach(self):
        self.asked += 1
        if self.hangs:
            await asyncio.sleep(3600)
        if self.out:
            raise StoreUnavailableError("out")


def _reaching(name):
    real = getattr(MemoryStore, name)

    async def method(self, *words, **named):
        await self.reach()
        return await real(self, *words, **named)

    return method


for _name in ("open", "reserve", "extend", "renew", "settle", "release", "balances"):
    setattr(Flaky, _name, _reaching(_name))


def demand(name="tpm", capacity=1000):
    return Demand(account_key(name, {"tenant": "t"}, MINUTE), capacity, MINUTE, 10, 1)


async def reserve(store, name, *demands, want=100):
    return await store.reserve(name, demands or [demand()], want=want, least=1, ttl=30)


async def paid(store):
    while store.owes:
        await asyncio.sleep(0.005)


def run(work, **options):
    async def go():
        inner = Flaky()
        store = PolicyStore(inner, breaker=Breaker(**FAST), timeout=0.05, **options)
        await store.open()
        try:
            return await work(store, inner)
        finally:
            inner.out = inner.hangs = False
            await store.close()

    return asyncio.run(go())


async def used(inner, *demands):
    return [(b.used, b.held) for b in await MemoryStore.balances(inner, demands or [demand()])]


def test_store_that_works_is_passed_through():
    async def work(store, inner):
        assert (await reserve(store, "1")).output == 100
        assert (await store.extend("1", want=5, least=5, ttl=30)).output == 5
        assert await store.renew("1", ttl=30)
        assert (await store.settle("1", [50]))[0].used == 50
        assert await store.settle("unknown", [50]) == ()
        await reserve(store, "2")
        await store.release("2")
        assert (await store.balances([demand()]))[0].used == 50
        assert isinstance(await reserve(store, "3", demand(capacity=0)), Refusal)

    run(work)


def test_closed_refuses_and_the_breaker_spares_the_store():
    async def work(store, inner):
        store.breaker.cooldown = 60
        inner.out = True
        asked = inner.asked
        for match in ("out", "it rests", "it rests"):
            with pytest.raises(StoreUnavailableError, match=match):
                await reserve(store, "1")
        assert inner.asked == asked + 1

    run(work)


def test_store_that_hangs_is_given_up_after_the_timeout():
    async def work(store, inner):
        inner.hangs = True
        with pytest.raises(StoreUnavailableError, match=r"did not answer in 0.05 s"):
            await reserve(store, "1")

    run(work)


def test_open_grants_and_charges_afterwards():
    told = []

    async def work(store, inner):
        inner.out = True
        assert (await reserve(store, "1", demand(capacity=50))).output == 100
        assert (await store.extend("1", want=50, least=1, ttl=30)).output == 50
        assert await store.renew("1", ttl=30)
        assert (await store.settle("1", [120]))[0].used == 120
        await reserve(store, "2")
        await store.release("2")
        assert store.owes
        inner.out = False
        await paid(store)
        assert await used(inner) == [(120, 0)]

    run(work, policy="open", on_error=lambda name, error: told.append((name, str(error))))
    assert told[0] == ("reserve", "out")


def test_share_goes_on_with_its_part_of_what_was_left():
    async def work(store, inner):
        await reserve(store, "1")
        await store.settle("1", [200])
        inner.out = True
        granted = [await reserve(store, f"s{n}") for n in range(6)]
        assert [getattr(g, "output", None) for g in granted] == [100, 80, None, None, None, None]
        with pytest.raises(StoreUnavailableError):
            await reserve(store, "unseen", demand("other"))
        await store.settle("s0", [110])
        inner.out = False
        await paid(store)
        assert await used(inner) == [(310, 0)]

    run(work, policy=0.25)


def test_policies_differ_by_limit():
    async def work(store, inner):
        inner.out = True
        assert isinstance(await reserve(store, "1", demand("rpm")), Grant)
        with pytest.raises(StoreUnavailableError):
            await reserve(store, "2", demand("rpm"), demand("usd"))

    run(work, policies={limit_key("rpm", MINUTE): "open"})


def test_settle_and_release_of_held_calls_are_made_up_for():
    async def work(store, inner):
        await reserve(store, "1")
        await reserve(store, "2")
        inner.out = True
        assert await store.renew("1", ttl=30) is True
        assert await store.settle("1", [77]) == ()
        await store.release("2")
        assert await used(inner) == [(0, 220)]
        inner.out = False
        await paid(store)
        assert await used(inner) == [(77, 0)]

    run(work)


def test_extend_alone_takes_from_the_share_and_is_settled_with_the_call():
    async def work(store, inner):
        await reserve(store, "1")
        inner.out = True
        assert (await store.extend("1", want=400, least=1, ttl=30)).output == 400
        assert (await store.extend("1", want=400, least=1, ttl=30)).output == 45
        assert isinstance(await store.extend("1", want=400, least=1, ttl=30), Refusal)
        await store.settle("1", [500])
        assert isinstance(await reserve(store, "2"), Refusal)
        inner.out = False
        await paid(store)
        assert await used(inner) == [(500, 0)]

    run(work, policy=0.5)


def test_extend_of_a_closed_limit_is_refused():
    async def work(store, inner):
        await reserve(store, "1")
        inner.out = True
        assert await store.extend("1", want=4, least=1, ttl=30) == NOTHING

    run(work)


def test_close_pays_what_it_can():
    async def go():
        inner = Flaky()
        store = PolicyStore(inner, policy="open", breaker=Breaker(threshold=1, cooldown=0))
        await store.open()
        inner.out = True
        await reserve(store, "1")
        await store.settle("1", [40])
        await asyncio.sleep(0)
        inner.out = False
        await store.close()
        return await used(inner)

    assert asyncio.run(go()) == [(40, 0)]


@pytest.mark.parametrize(("policy", "opens"), [("closed", False), ("open", True), (0.5, True)])
def test_opening_without_the_store(policy, opens):
    async def go():
        inner = Flaky()
        inner.out = True
        store = PolicyStore(inner, policy=policy)
        if opens:
            await store.open()
        else:
            with pytest.raises(StoreUnavailableError):
                await store.open()

    asyncio.run(go())


@pytest.mark.parametrize("policy", ["shut", 0, 1.5, -1, None])
def test_unknown_policy(policy):
    with pytest.raises(ConfigurationError, match="fail policy"):
        PolicyStore(MemoryStore(), policy=policy)


async def slow(server):
    """Every answer of 300 ms takes that much longer."""
    for _ in range(3):
        with server.client() as client:
            client.client_pause(100)
        await asyncio.sleep(0.1)


async def flush(server):
    with server.client() as client:
        client.script_flush()
    await asyncio.sleep(0.1)


async def pause(server):
    server.pause()
    await asyncio.sleep(0.3)
    server.resume()


async def kill(server):
    server.kill()
    await asyncio.sleep(0.3)
    await asyncio.to_thread(server.start)


@needs_redis
@pytest.mark.parametrize("fault", [pause, kill, slow, flush])
def test_redis_lost_under_load_and_found_again(fault):
    """No call outlasts its time limit; afterwards the books hold exactly what was spent."""
    with redis_server("--appendonly", "yes", "--appendfsync", "always") as server:

        async def go():
            inner = open_store(f"{server.url}?timeout=0.3")
            store = PolicyStore(
                inner, policy="open", timeout=0.4, breaker=Breaker(threshold=2, cooldown=0.05)
            )
            await store.open()
            slowest = spent = 0.0
            loop = asyncio.get_running_loop()

            async def caller(name):
                nonlocal slowest, spent
                for number in range(12):
                    start = loop.time()
                    await reserve(store, f"{name}/{number}", demand(capacity=10**9))
                    slowest = max(slowest, loop.time() - start)
                    await store.settle(f"{name}/{number}", [50])
                    spent += 50
                    await asyncio.sleep(0.05)

            callers = [asyncio.create_task(caller(name)) for name in range(8)]
            await asyncio.sleep(0.2)
            await fault(server)
            await asyncio.gather(*callers)
            await paid(store)
            while inner._tasks:
                await asyncio.sleep(0.02)
            balance = (await store.balances([demand(capacity=10**9)]))[0]
            await store.close()
            return slowest, spent, balance

        slowest, spent, balance = asyncio.run(go())
    assert slowest < 5
    assert spent == 8 * 12 * 50
    assert (balance.used, balance.held) == (spent, 0)
