"""How soon the upstream is closed after a cut and after the client left, on three servers.

Real servers and a real upstream on loopback. The upstream notes when its peer went away. For a
cut the clock starts when the client has read the ending; for a disconnect, when it closes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import httpx2
from support.proxy import proxy
from support.servers import SERVERS, serve
from support.upstream import Plan, Upstream

from streamguard import Guard, Limit, StreamGuardMiddleware

BODY = {
    "model": "gpt-4o",
    "stream": True,
    "messages": [{"role": "user", "content": "Tell me a story."}],
}


async def once(url: str, upstream: Upstream, *, leave: bool) -> float:
    upstream.calls.clear()
    async with (
        httpx2.AsyncClient(timeout=30) as client,
        client.stream("POST", f"{url}/v1/chat/completions", json=BODY) as answer,
    ):
        began = time.monotonic()
        async for _ in answer.aiter_raw():
            began = time.monotonic()
            if leave:
                break
    call = upstream.calls[0]
    await asyncio.to_thread(call.wait_over)
    if call.closed_at is None:
        raise RuntimeError("the upstream ran to its end")
    return max(0.0, call.closed_at - began) * 1e3


async def measure(server: str, upstream: Upstream, rounds: int) -> list[dict[str, Any]]:
    rows = []
    for event, leave, limits in (
        ("cut", False, [Limit(output_tokens=10)]),
        ("disconnect", True, []),
    ):
        guard = Guard(limits=limits, sinks=[])
        app = StreamGuardMiddleware(proxy(upstream.base_url), guard=guard)
        with serve(app, server) as url:
            took = [await once(url, upstream, leave=leave) for _ in range(rounds)]
        row = {"server": server, "event": event, "median_ms": statistics.median(took)}
        rows.append({**row, "max_ms": max(took), "rounds": rounds})
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    rows = []
    with Upstream(default=Plan(delay=0.01)) as upstream:
        for server in SERVERS:
            rows += asyncio.run(measure(server, upstream, 5 if given.quick else 50))
    if given.json:
        print(json.dumps(rows))
        return
    print("server      event        median ms   max ms   rounds")
    for row in rows:
        print(
            f"{row['server']:<12}{row['event']:<13}{row['median_ms']:>9.1f}{row['max_ms']:>9.1f}"
            f"{row['rounds']:>9}"
        )


if __name__ == "__main__":
    main()
