"""A master that dies: the Sentinels' new one goes on with the same books."""

from __future__ import annotations

import asyncio

from support.redis_server import needs_redis, redis_sentinel

from streamguard.core.accounts import Demand, Window
from streamguard.errors import StoreUnavailableError
from streamguard.stores import open_store

BUDGET = [Demand("acme|tokens", 10**9, Window(3600), 10, 1)]


@needs_redis
def test_failover_during_load():
    with redis_sentinel() as (master, replica, sentinel):

        async def call(store, number):
            """Spend 50, asking again under the same id until the store answers."""
            asked = 0
            while True:
                try:
                    await store.reserve(f"c{number}.{asked}", BUDGET, want=90, least=1, ttl=30)
                    break
                except StoreUnavailableError:
                    asked += 1
                    await asyncio.sleep(0.05)
            while True:
                try:
                    await store.settle(f"c{number}.{asked}", [50])
                except StoreUnavailableError:
                    await asyncio.sleep(0.05)
                else:
                    return

        async def go():
            store = open_store(f"redis+sentinel://127.0.0.1:{sentinel.port}/main?timeout=0.5")
            await store.open()
            await asyncio.gather(*(call(store, number) for number in range(20)))
            with master.client() as client:
                assert client.wait(1, 2000) == 1
            master.kill()
            await asyncio.gather(*(call(store, number) for number in range(20, 40)))
            while store._tasks:
                await asyncio.sleep(0.02)
            balance = (await store.balances(BUDGET))[0]
            await store.close()
            with replica.client() as client:
                assert client.role()[0] == b"master"
            return balance

        balance = asyncio.run(go())
    assert (balance.used, balance.held) == (40 * 50, 0)
