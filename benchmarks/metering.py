"""What metering costs a chunk: against parsing the chunk, and against re-encoding each time.

    python benchmarks/metering.py [--quick] [--json]

"parse" reads one chat chunk with a typed msgspec decoder and does nothing else: the floor.
"feed" and "ask" (would_exceed, then feed) are the meter far from its limit, "to the limit" is a
stream whose limit is its own length, and "exact" asks for the exact count after each chunk.
"re-encode" is what a straightforward guard does: tiktoken over all text so far, each time.
Times are medians of rounds, in microseconds a chunk; ratios compare rows of the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import msgspec

from streamguard.core.metering import TextMeter
from streamguard.core.tokens import Tokenizer
from streamguard.tokenizers import get_tokenizer
from streamguard.tokenizers.encodings import encoding_spec
from streamguard.tokenizers.reference import load_reference

TEXTS = {
    "english": "The keeper wrote about the gulls, about the price of lamp oil in 1911, and about "
    'the fog that "walked up the stairs like a tired guest". Nobody answered.\n',
    "code": "def due(self, now: float) -> Iterator[Job]:\n    while self._heap:\n"
    "        yield heapq.heappop(self._heap)  # the earliest\n\n",
    "chinese": "灯塔看守人每个星期天写信\uff0c那天补给船不来。"
    "他写海鸥\uff0c写灯油的价格\uff0c写雾。",
    "emoji": "Great job 🎉🎉 you did it 😀👍🏽 see you soon ❤️ ",
}


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    index: int
    delta: _Delta
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    id: str
    choices: list[_Choice]


def deltas(tokenizer: Tokenizer, kind: str, tokens: int) -> list[str]:
    """About a token's worth of text a delta, as models stream it."""
    text = TEXTS[kind]
    size = max(1, round(len(text) / tokenizer.count(text)))
    text *= 1 + tokens * size // len(text)
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    return pieces[:tokens]


def chunk(text: str) -> bytes:
    """A chat completion chunk with this delta."""
    body = {
        "id": "chatcmpl-AbCdEfGhIjKlMnOpQrStUvWx",
        "object": "chat.completion.chunk",
        "created": 1_750_000_000,
        "model": "gpt-4o-2024-08-06",
        "service_tier": "default",
        "system_fingerprint": "fp_07871e2ad8",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
    }
    return json.dumps(body).encode()


def parse(pieces: list[str]) -> Callable[[], object]:
    """The floor."""
    decode, chunks = msgspec.json.Decoder(_Chunk).decode, [chunk(piece) for piece in pieces]

    def run() -> None:
        for data in chunks:
            decode(data)

    return run


def feed(tokenizer: Tokenizer, pieces: list[str]) -> Callable[[], object]:
    """Feed only."""

    def run() -> None:
        meter = TextMeter(tokenizer)
        for piece in pieces:
            meter.feed(piece)

    return run


def ask(tokenizer: Tokenizer, pieces: list[str], limit: int) -> Callable[[], object]:
    """Ask before each chunk whether it fits, and feed it."""

    def run() -> None:
        meter = TextMeter(tokenizer)
        for piece in pieces:
            if meter.would_exceed(limit, piece):
                break
            meter.feed(piece)

    return run


def exact(tokenizer: Tokenizer, pieces: list[str]) -> Callable[[], object]:
    """Read the exact count after each chunk."""

    def run() -> None:
        meter = TextMeter(tokenizer)
        for piece in pieces:
            meter.feed(piece)
            _ = meter.count

    return run


def microseconds(run: Callable[[], object], count: int, rounds: int) -> float:
    """Median time a chunk."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return statistics.median(times) / count * 1e6


def reencode(reference: Tokenizer, pieces: list[str]) -> float:
    """Time a chunk of encoding everything so far each time, from twenty evenly spaced chunks."""
    marks = [len(pieces) * (2 * at + 1) // 40 for at in range(20)]
    texts = ["".join(pieces[:mark]) for mark in marks]
    started = time.perf_counter()
    for text in texts:
        reference.count(text)
    return (time.perf_counter() - started) / len(texts) * 1e6


def row(tokenizer: Tokenizer, reference: Tokenizer, kind: str, tokens: int, rounds: int) -> dict:
    """All measurements of one text and length."""
    pieces = deltas(tokenizer, kind, tokens)
    total = tokenizer.count("".join(pieces))
    count = len(pieces)
    times = {
        "parse": microseconds(parse(pieces), count, rounds),
        "feed": microseconds(feed(tokenizer, pieces), count, rounds),
        "ask": microseconds(ask(tokenizer, pieces, 1 << 40), count, rounds),
        "to the limit": microseconds(ask(tokenizer, pieces, total), count, rounds),
        "exact": microseconds(exact(tokenizer, pieces), count, rounds),
        "re-encode": reencode(reference, pieces),
    }
    return {
        "text": kind,
        "chunks": count,
        **{name: round(value, 3) for name, value in times.items()},
        "(parse+meter)/parse": round(1 + times["to the limit"] / times["parse"], 2),
        "re-encode/meter": round(times["re-encode"] / times["to the limit"]),
    }


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rounds = 3 if options.quick else 9
    tokenizer = get_tokenizer("o200k_base")
    reference = load_reference(encoding_spec("o200k_base"))
    sizes = [(kind, 10_000) for kind in TEXTS]
    sizes += [("english", size) for size in ((1000,) if options.quick else (1000, 100_000))]
    rows = [row(tokenizer, reference, kind, size, rounds) for kind, size in sizes]
    if options.json:
        print(json.dumps(rows))
        return
    print("  ".join(f"{name:>{max(8, len(name))}}" for name in rows[0]))
    for values in rows:
        print("  ".join(f"{value:>{max(8, len(name))}}" for name, value in values.items()))


if __name__ == "__main__":
    main()
