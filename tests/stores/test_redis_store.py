"""The Redis store's own duties: clocks, scripts, unknown outcomes, slots, URLs."""

from __future__ import annotations

import asyncio
import time

import pytest
from support.redis_server import needs_redis, redis_cluster, redis_server

from streamguard.core.accounts import Demand, Grant, Refusal, Window, account_key
from streamguard.core.ledger import NOTHING
from streamguard.errors import ConfigurationError, StoreUnavailableError
from streamguard.stores import open_store, redis, scripts

pytestmark = needs_redis
MINUTE, DAY, SLOTS = Window(60), Window(86_400, calendar=True), Window(None)


@pytest.fixture(scope="module")
def server():
    with redis_server() as running:
        yield running


@pytest.fixture(scope="module")
def cluster():
    with redis_cluster() as running:
        yield f"redis+cluster://127.0.0.1:{running[1].port}?timeout=5"


def demand(name, capacity=1000, *, window=MINUTE, fixed=10, rate=1, tenant=None, soft=False):
    scope = {"tenant": tenant} if tenant else {"user": name}
    return Demand(account_key(name, scope, window), capacity, window, fixed, rate, soft)


def with_store(url, work, **changes):
    """Run ``work(store)`` on a new store of this URL."""

    async def go():
        store = open_store(url)
        for name, value in changes.items():
            setattr(store, name, value)
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(go())


async def reserve(store, name, *demands, want=100, least=1, ttl=30.0):
    return await store.reserve(name, demands, want=want, least=least, ttl=ttl)


async def standing(store, *demands):
    return [(b.used, b.held) for b in await store.balances(demands)]


def test_holds_expire_by_the_servers_clock(server):
    async def work(store):
        wanted = demand("expire")
        await reserve(store, "expire", wanted, ttl=0.05)
        held = await standing(store, wanted)
        await asyncio.sleep(0.08)
        return held, await standing(store, wanted)

    assert with_store(server.url, work) == ([(0, 110)], [(0, 0)])


def test_windows_end_by_the_servers_clock(server):
    async def work(store):
        wanted = [demand("reset"), demand("reset", window=DAY), demand("reset", window=SLOTS)]
        await reserve(store, "reset", *wanted)
        return await store.settle("reset", [5, 5, 5])

    minute, day, slots = with_store(server.url, work)
    assert 58 < minute.resets_at - time.time() <= 62
    assert day.resets_at % 86_400 == 0
    assert 0 < day.resets_at - time.time() <= 86_400
    assert (slots.used, slots.held, slots.resets_at) == (0, 0, None)


def test_calendar_follows_the_server_when_this_clock_is_wrong(server, monkeypatch):
    true = time.time
    monkeypatch.setattr(redis.time, "time", lambda: true() - 40 * 86_400)
    scripts._tables.clear()

    async def work(store):
        wanted = demand("skew", window=DAY)
        await reserve(store, "skew", wanted)
        first = store._skew
        await store.settle("skew", [5])
        return first, (await store.balances([wanted]))[0]

    skew, balance = with_store(server.url, work)
    assert abs(skew - 40 * 86_400_000) < 10_000
    assert 0 < balance.resets_at - true() <= 86_400


def test_clock_that_does_not_hold_still_is_unavailable(server, monkeypatch):
    monkeypatch.setattr(redis.RedisStore, "_times", lambda _: (False, 0))
    scripts._tables.clear()

    async def work(store):
        with pytest.raises(StoreUnavailableError, match="clock"):
            await reserve(store, "still", demand("still", window=DAY))

    with_store(server.url, work)


def test_flushed_scripts_are_sent_again(server):
    async def work(store):
        wanted = demand("flushed")
        await reserve(store, "flushed", wanted)
        with server.client() as client:
            client.script_flush()
        return (await store.settle("flushed", [33]))[0].used

    assert with_store(server.url, work) == 33


def test_another_process_may_renew_extend_and_settle(server):
    wanted = demand("shared")

    async def first(store):
        await reserve(store, "shared", wanted)

    async def second(store):
        assert await store.renew("shared", ttl=30)
        assert (await store.extend("shared", want=50, least=1, ttl=30)).output == 50
        return (await store.settle("shared", [44]))[0]

    with_store(server.url, first)
    balance = with_store(server.url, second)
    assert (balance.used, balance.held) == (44, 0)


def test_unknown_reservations(server):
    async def work(store):
        await store.release("nowhere")
        assert await store.extend("none", want=1, least=1, ttl=1) == NOTHING
        assert await store.renew("none", ttl=1) is False
        assert await store.settle("none", [1]) == ()
        return await reserve(store, "nowhere", demand("nowhere"))

    assert with_store(server.url, work) == NOTHING


def test_repeated_extend_with_a_lost_answer_holds_once(server):
    async def work(store):
        wanted = demand("lost")
        await reserve(store, "lost", wanted)
        known = store._calls["lost"].output
        await store.extend("lost", want=50, least=1, ttl=30)
        store._calls["lost"].output = known
        again = await store.extend("lost", want=50, least=1, ttl=30)
        return again.output, await standing(store, wanted)

    assert with_store(server.url, work) == (50, [(0, 160)])


def test_wrong_number_of_amounts(server):
    async def work(store):
        await reserve(store, "count", demand("count"))
        with pytest.raises(ValueError, match="2 amounts for 1 demands"):
            await store.settle("count", [1, 2])

    with_store(server.url, work)


def test_only_the_last_finished_are_remembered(server, monkeypatch):
    monkeypatch.setattr(redis, "REMEMBERED", 2)

    async def work(store):
        for number in range(5):
            await store.release(f"old{number}")
        return len(store._over), len(store._calls)

    assert with_store(server.url, work) == (2, 0)


@pytest.mark.parametrize("ttl", [3601, 1e9])
def test_ttl_over_an_hour_is_refused(server, ttl):
    async def work(store):
        with pytest.raises(ConfigurationError, match="too long"):
            await reserve(store, "ttl", demand("ttl"), ttl=ttl)

    with_store(server.url, work)


def test_two_demands_on_one_account_are_refused(server):
    async def work(store):
        with pytest.raises(ConfigurationError, match="same account"):
            await reserve(store, "twice", demand("twice"), demand("twice"))

    with_store(server.url, work)


def test_soft_demands_are_reported(server):
    async def work(store):
        return await reserve(store, "soft", demand("hard"), demand("soft", 5, soft=True))

    assert with_store(server.url, work).exceeded == (1,)


def test_huge_capacity_is_as_good_as_none(server):
    async def work(store):
        return await reserve(store, "huge", demand("huge", 10**30))

    assert with_store(server.url, work).balances[0].capacity == 2**53


def test_close_without_open():
    asyncio.run(open_store("redis://127.0.0.1:1").close())


def test_settle_of_what_the_server_lost(server):
    async def work(store):
        await reserve(store, "wiped", demand("wiped"))
        with server.client() as client:
            client.flushall()
        return await store.settle("wiped", [5])

    assert with_store(server.url, work) == ()


def test_store_that_is_not_open():
    async def go():
        with pytest.raises(StoreUnavailableError, match="not open"):
            await open_store("redis://127.0.0.1:1").settle("x", [])

    asyncio.run(go())


def test_unreachable_server_is_unavailable():
    async def go():
        store = open_store("redis://127.0.0.1:1?timeout=0.5")
        with pytest.raises(StoreUnavailableError, match="out of reach"):
            await store.open()
        await store.close()

    asyncio.run(go())


def test_evicting_server_is_refused():
    with redis_server("--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru") as evicting:

        async def go():
            store = open_store(evicting.url)
            with pytest.raises(ConfigurationError, match=r"allkeys-lru.*noeviction"):
                await store.open()
            await store.close()

        asyncio.run(go())


def test_keys_hide_the_tenant_and_expire(server):
    async def work(store):
        with server.client() as client:
            client.flushall()
        await reserve(store, "hidden", demand("l", tenant="secret-tenant"))
        with server.client() as client:
            keys = client.keys("*")
            lives = [client.pttl(key) for key in keys]
        return keys, lives

    keys, lives = with_store(server.url, work)
    assert len(keys) == 3
    assert not any(b"secret" in key for key in keys)
    assert all(0 < life < 2 * 86_400_000 for life in lives)


def test_empty_accounts_leave_nothing(server):
    async def work(store):
        with server.client() as client:
            client.flushall()
            await reserve(store, "gone", demand("gone"))
            await store.release("gone")
            return client.keys("*")

    assert with_store(server.url, work) == [b"sg1:r:gone"]


def test_cancelled_reserve_is_undone_and_replies_stay_matched(server):
    """Callers cancelled at any await neither leave holds nor get another's answer."""

    async def work(store):
        async def one(number):
            wanted = demand(f"cancel{number}", 100_000 + number)
            decision = await reserve(store, f"cancel{number}", wanted, want=number, least=0)
            assert decision.balances[0].capacity == 100_000 + number
            assert decision.output == number
            await store.settle(f"cancel{number}", [number])

        for wave in range(10):
            tasks = [
                asyncio.create_task(one(number)) for number in range(wave * 40, wave * 40 + 40)
            ]
            for step, task in enumerate(tasks):
                if step % 2:
                    await asyncio.sleep(0)
                    task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(r is None or isinstance(r, asyncio.CancelledError) for r in results)
        while store._tasks:
            await asyncio.sleep(0.01)
        accounts = [demand(f"cancel{number}") for number in range(400)]
        await asyncio.gather(*(store.release(f"cancel{n}") for n in range(1, 400, 2)))
        return sum(balance.held for balance in await store.balances(accounts))

    assert with_store(f"{server.url}?timeout=10", work) == 0


def test_reserve_without_an_answer_is_released_when_the_server_is_back():
    with redis_server() as paused:

        async def work(store):
            wanted = demand("paused")
            await store.balances([wanted])
            paused.pause()
            try:
                start = time.monotonic()
                with pytest.raises(StoreUnavailableError, match="did not answer in 0.2 s"):
                    await reserve(store, "paused", wanted)
                waited = time.monotonic() - start
            finally:
                paused.resume()
            while store._tasks:
                await asyncio.sleep(0.01)
            return waited, await standing(store, wanted)

        waited, balances = with_store(f"{paused.url}?timeout=0.2", work)
    assert waited < 5
    assert balances == [(0, 0)]


def test_close_gives_up_what_is_being_undone():
    with redis_server() as paused:

        async def work(store):
            paused.pause()
            with pytest.raises(StoreUnavailableError):
                await reserve(store, "x", demand("x"))
            assert len(store._tasks) == 1

        try:
            with_store(f"{paused.url}?timeout=0.2", work)
        finally:
            paused.resume()


def test_undo_gives_up_at_last(server, monkeypatch):
    monkeypatch.setattr(redis, "UNDO_DELAYS", (0.0, 0.0))

    async def work(store):
        store._scripts = {**store._scripts, "release": scripts.Script("no lua", "0" * 40)}
        await store._undo("x", redis.groups([demand("x")], apart=False))
        with pytest.raises(StoreUnavailableError, match="ResponseError"):
            await store.release("x")

    with_store(server.url, work)


def test_cluster_grants_what_all_slots_have_room_for(cluster):
    async def work(store):
        wanted = [demand("a", 1000), demand("b", 60), demand("c", 300, rate=3)]
        granted = await reserve(store, "slots", *wanted)
        held = await standing(store, *wanted)
        more = await store.extend("slots", want=40, least=0, ttl=30)
        refused = await store.extend("slots", want=40, least=1, ttl=30)
        after = await standing(store, *wanted)
        await store.settle("slots", [1, 2, 3])
        return granted, held, more, refused, after, await standing(store, *wanted)

    granted, held, more, refused, after, settled = with_store(cluster, work)
    assert granted.output == 50
    assert held == [(0, 60), (0, 60), (0, 160)]
    assert more.output == 0
    assert refused.which == 1
    assert after == held
    assert settled == [(1, 0), (2, 0), (3, 0)]


def test_cluster_refusal_holds_nothing_and_may_be_asked_again(cluster):
    async def work(store):
        wanted = [demand("d"), demand("e", 5), demand("f", 30, fixed=31)]
        refused = await reserve(store, "again", *wanted)
        held = await standing(store, *wanted)
        granted = await reserve(store, "again", wanted[0])
        await store.release("again")
        return refused, held, granted

    refused, held, granted = with_store(cluster, work)
    assert isinstance(refused, Refusal)
    assert held == [(0, 0)] * 3
    assert isinstance(granted, Grant)


def test_cluster_names_the_first_of_demands_that_never_fit(cluster):
    async def work(store):
        fits = demand("never", tenant="one")
        over = [demand("never", 0, tenant="two"), demand("never more", 0, tenant="one")]
        return await reserve(store, "never", fits, *over)

    assert with_store(cluster, work).which == 1


def test_cluster_of_one_slot_is_one_call(cluster):
    async def work(store):
        wanted = [demand("t1", tenant="acme"), demand("t2", tenant="acme")]
        assert len(redis.groups(wanted, apart=True)) == 1
        return (await reserve(store, "one", *wanted)).output

    assert with_store(cluster, work) == 100


def test_cluster_does_not_know_another_process_reservation(cluster):
    async def work(store):
        assert await store.settle("elsewhere", [1]) == ()
        await store.release("elsewhere")
        return await reserve(store, "none")

    assert with_store(cluster, work).balances == []


def test_cluster_with_a_master_down_is_unavailable_and_undone():
    with redis_cluster() as servers:
        url = f"redis+cluster://127.0.0.1:{servers[0].port}?timeout=0.5"

        async def work(store):
            wanted = [demand(name) for name in "abcdefgh"]
            servers[2].pause()
            try:
                with pytest.raises(StoreUnavailableError):
                    await reserve(store, "half", *wanted)
            finally:
                servers[2].resume()
            while store._tasks:
                await asyncio.sleep(0.01)
            store.timeout = 5
            return await standing(store, *wanted)

        assert with_store(url, work) == [(0, 0)] * 8


def found(store):
    return asyncio.run(store._connect()._find())


def test_urls():
    assert open_store("rediss://h:1/2?timeout=2.5&ssl_cert_reqs=none").timeout == 2.5
    assert found(open_store("valkey://h:1")) == ("h", 1)
    pipe = open_store("redis://ann:pw@h/3?timeout=9")._connect()
    assert (pipe._login, pipe._db, pipe._tls, pipe._patience) == (["ann", "pw"], 3, None, 9)
    assert open_store("redis+cluster://h:7")._cluster
    for url, match in [
        ("redis://h?timeout=soon", "seconds"),
        ("redis://h:x", "redis-py reads"),
        ("redis+sentinel://h:1", "service"),
    ]:
        with pytest.raises(ConfigurationError, match=match):
            open_store(url)


def test_sentinel_url():
    pipe = open_store("redis+sentinel://ann:pw@h1:1,h2/main/4")._connect()
    assert (pipe._login, pipe._db) == (["ann", "pw"], 4)


def test_missing_package_says_what_to_install(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr("streamguard.stores.import_module", missing)
    with pytest.raises(ConfigurationError, match=r"streamguard\[redis\]"):
        open_store("redis://h")
