"""The longest prefix of a text that fits a token limit, on top of what a meter has counted."""

from __future__ import annotations

from typing import Protocol, Self

_STEP = 32


class Meter(Protocol):
    """What is asked of a text meter."""

    @property
    def lower(self) -> int:
        """Tokens that stay, whatever is fed."""

    def feed(self, text: str) -> None:
        """Add text."""

    def settle(self) -> None:
        """Bring ``lower`` up to date."""

    def would_exceed(self, limit: int, text: str = "") -> bool:
        """Whether all text fed and ``text`` together are over the limit."""

    def copy(self) -> Self:
        """A meter that goes on from here on its own."""


def longest_prefix(meter: Meter, text: str, limit: int) -> str:
    """The longest prefix of ``text`` that ``meter`` can be fed within ``limit`` tokens.

    Counts are not monotone: a longer text may have fewer tokens. So first go forward in steps
    that fit, then on to where the settled tokens alone are too many, and from there back.
    """
    ahead = meter.copy()
    start = _advance(ahead, text, limit)
    stop = _end_of_hope(ahead.copy(), text, limit, start)
    for end in range(stop, start, -1):
        if is_boundary(text, end) and not ahead.would_exceed(limit, text[start:end]):
            return text[:end]
    return text[:start]


def _advance(meter: Meter, text: str, limit: int) -> int:
    """Feed steps, ever smaller, that fit; the end of the last."""
    start, size = 0, len(text)
    while size > 0:
        end = start + size
        fits = end <= len(text) and is_boundary(text, end)
        if fits and not meter.would_exceed(limit, text[start:end]):
            meter.feed(text[start:end])
            start = end
        else:
            size //= 2
    return start


def _end_of_hope(meter: Meter, text: str, limit: int, start: int) -> int:
    """Feed on from ``start``; the position after which no prefix can fit."""
    while start < len(text) and meter.lower <= limit:
        meter.feed(text[start : start + _STEP])
        meter.settle()
        start = min(start + _STEP, len(text))
    return start


def is_boundary(text: str, end: int) -> bool:
    """Whether ``text[:end]`` does not end inside a surrogate pair."""
    return not (
        0 < end < len(text)
        and "\ud800" <= text[end - 1] <= "\udbff"
        and "\udc00" <= text[end] <= "\udfff"
    )
