"""What the live page costs: a request while nobody watches, a look while somebody does, memory.

A request tells three events; the page's sink takes them beside one that does nothing, both in
this run. The registry of open calls is there with and without the page.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import WeakSet

from streamguard import Guard, Identity, Limit, Usage, UsageEvent
from streamguard.live.feed import event
from streamguard.live.sink import LiveSink
from streamguard.live.view import LiveView

TENANTS = 5_000


def events(count: int) -> list[tuple[UsageEvent, UsageEvent, UsageEvent]]:
    """Calls of thousands of tenants, each with its own conversation."""
    made = []
    for number in range(count):
        used = Usage(900 + number % 90, 100)
        settled = UsageEvent(
            "settled", f"sg-{number}", 1_790_000_000.0 + number / 100,
            Identity(f"tenant-{number * 7_919 % TENANTS}", "ann", "chat"), "gpt-4o",
            "/v1/chat/completions", counted=used, charged=used, cost_nano_usd=1_000 + number,
            conversation=f"c-{number % 20_000}", context_window=128_000,
        )  # fmt: skip
        made.append(
            (replace(settled, event="preflight"), replace(settled, event="started"), settled)
        )
    return made


class Deaf:
    """A sink that does nothing."""

    def emit(self, event: UsageEvent) -> None:
        """Nothing."""


class Thing:
    """Stands for a call."""


def a_request(sink: Any, calls: list[Any]) -> float:
    """Seconds a request that telling the sink takes."""
    emit = sink.emit
    start = time.process_time()
    for first, second, third in calls:
        emit(first)
        emit(second)
        emit(third)
    return (time.process_time() - start) / len(calls)


def a_registration(count: int) -> float:
    """Seconds a call that registering and forgetting it takes, 64 being open."""
    known: WeakSet[Thing] = WeakSet()
    others = [Thing() for _ in range(64)]
    for one in others:
        known.add(one)
    things = [Thing() for _ in range(count)]
    start = time.process_time()
    for thing in things:
        known.add(thing)
        known.discard(thing)
    return (time.process_time() - start) / count


def median(measure: Callable[[], float], rounds: int) -> float:
    """The middle of several runs."""
    return statistics.median(measure() for _ in range(rounds))


async def a_look(calls: list[Any], streams: int) -> dict[str, float]:
    """Milliseconds and bytes of one picture with many tenants and open streams."""
    guard = Guard(
        [Limit(tokens=10**9, per="hour", scope=("tenant",)), Limit(cost="9000", per="month")],
        sinks=[],
    )
    sink = LiveSink()
    for told in calls:
        sink.emit(told[2])
    view = LiveView(guard, sink, None)
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    data = b'data: {"choices":[{"index":0,"delta":{"content":"a few more words "}}]}\n\n'
    async with guard:
        opened = []
        for number in range(streams):
            who = Identity(f"tenant-{number}")
            subject = await guard.subject(body, path="/v1/chat/completions", identity=who)
            opened.append(await guard.begin(subject))
            opened[-1].meter().feed(data * 100)
        times, size = [], 0
        for _ in range(9):
            start = time.process_time()
            size = 0
            async for name, figures in view.sections():
                size += len(event(name, figures))
            times.append(time.process_time() - start)
    return {"ms": statistics.median(times) * 1e3, "bytes": size, "streams": streams}


def memory(calls: list[Any]) -> float:
    """Megabytes that the sink holds after all these calls."""
    tracemalloc.start()
    sink = LiveSink()
    for told in calls:
        sink.emit(told[2])
    sink.book()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return held / 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    count, rounds = (20_000, 3) if options.quick else (200_000, 7)
    calls = events(count)
    deaf = median(lambda: a_request(Deaf(), calls), rounds)
    live = median(lambda: a_request(LiveSink(), calls), rounds)
    registered = median(lambda: a_registration(count), rounds)
    found = {
        "deaf_us": deaf * 1e6,
        "live_us": live * 1e6,
        "registry_us": registered * 1e6,
        "added_us": (live - deaf + registered) * 1e6,
        "look": asyncio.run(a_look(calls, 200)),
        "megabytes": memory(calls),
    }
    if options.json:
        print(json.dumps(found))
        return
    print(f"{count:,} calls of {TENANTS:,} tenants")
    print(f"  a request, a sink that does nothing   {found['deaf_us']:6.2f} µs")
    print(f"  a request, the page's sink            {found['live_us']:6.2f} µs")
    print(f"  a call in the registry of open calls  {found['registry_us']:6.2f} µs")
    print(f"  added to a request                    {found['added_us']:6.2f} µs")
    look = found["look"]
    print(f"  a look at {look['streams']} open streams          {look['ms']:6.2f} ms")
    print(f"  a whole page                          {look['bytes'] / 1024:6.2f} KB")
    print(f"  memory                                {found['megabytes']:6.1f} MB")


if __name__ == "__main__":
    main()
