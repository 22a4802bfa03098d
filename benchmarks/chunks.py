"""What metering a stream costs a chunk, against the floor: decoding the chunk at all.

    python benchmarks/chunks.py [--quick] [--json]

Each row feeds one chunk a call. "decode" is msgspec reading the chunk into a typed struct;
"state" adds splitting the events and finding the deltas; "meter" is everything.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator

from streamguard.core.streams import StreamMeter
from streamguard.core.wire import StreamState
from streamguard.protocols import stream_named
from streamguard.protocols.openai_chat import decode_chunk
from streamguard.tokenizers import get_tokenizer

WORDS = (
    "the", " fog", " walked", " up", " stairs", ",", " like", " a", " tired", " guest", ".", "\n\n",
    " été", " 灯塔", " def", "(x", "):", " return", " 42", " 🙂",
)  # fmt: skip


def openai_chunk(word: str) -> bytes:
    body = {
        "id": "chatcmpl-AbCdEfGhIjKlMnOpQrStUvWx",
        "object": "chat.completion.chunk",
        "created": 1_750_000_000,
        "model": "gpt-4o-2024-08-06",
        "service_tier": "default",
        "system_fingerprint": "fp_07871e2ad8",
        "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}],
        "usage": None,
    }
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def chunks(count: int) -> list[bytes]:
    kinds = [openai_chunk(word) for word in WORDS]
    return [kinds[at * 7 % len(kinds)] for at in range(count)]


def chat_state() -> StreamState:
    return stream_named("openai_chat")()


def decode(data: list[bytes]) -> Callable[[], None]:
    bodies = [chunk[6:-2] for chunk in data]

    def run() -> None:
        for body in bodies:
            decode_chunk(body)

    return run


def state(data: list[bytes]) -> Callable[[], None]:
    feed = chat_state().feed

    def run() -> None:
        for chunk in data:
            feed(chunk)

    return run


def meter(data: list[bytes], allowance: int | None) -> Callable[[], None]:
    whole = StreamMeter(chat_state(), get_tokenizer("o200k_base"), allowance)

    def run() -> None:
        for chunk in data:
            whole.feed(chunk)
        assert not whole.cut
        assert whole.counted > 0

    return run


def cost(make: Callable[[], Callable[[], None]], count: int, rounds: int) -> float:
    """Median microseconds a chunk; a new object each round."""
    seen = []
    for _ in range(rounds):
        run = make()
        start = time.perf_counter()
        run()
        seen.append((time.perf_counter() - start) / count * 1e6)
    return statistics.median(seen)


def rows(sizes: list[int], rounds: int) -> Iterator[dict[str, float]]:
    for size in sizes:
        data = chunks(size)
        yield {
            "chunks": size,
            "decode": cost(lambda data=data: decode(data), size, rounds),
            "state": cost(lambda data=data: state(data), size, rounds),
            "meter, no limit": cost(lambda data=data: meter(data, None), size, rounds),
            "meter, far limit": cost(lambda data=data: meter(data, 10**8), size, rounds),
            "meter, to the limit": cost(
                lambda data=data, size=size: meter(data, exact(size)), size, rounds
            ),
        }


def exact(size: int) -> int:
    """The stream's own length: the budget is met to the token and never crossed."""
    whole = StreamMeter(chat_state(), get_tokenizer("o200k_base"))
    for chunk in chunks(size):
        whole.feed(chunk)
    return whole.counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    sizes, rounds = ([1_000, 10_000], 5) if args.quick else ([1_000, 10_000, 100_000], 9)
    found = list(rows(sizes, rounds))
    if args.json:
        print(json.dumps({"bytes": len(openai_chunk(" walked")), "us_per_chunk": found}))
        return
    print(f"microseconds a chunk of {len(openai_chunk(' walked'))} bytes, median of {rounds}")
    print("".join(f"{name:>22}" for name in found[0]))
    for row in found:
        print("".join(f"{value:>22,.2f}" for value in row.values()))


if __name__ == "__main__":
    main()
