"""The memory store and the table of stores."""

from __future__ import annotations

import asyncio
import re
import threading

import pytest

from streamguard.core.accounts import Demand, Grant, Refusal, Window
from streamguard.errors import ConfigurationError
from streamguard.stores import STORES, memory, open_store
from streamguard.stores.batching import BatchingStore
from streamguard.stores.memory import MemoryStore
from streamguard.stores.policy import PolicyStore

MINUTE = Window(60)


def demand(capacity=1000, account="a"):
    return Demand(account, capacity, MINUTE, 10, 1)


def test_every_operation_reaches_the_ledger():
    asyncio.run(every_operation())


async def every_operation():
    now = [1_700_000_000.0]
    store = MemoryStore(clock=lambda: now[0])
    await store.open()
    granted = await store.reserve("1", [demand()], want=100, least=1, ttl=30)
    assert granted.output == 100
    assert (await store.extend("1", want=50, least=1, ttl=30)).output == 50
    now[0] += 20
    assert await store.renew("1", ttl=30) is True
    assert (await store.settle("1", [60]))[0].used == 60
    await store.reserve("2", [demand()], want=100, least=1, ttl=30)
    await store.release("2")
    balance = (await store.balances([demand()]))[0]
    assert (balance.used, balance.held) == (60, 0)
    await store.close()


def test_threads_share_the_books_without_overshoot():
    store, granted = MemoryStore(), []
    start = threading.Barrier(8)

    def race(name):
        async def one():
            start.wait()
            for number in range(200):
                decision = await store.reserve(
                    f"{name}/{number}", [demand(500)], want=10, least=10, ttl=30
                )
                if isinstance(decision, Grant):
                    granted.append(decision.output)

        asyncio.run(one())

    threads = [threading.Thread(target=race, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(granted) == 25


def test_thousand_racers_leave_less_than_one_request_unused():
    async def race():
        store = MemoryStore()
        asked = [
            store.reserve(str(n), [demand(9_999)], want=90, least=90, ttl=9) for n in range(1000)
        ]
        decisions = await asyncio.gather(*asked)
        return decisions, (await store.balances([demand(9_999)]))[0]

    decisions, balance = asyncio.run(race())
    assert sum(isinstance(decision, Refusal) for decision in decisions) == 901
    assert 0 <= balance.remaining < 100


def test_default_clock_is_the_time_and_never_steps(monkeypatch):
    clock = memory.steady_clock()
    first = clock()
    assert abs(first - memory.time.time()) < 5
    monkeypatch.setattr(memory.time, "time", lambda: 0.0)
    assert clock() >= first


def test_open_store_takes_urls_and_stores():
    store = open_store("memory://")
    assert isinstance(store, MemoryStore)
    assert open_store(store) is store
    assert isinstance(open_store(), MemoryStore)


def test_url_may_ask_for_a_fail_policy_and_batches():
    store = open_store("memory://?fail=open")
    assert isinstance(store, PolicyStore)
    assert isinstance(store.inner, MemoryStore)
    assert open_store("memory://?fail=0.25")._policy == 0.25
    batched = open_store("sqlite:///a%20b.db?timeout=2&batch=0.5&fail=closed")
    assert isinstance(batched, BatchingStore)
    assert batched.max_age == 0.5
    assert batched.inner.timeout == 2.5
    assert (batched.inner.inner.path, batched.inner.inner.timeout) == ("a b.db", 2.0)


@pytest.mark.parametrize("query", ["fail=maybe", "fail=0", "fail=7", "batch=", "batch=-1"])
def test_wrong_wrappers(query):
    with pytest.raises(ConfigurationError):
        open_store(f"memory://?{query}")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("memory://?fial=open", "unknown ?fial= in the store's URL; it takes fail, batch"),
        ("sqlite:///b.db?timeout=2&bacth=1", "unknown ?bacth= in the store's URL; it takes fail"),
        ("redis://h?fail=open&fial=", "unknown ?fial= in the store's URL; it takes fail, batch"),
        ("memory://?fail=opne", "?fail='opne' in the store's URL must be closed, open or a"),
        ("memory://?batch=long", "?batch='long' in the store's URL must be a number over 0"),
    ],
)
def test_a_misspelled_option_of_a_url_is_named(url, told):
    with pytest.raises(ConfigurationError, match=re.escape(told)):
        open_store(url)


@pytest.mark.parametrize("url", ["mysql://x", "memory", ""])
def test_unknown_store_is_refused(url):
    with pytest.raises(ConfigurationError, match=re.escape(", ".join(STORES))):
        open_store(url)
