"""Many racers on one budget: nothing is over, and less than one request is left."""

from __future__ import annotations

import asyncio

import pytest
from support.racers import SIZE, budget, kill_in_midstream, race, race_processes
from support.redis_server import needs_redis, redis_cluster, redis_server

from streamguard.stores import open_store

CAPACITY = 9_950


async def balance(url, capacity=CAPACITY):
    store = open_store(url)
    await store.open()
    found = (await store.balances(budget(capacity)))[0]
    await store.close()
    return found


def assert_filled_exactly(url, granted):
    left = asyncio.run(balance(url))
    assert (left.used, left.held) == (granted, 0)
    assert CAPACITY - SIZE < granted <= CAPACITY


def test_sqlite_from_four_processes(tmp_path):
    url = f"sqlite:///{tmp_path}/race.db?timeout=60"
    assert_filled_exactly(url, race_processes(url, 4, 200, CAPACITY))


@needs_redis
def test_redis_from_four_processes():
    with redis_server() as server:
        url = f"{server.url}?timeout=30"
        assert_filled_exactly(url, race_processes(url, 4, 200, CAPACITY))


@needs_redis
def test_redis_cluster_from_two_processes():
    """Two limits in two slots: a race may refuse both who each hold one half, never overshoot."""
    with redis_cluster() as servers:
        url = f"redis+cluster://127.0.0.1:{servers[0].port}?timeout=30"
        granted = race_processes(url, 2, 200, CAPACITY)
        assert_filled_exactly(url, granted)


def assert_nothing_lost(url, said, times):
    """A settle may be in the books and the worker killed before it said so, once a kill."""

    async def go():
        await asyncio.sleep(1.1)
        return await balance(url, 10**9)

    left = asyncio.run(go())
    assert left.held == 0
    assert said <= left.used <= said + 7 * times


def test_sqlite_survives_kill_9(tmp_path):
    url = f"sqlite:///{tmp_path}/kill.db"
    assert_nothing_lost(url, kill_in_midstream(url, 3), 3)


@needs_redis
def test_redis_holds_of_killed_workers_come_back():
    with redis_server() as server:
        assert_nothing_lost(server.url, kill_in_midstream(server.url, 3), 3)


@pytest.mark.parametrize("racers", [1000])
def test_memory_races_in_one_loop(racers):
    assert CAPACITY - SIZE < asyncio.run(race("memory://", "m", racers, CAPACITY)) <= CAPACITY
