"""The longest prefix of a text that fits a token limit, on top of what a meter has counted."""

from __future__ import annotations

from typing import Protocol, Self

_STEP = 32
_ASCII_WINDOW, _WINDOW = 128, 260


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
    that fit, then try every end up to where the settled tokens alone are too many. Inside a
    long run that is far away, yet few ends need to be tried: tokens are at most 128 bytes, so an
    end further off that fits has an edge among these few, and the text up to there is within
    ``limit - 1``. (260 where characters may be cut by edges; see ``runs``.)
    """
    ahead = meter.copy()
    start = _advance(ahead, text, limit)
    stop = _end_of_hope(ahead.copy(), text, limit, start)
    window = _ASCII_WINDOW if text[start : start + _WINDOW].isascii() else _WINDOW
    best, end, horizon = start, start + 1, start + window
    while end <= min(stop, horizon):
        if is_boundary(text, end) and not ahead.would_exceed(limit, text[start:end]):
            best = end
            if not ahead.would_exceed(limit - 1, text[start:end]):
                horizon = end + window
        end += 1
    return text[:best]


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
    """Feed on from ``start``; the position after which no prefix can fit, if it is near."""
    end = start
    while meter.lower <= limit:
        if end >= min(start + _WINDOW, len(text)):
            return len(text)
        meter.feed(text[end : end + _STEP])
        meter.settle()
        end += _STEP
    return min(end, len(text))


def is_boundary(text: str, end: int) -> bool:
    """Whether ``text[:end]`` does not end inside a surrogate pair."""
    return not (
        0 < end < len(text)
        and "\ud800" <= text[end - 1] <= "\udbff"
        and "\udc00" <= text[end] <= "\udfff"
    )
