"""What metering a stream costs a chunk, against the floor: decoding the chunk at all.

    python benchmarks/chunks.py [--quick] [--json]

Each row feeds one chunk a call. "decode" is msgspec reading the chunk into a typed struct;
"state" adds splitting the events and finding the deltas; "meter" is everything. Columns take
turns in every round, and the figures are CPU time of the thread, so other work on the machine
changes them little. The second table is the whole cost for each wire format.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

from streamguard.core.json_lines import ArraySplitter, LineSplitter
from streamguard.core.sse import EventSplitter
from streamguard.core.streams import StreamMeter
from streamguard.core.wire import StreamState
from streamguard.protocols import protocol_for_path, stream_named
from streamguard.protocols.openai_chat import decode_chunk
from streamguard.tokenizers import get_tokenizer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.formats import FORMATS

Maker = Callable[[], Callable[[], None]]

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


def meter(start: StreamState, data: list[bytes], allowance: int | None) -> Callable[[], None]:
    whole = StreamMeter(start, get_tokenizer("o200k_base"), allowance)

    def run() -> None:
        for chunk in data:
            whole.feed(chunk)
        assert not whole.cut
        assert whole.counted > 0

    return run


def costs(makers: dict[str, Maker], count: int, rounds: int) -> dict[str, float]:
    """Median microseconds of CPU a chunk; new objects each round, the columns in turn."""
    seen: dict[str, list[float]] = {name: [] for name in makers}
    for _ in range(rounds):
        for name, make in makers.items():
            run = make()
            start = time.thread_time()
            run()
            seen[name].append((time.thread_time() - start) / count * 1e6)
    return {name: statistics.median(values) for name, values in seen.items()}


def row(size: int, rounds: int) -> dict[str, float]:
    data = chunks(size)
    length = exact(size)
    makers: dict[str, Maker] = {
        "decode": lambda: decode(data),
        "state": lambda: state(data),
        "meter, no limit": lambda: meter(chat_state(), data, None),
        "meter, far limit": lambda: meter(chat_state(), data, 10**8),
        "meter, to the limit": lambda: meter(chat_state(), data, length),
    }
    return {"chunks": size, **costs(makers, size, rounds)}


def formats(rounds: int) -> dict[str, float]:
    """Every wire format with 2,000 words, far from the limit."""
    found = {}
    for name, form in FORMATS.items():
        data = pieces(name, form.build([WORDS[at * 7 % len(WORDS)] for at in range(2_000)]))
        known = form.path and protocol_for_path(form.path)
        make = stream_named(known.name if known else name)
        maker = {name: lambda make=make, data=data: meter(make(), data, 10**8)}
        found |= costs(maker, len(data), rounds)
    return found


def pieces(name: str, stream: bytes) -> list[bytes]:
    """The stream as a provider writes it: one document a chunk."""
    if name == "plain":
        return [WORDS[at * 7 % len(WORDS)].encode() for at in range(2_000)]
    kind = {"ollama": LineSplitter, "gemini array": ArraySplitter}.get(name, EventSplitter)
    return [event.raw for event in kind().feed(stream)]


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
    found, kinds = [row(size, rounds) for size in sizes], formats(rounds)
    size = len(openai_chunk(" walked"))
    if args.json:
        print(json.dumps({"bytes": size, "us_per_chunk": found, "formats": kinds}))
        return
    print(f"CPU microseconds a chunk of {size} bytes, median of {rounds}")
    print("".join(f"{name:>21}" for name in found[0]))
    for one in found:
        print(f"{one['chunks']:>21,}" + "".join(f"{v:>21.2f}" for v in list(one.values())[1:]))
    print("\nthe whole cost by wire format")
    for name, value in kinds.items():
        print(f"{name:>21}{value:>21.2f}")


if __name__ == "__main__":
    main()
