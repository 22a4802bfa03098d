"""What the upstream generates: a plan, its text in token-metered pieces, and what it bills."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import toktok

from support.texts import ENGLISH

Fault = Literal[
    "rate_limit",  # 429 with Retry-After
    "server_error",  # 500 before the stream
    "context_length",  # 400 context_length_exceeded
    "hang",  # 200 headers never come
    "hang_midway",  # silent after `fault_after` chunks
    "abort",  # the connection breaks after `fault_after` chunks
    "error_event",  # an error event after `fault_after` chunks, then the end
    "bare_end",  # the stream ends after `fault_after` chunks: no finish chunk, no [DONE]
]


@dataclass(frozen=True)
class Plan:
    """How a call is answered.

    ``chunk``: "token", "char", "whole", or a number of characters. ``delay`` is seconds before
    each chunk, ``first_delay`` before the first. ``tools`` are (name, arguments) pairs.
    ``hidden_tokens`` are reasoning tokens that are billed and not shown.
    """

    text: str = ENGLISH
    chunk: str | int = "token"
    delay: float = 0.0
    first_delay: float = 0.0
    fault: Fault | None = None
    fault_after: int = 3
    retry_after: str = "1"
    reasoning: str = ""
    tools: tuple[tuple[str, str], ...] = ()
    hidden_tokens: int = 0
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    obfuscate: bool = False
    report_usage: bool = True


class Piece(NamedTuple):
    text: str
    tokens: int


class Step(NamedTuple):
    """One delta of one choice: kind is content, reasoning or the tool call's number."""

    kind: str
    piece: Piece


_ENCODING = toktok._encoding("o200k_base")


def count(text: str) -> int:
    """Tokens of the text in o200k_base."""
    return len(_ENCODING.encode_ordinary(text))


@lru_cache(256)
def pieces(text: str, chunk: str | int, cap: int | None) -> tuple[Piece, ...]:
    """The first ``cap`` tokens of the text in pieces; no piece splits a character."""
    return tuple(_by_token(text, cap) if chunk == "token" else _by_size(text, chunk, cap))


def _by_token(text: str, cap: int | None) -> Iterator[Piece]:
    held, tokens = b"", 0
    for token in _ENCODING.encode_ordinary(text)[:cap]:
        held += _ENCODING.decode_single_token_bytes(token)
        tokens += 1
        with contextlib.suppress(UnicodeDecodeError):
            yield Piece(held.decode(), tokens)
            held, tokens = b"", 0
    if tokens:  # the cap fell inside a character: its tokens are billed, nothing shows
        yield Piece("", tokens)


def _by_size(text: str, chunk: str | int, cap: int | None) -> Iterator[Piece]:
    parts = list(_by_token(text, cap))
    shown = "".join(part.text for part in parts)
    size = {"char": 1, "whole": max(1, len(shown))}.get(str(chunk)) or int(chunk)
    ends = []  # (characters so far, tokens so far)
    chars = total = 0
    for part in parts:
        ends.append((chars, part.tokens))
        chars += len(part.text)
    for start in range(0, len(shown), size):
        begun = 0
        while ends and ends[0][0] < start + size:
            begun += ends.pop(0)[1]
        total += begun
        yield Piece(shown[start : start + size], begun)
    if ends:
        yield Piece("", sum(tokens for _chars, tokens in ends))


def prompt_tokens(body: dict[str, Any]) -> int:
    """What this upstream bills for a text prompt: content, role and 3 a message, 3 at the end."""
    total = 3
    for message in body.get("messages", []):
        content = message.get("content") or ""
        parts = content if isinstance(content, list) else [{"text": content}]
        total += 4 + sum(count(part.get("text", "")) for part in parts)
    return total


def cap_of(body: dict[str, Any]) -> int | None:
    return body.get("max_completion_tokens", body.get("max_tokens"))


def steps_of(plan: Plan, cap: int | None) -> tuple[list[Step], bool]:
    """The deltas of one choice and whether the cap cut them."""
    left = None if cap is None else cap - plan.hidden_tokens
    sources = [("reasoning", plan.reasoning), ("content", "" if plan.tools else plan.text)]
    sources += [(str(number), arguments) for number, (_name, arguments) in enumerate(plan.tools)]
    steps: list[Step] = []
    for kind, text in sources:
        if text and left is not None and left <= 0:
            return steps, True
        got = pieces(text, plan.chunk, left) if text else ()
        steps += [Step(kind, piece) for piece in got]
        spent = sum(piece.tokens for piece in got)
        if left is not None:
            if spent == left and count(text) > left:
                return steps, True
            left -= spent
    return steps, False


def finish_of(plan: Plan, cut: bool) -> str:
    return "length" if cut else "tool_calls" if plan.tools else "stop"
