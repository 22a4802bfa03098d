"""The Lua operations of the Redis store, and how demands are passed to them."""

from __future__ import annotations

from functools import cache, lru_cache
from hashlib import sha1
from importlib.resources import files
from typing import NamedTuple

import msgspec

from streamguard.core.accounts import Window
from streamguard.core.ledger import milliseconds
from streamguard.core.windows import Calendar, Sliding, Smooth, ruler
from streamguard.errors import ConfigurationError

OPERATIONS = ("reserve", "extend", "trim", "renew", "settle", "release", "balances")

SHARED = ("smooth", "books", "answers")
"""What every operation has before it, in this order."""

VERSION = 1
"""Of the layout in books.lua; part of every key, so that two layouts never mix."""

MAX_TTL = 3_600_000
"""The longest hold in milliseconds: accounts are kept for their window and this long."""

AROUND = 2
"""Periods of a calendar passed before and after the caller's own: the script picks by the
server's clock."""

Row = list[object]
pack = msgspec.msgpack.Encoder().encode


class Script(NamedTuple):
    """One operation: its source, and the digest by which the server knows it."""

    source: str
    sha: str


@cache
def load() -> dict[str, Script]:
    """All operations, each with what is shared before it."""
    folder = files("streamguard.stores")
    shared = "".join(folder.joinpath(f"{name}.lua").read_text("utf-8") for name in SHARED)
    sources = {
        name: shared + folder.joinpath(f"{name}.lua").read_text("utf-8") for name in OPERATIONS
    }
    return {
        name: Script(source, sha1(source.encode(), usedforsecurity=False).hexdigest())
        for name, source in sources.items()
    }


@lru_cache(maxsize=65_536)
def account_keys(account: str, window: Window) -> tuple[str, str]:
    """The keys of an account and of its holds."""
    zone = f"@{window.timezone}" if window.calendar else ""
    leak = f"~{window.leak}" if window.leak else ""
    tag, _, rest = account.partition("|")
    key = f"sg{VERSION}:{{{tag}}}:{rest}:{window.seconds}{zone}{leak}"
    return key, f"{key}:holds"


def record_key(tag: str, reservation: str) -> str:
    """The key of a reservation in a group."""
    return f"sg{VERSION}:{{{tag}}}:r:{reservation}" if tag else f"sg{VERSION}:r:{reservation}"


def note_key(name: str) -> str:
    """The key of a note."""
    return f"sg{VERSION}:note:{name}"


def whole_ttl(seconds: float) -> int:
    """A hold's time to live as the scripts take it, in milliseconds.

    Raises:
        ConfigurationError: longer than ``MAX_TTL``.
    """
    if milliseconds(seconds) > MAX_TTL:
        message = f"ttl={seconds} s is too long; use up to {MAX_TTL // 1000} s and renew"
        raise ConfigurationError(message)
    return milliseconds(seconds)


_tables: dict[Window, tuple[int, Row]] = {}


def window_row(window: Window, at: int) -> Row:
    """Width and span of a sliding window, or the starts of a calendar's periods around ``at``;
    then how long an account is kept at least. Of a smooth one, the period and what leaks in it.
    """
    start = ruler(window).place(at)[1] if window.calendar or window.seconds == 0 else 0
    known = _tables.get(window)
    if known is None or known[0] != start:
        known = _tables[window] = (start, _window_row(window, at))
    return known[1]


def _window_row(window: Window, at: int) -> Row:
    rule = ruler(window)
    if isinstance(rule, Sliding):
        return [rule.width, rule.span, None, rule.span + rule.width + MAX_TTL]
    if isinstance(rule, Calendar):
        starts = rule.starts(at, AROUND)
        return [0, 0, starts, starts[-1] - starts[0] + MAX_TTL]
    if isinstance(rule, Smooth):
        return [rule.period, 0, None, 2 * MAX_TTL, rule.units]
    return [-1, 0, None, 2 * MAX_TTL]
