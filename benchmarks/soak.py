"""Run the gateway for a long time and see whether memory, file descriptors and tasks stay flat.

Low load of everything that happens: streams that end, streams cut at their budget, clients that
leave midway, refusals, unknown keys. Keys and ledger in SQLite, budgets in ``--store``. Bounded
memories (counted texts, refused requests, conversations) are filled first, as fast as it goes, or
an hour would show nothing but their filling. Figures are those of the gateway's own process; growth
is a line fitted to all samples after the first quarter. Of a call that failed, the head and the
last bytes of its answer are shown.

    python benchmarks/soak.py [--minutes 60] [--store URL] [--quick] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gateway as bench

HERE = Path(__file__).resolve()
CLIENTS = 6
FILL = 60_000
"""Calls to begin with, half of them refused: the guard remembers 10,000 such, 16,384 texts."""
TOML = """
store = "{store}"
keys = "sqlite:///{folder}/keys.db"
ledger = "sqlite:///{folder}/usage.db"

[[upstreams]]
url = "{url}"

[[limits]]
tokens = 1_000_000_000
per = "day"
scope = ["tenant"]

[[limits]]
output_tokens = 40
where = {{ model = "gpt-4o-mini" }}

[[limits]]
input_tokens = 1_000
"""


def serve(port: int, config: str) -> None:
    """The gateway, with one path more that tells its figures."""
    from streamguard.gateway import logs, serving
    from streamguard.gateway.answers import answer
    from streamguard.gateway.app import Gateway
    from streamguard.gateway.config import read_gateway

    class Watched(Gateway):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope.get("path") == "/figures":
                await answer(send, 200, figures())
            else:
                await super().__call__(scope, receive, send)

    log_config = logs.configure(as_json=True)
    app = Watched(read_gateway(Path(config)), sinks=[logs.JSONLines()])
    serving.serve(app, serving.listen("127.0.0.1", port), log_config)


def figures() -> dict[str, float]:
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    kb = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
    return {
        "memory_mb": kb / 1024,
        "descriptors": sum(1 for _ in Path("/proc/self/fd").iterdir()),
        "tasks": len(asyncio.all_tasks()),
    }


async def client(
    port: int, key: str, number: int, end: Callable[[], bool], done: Done, pause: float, refuse: int
) -> None:
    """Call until ``end``, with a ``pause`` between; ``refuse`` is the weight of refusals."""
    chance = random.Random(number)
    while not end():
        kind = chance.choices([*GOOD], (6, 2, 2, refuse, 1))[0]
        more: dict[str, Any] = {"user": f"{number}-{chance.random()}"}
        words = " ".join(chance.choices(bench.WORDS, k=2_000 if kind == "refused" else 60))
        more["messages"] = [{"role": "user", "content": words}]
        if kind == "cut":
            more["model"] = "gpt-4o-mini"
        request = bench.request_bytes("sg-nobody" if kind == "unknown" else key, **more)
        answer = await call(port, request, chance.random() * 0.2 if kind == "left" else None)
        done.add(kind, answer, good=GOOD[kind](answer))
        await asyncio.sleep(pause)


async def call(port: int, request: bytes, leave_after: float | None) -> bytes:
    _, one = await asyncio.get_running_loop().create_connection(bench.Client, "127.0.0.1", port)
    asking = one.ask(request)
    if leave_after is not None:
        await asyncio.sleep(leave_after)
        one.transport.close()
    answer = await asking
    one.transport.close()
    return answer


GOOD: dict[str, Callable[[bytes], bool]] = {
    "whole": lambda answer: b'"stop"' in answer[-900:],
    "cut": lambda answer: b'"length"' in answer[-900:],
    "left": lambda _: True,
    "refused": lambda answer: b" 413 " in answer[:20],
    "unknown": lambda answer: b" 401 " in answer[:20],
}


class Done:
    """How many calls of each kind went well or failed, and what came of the first that failed."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.failures: list[str] = []

    def add(self, kind: str, answer: bytes, *, good: bool) -> None:
        name = kind if good else f"{kind} failed"
        self.calls[name] = self.calls.get(name, 0) + 1
        if not good and len(self.failures) < 20:
            self.failures.append(f"{kind}, {len(answer)} bytes: {answer[:90]!r}…{answer[-90:]!r}")


async def ask(port: int, path: str) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    _, one = await loop.create_connection(bench.Client, "127.0.0.1", port)
    answer = await one.ask(f"GET {path} HTTP/1.1\r\nhost: soak\r\n\r\n".encode())
    one.transport.close()
    return json.loads(answer.partition(b"\r\n\r\n")[2])


async def soak(port: int, key: str, seconds: float, every: float, fill: int) -> dict[str, Any]:
    filled, done, samples = Done(), Done(), []

    def enough() -> bool:
        return sum(filled.calls.values()) >= fill

    await asyncio.gather(
        *(client(port, key, -n - 1, enough, filled, 0.0, refuse=11) for n in range(4 * CLIENTS))
    )
    end, began = time.monotonic() + seconds, time.monotonic()

    def over() -> bool:
        return time.monotonic() >= end

    load = [
        asyncio.create_task(client(port, key, n, over, done, 0.05, refuse=1))
        for n in range(CLIENTS)
    ]
    while not over():
        await asyncio.sleep(every)
        samples.append({"at": time.monotonic() - began, **await ask(port, "/figures")})
    await asyncio.gather(*load)
    await asyncio.sleep(1)
    return {
        "filled": filled.calls, "samples": samples, "calls": done.calls,
        "failures": [*filled.failures, *done.failures], "after": await ask(port, "/figures"),
    }  # fmt: skip


def growth(samples: list[dict[str, float]], name: str) -> dict[str, float]:
    """First, last and highest, and the fitted growth per hour."""
    late = [sample for sample in samples if sample["at"] > samples[-1]["at"] / 4] or samples
    values = [sample[name] for sample in late]
    slope = 0.0
    if len(late) > 1:
        slope = statistics.linear_regression([one["at"] for one in late], values).slope
    return {
        "first": values[0], "last": values[-1], "highest": max(values),
        "growth_per_hour": slope * 3600,
    }  # fmt: skip


def tenths(samples: list[dict[str, float]]) -> list[float]:
    """The memory at each tenth of the time, in MB."""
    step = max(1, len(samples) // 10)
    return [round(sample["memory_mb"], 1) for sample in samples[::step]]


def run(given: argparse.Namespace) -> dict[str, Any]:
    seconds = 8.0 if given.quick else given.minutes * 60
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        key = bench.virtual_key(folder)
        up, port = bench.free_port(), bench.free_port()
        config = Path(folder, "gateway.toml")
        store = given.store.replace("FOLDER", folder)
        config.write_text(TOML.format(store=store, folder=folder, url=f"http://127.0.0.1:{up}"))
        commands = {
            "upstream": ([sys.executable, str(HERE.with_name("gateway.py")), "--role", "upstream",
                          "--port", str(up), "--delay", "3"], up),
            "gateway": ([sys.executable, str(HERE), "--serve", str(config), "--port", str(port)],
                        port),
        }  # fmt: skip
        for name, (command, at) in commands.items():
            server = bench.Server(name, command, at, cwd=folder)
            stack.callback(server.close)
            server.wait()
        every = 1.0 if given.quick else max(2.0, seconds / 240)
        found = asyncio.run(soak(port, key, seconds, every, 200 if given.quick else FILL))
    names = ("memory_mb", "descriptors", "tasks")
    return {
        "seconds": seconds, "store": given.store,
        **{name: found[name] for name in ("filled", "calls", "failures", "after")},
        "memory_by_tenth": tenths(found["samples"]),
        **{name: growth(found["samples"], name) for name in names},
    }  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--minutes", type=float, default=60.0)
    options.add_argument("--store", default="sqlite:///FOLDER/budgets.db")
    options.add_argument("--quick", action="store_true")
    options.add_argument("--json", action="store_true")
    options.add_argument("--serve", help=argparse.SUPPRESS)
    options.add_argument("--port", type=int, default=0, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.serve:
        serve(given.port, given.serve)
        return
    result = run(given)
    if given.json:
        print(json.dumps(result))
        return
    print(f"{result['seconds'] / 60:.1f} minutes, {result['store']}; calls: {result['calls']}")
    print(f"memory at each tenth, MB: {result['memory_by_tenth']}")
    for failure in result["failures"]:
        print(f"failed: {failure}")
    print("              first      last   highest  growth an hour  after the load")
    for name in ("memory_mb", "descriptors", "tasks"):
        row = result[name]
        print(
            f"{name:<11}{row['first']:>8.1f}{row['last']:>10.1f}{row['highest']:>10.1f}"
            f"{row['growth_per_hour']:>16.2f}{result['after'][name]:>16.1f}"
        )


if __name__ == "__main__":
    main()
