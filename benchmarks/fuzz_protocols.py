"""Fuzz what reads foreign bytes: every stream format, request bodies, strict JSON.

    pip install atheris
    python benchmarks/fuzz_protocols.py [--seconds 60] [--quick] [--json]

The corpus starts from a stream of each format. Any exception but ``ProtocolError``, a byte that
is lost or invented before the cut, a count that depends on the split or is over the budget, and
an ending that is missing are crashes: atheris prints the input and stops. Without atheris the
inputs are random changes to the corpus, which find less.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

try:
    import atheris
except ImportError:
    atheris = None

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

with atheris.instrument_imports(include=["streamguard"]) if atheris else contextlib.nullcontext():
    from streamguard.core.sse import EventSplitter
    from streamguard.core.streams import StreamMeter
    from streamguard.core.strict_json import dumps, loads
    from streamguard.errors import ProtocolError
    from streamguard.protocols import protocol_for_path, stream_named

from support.formats import FORMATS
from support.texts import CODE, EMOJI, ENGLISH
from support.wire import pieces_of, words_of

from streamguard.tokenizers import get_tokenizer

NAMES = sorted(FORMATS)
PATHS = sorted({form.path for form in FORMATS.values() if form.path} | {"/v1/embeddings"})
SEEN: Counter[str] = Counter()


def state_for(name: str):
    form = FORMATS[name]
    if form.by_name:
        return stream_named(name)()
    return stream_named(protocol_for_path(form.path).name)()


def run(name: str, pieces: list[bytes], budget: int | None, soft: int | None):
    meter = StreamMeter(state_for(name), get_tokenizer("o200k_base"), budget, soft=soft)
    out = b""
    for piece in pieces:
        out += meter.feed(piece)
        if meter.cut:
            break
    if not meter.cut:
        out += meter.finish()
    return meter, out


def fuzz_stream(head: bytes, stream: bytes) -> None:
    name = NAMES[head[1] % len(NAMES)]
    budget = None if head[2] == 255 else head[2]
    soft = None if head[3] > 100 else head[3]
    SEEN[name] += 1
    at, size = 0, 1 + head[4]
    cuts = [at := at + 1 + (size * 7919 + at) % (size + 3) for _ in range(min(64, len(stream)))]
    meter, out = run(name, pieces_of(stream, cuts), budget, soft)
    other, same = run(name, [stream], None, None)
    assert same == stream, "whole: bytes changed"
    if meter.cut:
        SEEN["cut"] += 1
        assert meter.counted <= budget, "over the budget"
        meter.end("cut")
        meter.feed(b"data: {}\n\n")
        assert meter.finish() == b""
    else:
        assert out == stream, "bytes changed"
        assert meter.counted == other.counted, "the count depends on the split"
        first, again = meter.end("strict"), meter.end("cut")
        assert not (first and again), "ended twice"
    read_as_a_client(out)


def read_as_a_client(out: bytes) -> None:
    """What is handed on must still split into events."""
    splitter = EventSplitter()
    events = [*splitter.feed(out), *splitter.finish()]
    assert b"".join(event.raw for event in events) == out


def fuzz_body(head: bytes, data: bytes) -> None:
    SEEN["body"] += 1
    try:
        body = loads(data)
    except ProtocolError:
        return
    SEEN["sound body"] += 1
    assert body == json.loads(data)
    assert loads(dumps(body)) == body
    path = PATHS[head[1] % len(PATHS)]
    protocol = protocol_for_path(path)
    try:
        request = protocol.parse(body, path)
    except ProtocolError:
        return
    SEEN["request"] += 1
    sent = protocol.rewrite(request, 1 + head[2])
    assert sent == protocol.rewrite(protocol.parse(sent, path), 1 + head[2]), "not settled"


def fuzz_reply(head: bytes, data: bytes) -> None:
    SEEN["reply"] += 1
    path = PATHS[head[1] % len(PATHS)]
    protocol = protocol_for_path(path)
    base = next((f.body for f in FORMATS.values() if f.path == path), {"model": "m", "input": "a"})
    request = protocol.parse(base, path)
    reply = protocol.read_reply(request, data)
    if reply.deltas:
        SEEN["reply with text"] += 1
        protocol.shorten_reply(request, data, [])


def one(data: bytes) -> None:
    head, rest = data[:5].ljust(5, b"\0"), data[5:]
    (fuzz_stream, fuzz_stream, fuzz_stream, fuzz_body, fuzz_reply)[head[0] % 5](head, rest)


def corpus() -> list[bytes]:
    words = words_of(ENGLISH[:80] + EMOJI[:20] + CODE[:60], 1)
    streams = [
        bytes([0, at, 20, 50, 9]) + FORMATS[name].build(words) for at, name in enumerate(NAMES)
    ]
    bodies = [bytes([3, PATHS.index(f.path), 9, 0, 0]) + json.dumps(f.body).encode()
              for f in FORMATS.values() if f.path]  # fmt: skip
    message = {
        "role": "assistant",
        "content": "hi",
        "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
    }
    replies = [
        {"choices": [{"index": 0, "message": message, "text": "hi"}]},
        {
            "content": [
                {"type": "text", "text": "hi"},
                {"type": "tool_use", "name": "f", "input": {"a": 1}},
            ]
        },
        {
            "output": [
                {"type": "message", "content": [{"text": "hi"}]},
                {"type": "function_call", "name": "f"},
            ]
        },
        {
            "candidates": [
                {
                    "content": {
                        "parts": [{"text": "hi"}, {"functionCall": {"name": "f", "args": {"a": 1}}}]
                    }
                }
            ]
        },
        {"message": message},
    ]
    whole = [
        bytes([4, at, 0, 0, 0]) + json.dumps(doc).encode()
        for at in range(len(PATHS))
        for doc in replies
    ]
    return streams + bodies + whole


def with_atheris(seconds: int) -> None:
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    for number, data in enumerate(corpus()):
        (folder / str(number)).write_bytes(data)
    arguments = [
        f"-max_total_time={seconds}",
        "-max_len=4096",
        "-print_final_stats=1",
        "-timeout=10",
    ]
    atheris.Setup([sys.argv[0], *arguments, str(folder)], one)
    atheris.Fuzz()


def at_random(seconds: float) -> None:
    chance, seeds, end = random.Random(1), corpus(), time.monotonic() + seconds
    while time.monotonic() < end:
        data = bytearray(chance.choice(seeds))
        data[1:5] = chance.randbytes(4)
        for _ in range(chance.randint(1, 8)):
            at = chance.randrange(5, len(data))
            change = chance.choice(
                (b"", b"\r", b"\n\n", b"\xff", b'"', b"{", b"}", b"\\", chance.randbytes(3))
            )
            data[at : at + chance.choice((0, 1, 9))] = change
        one(bytes(data))
    SEEN["inputs"] = SEEN["body"] + SEEN["reply"] + sum(SEEN[name] for name in NAMES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    seconds = 5 if args.quick else args.seconds
    if atheris is None:
        at_random(seconds)
        print(json.dumps(SEEN) if args.json else dict(SEEN))
        return
    child = os.fork()  # libFuzzer ends its process
    if child == 0:
        with_atheris(seconds)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    told = {"seconds": seconds, "crashed": code != 0}
    print(json.dumps(told) if args.json else f"{seconds} s, {'CRASHED' if code else 'no crash'}")
    sys.exit(code)


if __name__ == "__main__":
    main()
