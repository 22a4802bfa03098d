"""One guard in several event loops: one after the other, beside each other, closed from another."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from pathlib import Path

import openai
import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from support.loops import in_threads
from support.redis_server import needs_redis, redis_cluster, redis_sentinel, redis_server
from support.servers import wait_until
from support.upstream import Upstream

from streamguard import Guard, Limit, StreamGuardMiddleware
from streamguard.core.accounts import Demand, Window
from streamguard.stores import open_store

PATH = "/v1/chat/completions"
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}
LIMIT = Limit(requests=1_000, per="hour", name="calls")
BUDGET = [Demand("acme|tokens", 10**9, Window(3600), 10, 1)]


@pytest.fixture(scope="module")
def server():
    with redis_server() as running:
        yield running


def guard_of(server):
    return Guard([LIMIT], store=server.url, sinks=[])


async def used(guard):
    return (await guard.preflight(BODY)).balances["calls"].used


async def answer(_request):
    message = {"role": "assistant", "content": "Hi"}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 8, "completion_tokens": 1, "total_tokens": 9}
    head = {"id": "a", "object": "chat.completion", "created": 1, "model": "gpt-4o"}
    return JSONResponse({**head, "choices": [choice], "usage": usage})


def connected(server):
    with server.client() as client:
        return len(client.client_list()) - 1


def open_files():
    """How many files this process has open, where that can be seen."""
    seen = Path("/proc/self/fd")
    return len(list(seen.iterdir())) if seen.exists() else 0


async def standing(server, demands):
    """What a store that has just come finds used and held."""
    store = open_store(server.url)
    await store.open()
    (balance,) = await store.balances(demands)
    await store.close()
    return balance.used, balance.held


async def two_calls(store, number):
    for part in range(2):
        name = f"loop{number}.{part}"
        await store.reserve(name, BUDGET, want=90, least=1, ttl=30)
        await store.settle(name, [50])


@needs_redis
def test_requests_that_have_a_loop_each(server):
    guard = guard_of(server)
    app = Starlette(routes=[Route(PATH, answer, methods=["POST"])])
    client = TestClient(StreamGuardMiddleware(app, guard=guard))
    before = asyncio.run(used(guard))
    assert [client.post(PATH, json=BODY).status_code for _ in range(4)] == [200] * 4
    assert asyncio.run(used(guard)) == before + 4
    asyncio.run(guard.close())


@needs_redis
def test_batches_are_charged_whichever_loop_they_began_in(server):
    store = open_store(f"{server.url}?batch=0.2")
    wanted = [Demand("batched|tokens", 10**9, Window(3600), 10, 1)]

    async def calls(number, seconds):
        name = f"batched{number}"
        await store.reserve(name, wanted, want=90, least=1, ttl=30)
        await store.settle(name, [50])
        await asyncio.sleep(seconds)

    async def balance():
        return (await store.balances(wanted))[0]

    asyncio.run(store.open())
    asyncio.run(calls(0, 0))
    asyncio.run(calls(1, 0))
    asyncio.run(calls(2, 0.5))
    assert asyncio.run(balance()).used == 150
    asyncio.run(calls(3, 0))
    asyncio.run(store.close())
    assert asyncio.run(standing(server, wanted)) == (200, 0)


@needs_redis
def test_what_is_owed_is_paid_from_another_loop():
    with redis_server() as server:
        store = open_store(f"{server.url}?fail=open")
        asyncio.run(store.open())
        server.kill()
        asyncio.run(two_calls(store, 0))
        server.start()
        asyncio.run(store.close())
        assert asyncio.run(standing(server, BUDGET)) == (100, 0)


@needs_redis
def test_loops_that_come_and_go_leave_nothing(server):
    guard = guard_of(server)
    asyncio.run(used(guard))
    files, threads = open_files(), threading.active_count()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for _ in range(200):
            asyncio.run(used(guard))
            assert len(guard.books._store._client._lines._values) == 1
        gc.collect()
    assert [str(warning.message) for warning in told] == []
    assert open_files() <= files
    assert threading.active_count() <= threads
    assert not guard.books._tasks
    wait_until(lambda: connected(server) == 0, "connections are left")
    asyncio.run(guard.close())


@needs_redis
def test_threads_that_have_a_loop_each(server):
    guard = guard_of(server)

    async def work(_number):
        return len([await used(guard) for _ in range(30)])

    assert in_threads(4, work) == [30] * 4
    asyncio.run(guard.close())
    wait_until(lambda: connected(server) == 0, "connections are left")


@needs_redis
def test_a_client_that_blocks_inside_asynchronous_code(server):
    guard = guard_of(server)

    async def go(client):
        async with guard:
            before = await used(guard)
            for _ in range(3):
                client.chat.completions.create(**BODY)
            return await used(guard) - before

    with Upstream() as upstream:
        plain = openai.OpenAI(base_url=upstream.base_url, api_key="k", max_retries=0)
        with guard.wrap(plain) as client:
            assert asyncio.run(go(client)) == 3


@needs_redis
def test_a_script_that_blocks_closes_from_a_loop_of_its_own(server):
    with Upstream() as upstream:
        guard = guard_of(server)
        with guard.wrap(openai.OpenAI(base_url=upstream.base_url, api_key="k")) as client:
            client.chat.completions.create(**BODY)
        assert connected(server) == 1
        asyncio.run(guard.close())
    wait_until(lambda: connected(server) == 0, "connections are left")


@needs_redis
@pytest.mark.parametrize("kind", ["cluster", "sentinel"])
def test_clusters_and_sentinels_serve_several_loops(kind):
    with redis_cluster() if kind == "cluster" else redis_sentinel() as servers:
        path = "" if kind == "cluster" else "/main"
        store = open_store(f"redis+{kind}://127.0.0.1:{servers[-1].port}{path}?timeout=5")
        asyncio.run(store.open())
        for number in range(3):
            asyncio.run(two_calls(store, number))
        in_threads(3, lambda number: two_calls(store, f"t{number}"))
        (balance,) = asyncio.run(store.balances(BUDGET))
        asyncio.run(store.close())
    assert (balance.used, balance.held) == (12 * 50, 0)
