"""Streams as bytes: chunks of the wire formats, and bytes cut into pieces."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any


def pieces_of(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The bytes cut at these places; places outside are left out."""
    edges = sorted({0, len(data), *(cut for cut in cuts if 0 < cut < len(data))})
    return [data[start:stop] for start, stop in pairwise(edges)]


def random_pieces(
    data: bytes, seed: int, sizes: Sequence[int] = (1, 7, 60, 300, 2000)
) -> list[bytes]:
    """The bytes in pieces of random sizes, the same ones for the same seed."""
    chance = random.Random(seed)
    cuts, at = [], 0
    while at < len(data):
        at += chance.choice(sizes)
        cuts.append(at)
    return pieces_of(data, cuts)


def words_of(text: str, seed: int, most: int = 12) -> list[str]:
    """The text in pieces of 1 to ``most`` characters."""
    chance = random.Random(seed)
    words, at = [], 0
    while at < len(text):
        size = chance.randint(1, most)
        words.append(text[at : at + size])
        at += size
    return words


def sse_event(data: Any, name: str | None = None) -> bytes:
    """One event; a string goes out as it is, anything else as JSON."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    head = f"event: {name}\n" if name else ""
    return f"{head}data: {text}\n\n".encode("utf-8", "surrogatepass")


def sse_data(stream: bytes) -> list[Any]:
    """The JSON of each event of a well-formed stream; ``[DONE]`` as a string."""
    assert stream == b"" or stream.endswith(b"\n\n")
    found = []
    for block in stream.decode().split("\n\n")[:-1]:
        lines = [line for line in block.split("\n") if line.startswith("data: ")]
        assert len(lines) == 1, block
        text = lines[0].removeprefix("data: ")
        found.append(text if text == "[DONE]" else json.loads(text))
    return found


def chat_chunk(
    delta: dict[str, Any], finish: str | None = None, index: int = 0, **more: Any
) -> bytes:
    """One Chat Completions chunk."""
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
    return sse_event({**CHAT_HEAD, "choices": [choice], **more})


CHAT_HEAD = {
    "id": "chatcmpl-1",
    "object": "chat.completion.chunk",
    "created": 1_760_000_000,
    "model": "gpt-4o-2024-08-06",
    "system_fingerprint": "fp_1",
}


def chat_stream(words: Iterable[str], *, usage: dict[str, int] | None = None) -> bytes:
    """A whole Chat Completions stream of one choice."""
    parts = [chat_chunk({"role": "assistant", "content": "", "refusal": None})]
    parts += [chat_chunk({"content": word}) for word in words]
    parts.append(chat_chunk({}, "stop"))
    if usage is not None:
        parts.append(sse_event({**CHAT_HEAD, "choices": [], "usage": usage}))
    return b"".join([*parts, sse_event("[DONE]")])


def chat_text(stream: bytes, index: int = 0, key: str = "content") -> str:
    """The text of one choice that a client got."""
    return "".join(
        choice["delta"].get(key) or ""
        for chunk in sse_data(stream)
        if chunk != "[DONE]"
        for choice in chunk.get("choices", ())
        if choice["index"] == index
    )
