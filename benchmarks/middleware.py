"""What metering adds to a chunk over a pure pass-through ASGI wrapper, side by side in one run.

Drives both apps in one event loop without a network: the same chat stream of N chunks, through
(a) a wrapper that only forwards messages, (b) ``StreamGuardMiddleware``. The floor is (a) plus
parsing each chunk with the fastest typed decoder, which any meter must do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from typing import Any

import msgspec

from streamguard import Guard, Limit, StreamGuardMiddleware

HEAD = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o"}
WORDS = ["The", "keeper", "wrote", "his", "letters", "on", "Sundays", "when", "fog", "came"]


def chunks(count: int) -> list[bytes]:
    made = []
    for number in range(count):
        delta = {"content": f" {WORDS[number % len(WORDS)]}"}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        made.append(b"data: " + json.dumps({**HEAD, "choices": [choice]}).encode() + b"\n\n")
    last = {**HEAD, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    return [*made, b"data: " + json.dumps(last).encode() + b"\n\n", b"data: [DONE]\n\n"]


def streaming(parts: list[bytes]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for part in parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


def passing(app: Any) -> Any:
    async def wrapper(scope: Any, receive: Any, send: Any) -> None:
        async def forward(message: Any) -> None:
            await send(message)

        await app(scope, receive, forward)

    return wrapper


class Delta(msgspec.Struct):
    content: str | None = None


class Choice(msgspec.Struct):
    delta: Delta


class Chunk(msgspec.Struct):
    choices: list[Choice]


def parsing(app: Any) -> Any:
    decode = msgspec.json.Decoder(Chunk).decode

    async def wrapper(scope: Any, receive: Any, send: Any) -> None:
        async def forward(message: Any) -> None:
            if message["type"] == "http.response.body" and message["body"].startswith(b"data: {"):
                decode(message["body"][6:-2])
            await send(message)

        await app(scope, receive, forward)

    return wrapper


async def run(app: Any, limit: int) -> float:
    body = {
        "model": "gpt-4o",
        "stream": True,
        "max_completion_tokens": limit,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Tell me a story."}],
    }
    request = json.dumps(body).encode()
    waiting = [{"type": "http.request", "body": request, "more_body": False}]

    async def receive() -> Any:
        if waiting:
            return waiting.pop()
        return await asyncio.Event().wait()

    async def send(message: Any) -> None:
        return

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/chat/completions",
        "headers": [(b"content-type", b"application/json")],
    }
    # CPU time: nothing here waits, and other processes on the machine do not count.
    began = time.process_time()
    await app(scope, receive, send)
    return time.process_time() - began


async def measure(count: int, rounds: int) -> dict[str, float]:
    parts = chunks(count)
    limits = [Limit(tokens=10**12, per="day", scope=("tenant",))]
    app = streaming(parts)
    guard = Guard(limits=limits, sinks=[], catalog=None)
    apps = {
        "pass": passing(app),
        "parse": parsing(app),
        "guard": StreamGuardMiddleware(app, guard=guard),
    }
    times: dict[str, list[float]] = {name: [] for name in apps}
    for _ in range(rounds + 1):
        for name, each in apps.items():
            times[name].append(await run(each, 10**5 if count < 10**5 else 200_000))
    await guard.close()
    per_chunk = {name: statistics.median(took[1:]) / count * 1e6 for name, took in times.items()}
    return {
        "chunks": count,
        "pass_us": per_chunk["pass"],
        "floor_us": per_chunk["parse"] - per_chunk["pass"],
        "added_us": per_chunk["guard"] - per_chunk["pass"],
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true")
    options.add_argument("--json", action="store_true")
    given = options.parse_args()
    sizes = [1_000, 10_000] if given.quick else [1_000, 10_000, 100_000]
    rounds = 5 if given.quick else 15
    rows = [asyncio.run(measure(size, rounds)) for size in sizes]
    if given.json:
        print(json.dumps(rows))
        return
    print("chunks   pass-through us/chunk   floor (parse) adds   metering adds")
    for row in rows:
        print(
            f"{row['chunks']:>7,}{row['pass_us']:>20.2f}{row['floor_us']:>20.2f}"
            f"{row['added_us']:>18.2f}"
        )


if __name__ == "__main__":
    main()
