"""What wrapping a client costs: per chunk and per call, and how soon a cut closes the upstream.

Calls go over loopback to a real upstream; the same client is used plain and wrapped, in turn.
``closed`` is from the arrival of the chunk that was cut to the upstream's note that its peer went
away; the upstream sends a token every 5 ms.
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
import openai
from support.books import HELLO, Deaf
from support.upstream import Plan

from streamguard import Guard, Limit

CHAT: dict[str, Any] = {"model": "gpt-4o", "messages": HELLO}
CHUNKS = 2_000


class Replay(httpx2.AsyncBaseTransport):
    """A response without a network, a chunk at a time: only the client's own work is left."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks = chunks

    async def handle_async_request(self, _request: httpx2.Request) -> httpx2.Response:
        headers = {"content-type": "text/event-stream"}
        return httpx2.Response(200, headers=headers, content=self.body())

    async def body(self) -> Any:
        for chunk in self.chunks:
            yield chunk


def chunks_of(number: int) -> list[bytes]:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
    events = [
        {**head, "choices": [{"index": 0, "delta": {"content": f" word{at % 97}"}}]}
        for at in range(number)
    ]
    return [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]


async def per_chunk(client: httpx2.AsyncClient) -> float:
    began = time.perf_counter()
    url = "http://replay/v1/chat/completions"
    async with client.stream("POST", url, json={**CHAT, "stream": True}) as answer:
        async for _ in answer.aiter_raw():
            pass
    return (time.perf_counter() - began) / CHUNKS * 1e6


async def chunk_costs(rounds: int) -> tuple[float, float]:
    plain = httpx2.AsyncClient(transport=Replay(chunks_of(CHUNKS)))
    limits = [Limit(output_tokens=10**6)]
    wrapped = Guard(limits=limits, sinks=[], reserve_output=100_000).wrap(plain)
    took = [(await per_chunk(plain), await per_chunk(wrapped)) for _ in range(rounds)]
    return statistics.median(one for one, _ in took), statistics.median(two for _, two in took)


async def call_costs(raw: openai.AsyncOpenAI, rounds: int) -> tuple[float, float]:
    wrapped = Guard(limits=[Limit(tokens=10**9, per="day")], sinks=[]).wrap(raw)

    async def one(client: openai.AsyncOpenAI) -> float:
        began = time.perf_counter()
        await client.chat.completions.create(**CHAT)
        return (time.perf_counter() - began) * 1e3

    took = [(await one(raw), await one(wrapped)) for _ in range(rounds)]
    return statistics.median(one for one, _ in took), statistics.median(two for _, two in took)


async def closing(raw: openai.AsyncOpenAI, upstream: Deaf, kind: str, rounds: int) -> float:
    guard = Guard(limits=[Limit(output_tokens=10)], sinks=[])
    took = []
    arrived = [0.0]

    class Noting(httpx2.AsyncHTTPTransport):
        """Notes when each part of a response arrives."""

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            answer = await super().handle_async_request(request)
            return httpx2.Response(200, headers=answer.headers, stream=Parts(answer.stream))

    class Parts(httpx2.AsyncByteStream):
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        async def __aiter__(self) -> Any:
            async for part in self.stream:
                arrived[0] = time.monotonic()
                yield part

        async def aclose(self) -> None:
            await self.stream.aclose()

    raw = raw.copy(http_client=httpx2.AsyncClient(transport=Noting()))
    for _ in range(rounds):
        upstream.calls.clear()
        if kind == "wrap":
            source: Any = await guard.wrap(raw).chat.completions.create(**CHAT, stream=True)
        else:
            source = guard.stream(raw.chat.completions.create(**CHAT, stream=True), **CHAT)
        async for _ in source:
            pass
        call = await asyncio.to_thread(upstream.calls[0].wait_over)
        if call.closed_at is None:
            raise RuntimeError("the upstream ran to its end")
        took.append((call.closed_at - arrived[0]) * 1e3)
    await raw.close()
    return statistics.median(took)


async def measure(upstream: Deaf, rounds: int) -> dict[str, float]:
    upstream.default = Plan(delay=0.005)
    async with openai.AsyncOpenAI(base_url=upstream.base_url, api_key="k") as raw:
        closed = {kind: await closing(raw, upstream, kind, rounds) for kind in ("wrap", "stream")}
        upstream.default = Plan(text="Hello.")
        calls = await call_costs(raw, rounds * 4)
    chunks = await chunk_costs(max(3, rounds // 2))
    return {
        "chunk, plain client (µs)": chunks[0],
        "chunk, wrapped (µs)": chunks[1],
        "chunk, added (µs)": chunks[1] - chunks[0],
        "whole call, plain (ms)": calls[0],
        "whole call, wrapped (ms)": calls[1],
        "upstream closed after a cut, guard.wrap (ms)": closed["wrap"],
        "upstream closed after a cut, guard.stream (ms)": closed["stream"],
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    with Deaf() as upstream:
        row = asyncio.run(measure(upstream, 5 if given.quick else 30))
    if given.json:
        print(json.dumps(row))
        return
    for name, value in row.items():
        print(f"{name:<50}{value:>8.2f}")


if __name__ == "__main__":
    main()
