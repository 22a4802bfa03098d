"""One budget: an amount, over a span, for a scope."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, timedelta, tzinfo
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Any, Literal, get_args
from zoneinfo import ZoneInfo

from streamguard.errors import ConfigurationError

Unit = Literal["tokens", "input_tokens", "output_tokens", "cost", "requests", "concurrency"]
UNITS: tuple[Unit, ...] = get_args(Unit)
Dimension = Literal["tenant", "user", "feature", "model", "endpoint"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)

NANO = 1_000_000_000
"""Nano-dollars in one US dollar: all money inside is whole nano-dollars."""

_LONGEST_SMOOTH = 86_400
"""Seconds over which a smooth rate may be given: what flows off longer is no rate."""

_NAMED = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800, "month": 0}
_SUFFIX = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"^(\d+)\s*([smhdw])$")


def to_nano(dollars: Decimal | str | int) -> int:
    """US dollars as whole nano-dollars, rounded up.

    Raises:
        ConfigurationError: not a finite decimal number.
    """
    try:
        amount = Decimal(dollars) * NANO
        return int(amount.to_integral_value(rounding=ROUND_CEILING))
    except (InvalidOperation, ValueError, OverflowError, TypeError) as error:
        message = f"cost {dollars!r} is not an amount of US dollars; write it like '25.00'"
        raise ConfigurationError(message) from error


def zone(name: str) -> tzinfo:
    """The time zone of an IANA name.

    Raises:
        ConfigurationError: the name is unknown here.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        message = (
            f"timezone {name!r} is not known here; use an IANA name such as 'Europe/Berlin', and "
            "install the package 'tzdata' where the system has no time zones (Windows, slim images)"
        )
        raise ConfigurationError(message) from error


def parse_span(per: str | timedelta) -> int | None:
    """A window's length in seconds; ``None`` for "request", 0 for the calendar "month".

    Raises:
        ConfigurationError: not "request", a named span, a number with a unit, or a timedelta.
    """
    if isinstance(per, timedelta):
        seconds = int(per.total_seconds())
        if seconds < 1:
            message = f"per={per!r} is shorter than a second; use at least timedelta(seconds=1)"
            raise ConfigurationError(message)
        return seconds
    if per == "request":
        return None
    if str(per) in _NAMED:
        return _NAMED[str(per)]
    match = _SPAN.match(str(per))
    if match is None or int(match[1]) < 1:
        message = f"per={per!r} is not a span; use 'request', 'minute', 'hour', 'day', '15m', …"
        raise ConfigurationError(message)
    return int(match[1]) * _SUFFIX[match[2]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One budget. Give exactly one amount.

    Attributes:
        tokens: input and output tokens together.
        input_tokens: input tokens.
        output_tokens: output tokens.
        cost: US dollars, ``Decimal`` or ``str`` (a float would not be exact).
        requests: calls.
        concurrency: calls under way at once (``per`` does not matter).
        per: "request", or a window: "minute", "hour", "day", "month", "15m", a timedelta.
        scope: each distinct combination of these has its own budget; empty is one for all.
        name: how events and refusals call it; made from the figures when absent.
        calendar: the window starts at the clock's minute, hour, day or month in ``timezone``;
            otherwise it slides.
        smooth: a steady rate instead of a window: what is used flows off evenly, ``amount`` in
            each span, so that any ``t`` seconds let through ``burst`` and ``t`` times the rate
            at most. For spans up to a day.
        burst: what may be used at once of a smooth limit; its amount where absent.
        timezone: IANA name, for calendar windows.
        where: only calls whose dimension has this value count, such as ``{"model": "gpt-4o"}``.
        soft: warn, never refuse.
        fail: while the store is out of reach: "closed" refuses, "open" grants, a number lets each
            worker go on with that share of what was last known to remain; the guard's
            ``store_policy`` where it is absent.
        unit: which of the amounts it holds.
        amount: that in whole units: tokens, calls, or nano-dollars for a cost.
        span: the window in seconds; ``None`` per request; 0 for a calendar month.
        capacity: what may be used before anything flows off: the burst of a smooth limit,
            the amount of any other.
    """

    tokens: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost: Decimal | str | None = None
    requests: int | None = None
    concurrency: int | None = None
    per: str | timedelta = "request"
    scope: tuple[Dimension, ...] = ()
    name: str = ""
    calendar: bool = False
    timezone: str = "UTC"
    smooth: bool = False
    burst: int | Decimal | str | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    soft: bool = False
    fail: str | float | None = None
    unit: Unit = field(init=False, repr=False, compare=False)
    amount: int = field(init=False, repr=False, compare=False)
    span: int | None = field(init=False, repr=False, compare=False)
    capacity: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the figures; raise ``ConfigurationError`` at the place that is wrong."""
        self._check_kinds()
        self._check_amount()
        self._check_scope()
        zone(self.timezone)
        object.__setattr__(self, "span", parse_span(self.per))
        if self.span is None and self.unit == "requests":
            message = "requests= needs a window: per='minute', 'hour', 'day', …"
            raise ConfigurationError(message)
        if self.timezone != "UTC" and self.span != 0 and not self.calendar:
            message = f"timezone={self.timezone!r} is for calendar windows; add calendar=True"
            raise ConfigurationError(message)
        if self.smooth:
            self._check_smooth()
        object.__setattr__(self, "capacity", self._capacity())
        if not self.name:
            object.__setattr__(self, "name", self._default_name())

    def _check_amount(self) -> None:
        given = [unit for unit in UNITS if getattr(self, unit) is not None]
        if len(given) != 1:
            message = f"a Limit takes exactly one amount, got {given or 'none'}; one of {UNITS}"
            raise ConfigurationError(message)
        object.__setattr__(self, "unit", given[0])
        object.__setattr__(self, "amount", self._whole(given[0]))
        if self.amount < 0:
            message = f"{given[0]}={getattr(self, given[0])!r} is negative; 0 refuses everything"
            raise ConfigurationError(message)

    def _whole(self, name: str) -> int:
        """An attribute in the limit's whole units."""
        value: Any = getattr(self, name)
        if self.unit == "cost":
            if isinstance(value, (float, bool)):
                message = f"{name}={value!r} is not exact; write it as a string, '{value}'"
                raise ConfigurationError(message)
            return to_nano(value)
        if isinstance(value, bool) or not isinstance(value, int):
            message = f"{name}={value!r} must be a whole number"
            raise ConfigurationError(message)
        return value

    def _check_smooth(self) -> None:
        reason = None
        if self.unit == "concurrency":
            reason = "calls at once have no rate; leave smooth out"
        elif not self.span or self.span > _LONGEST_SMOOTH:
            reason = f"per={self.per!r} is no rate; use a span from a second to a day"
        elif self.calendar:
            reason = "a calendar window starts anew, a smooth one never; choose one"
        elif self.amount < 1:
            reason = f"{self.unit}={getattr(self, self.unit)!r} never flows off; use more than 0"
        if reason is not None:
            message = f"smooth=True: {reason}"
            raise ConfigurationError(message)

    def _capacity(self) -> int:
        if self.burst is None:
            return self.amount
        if not self.smooth:
            message = f"burst={self.burst!r} is for smooth limits; add smooth=True or leave it out"
            raise ConfigurationError(message)
        burst = self._whole("burst")
        if burst < 1:
            message = f"burst={self.burst!r} refuses everything; use more than 0"
            raise ConfigurationError(message)
        return burst

    def _check_kinds(self) -> None:
        """A config file may say anything, and ``scope=("tenant")`` is no tuple."""
        scope: Any = self.scope
        where: Any = self.where
        given = (
            tuple(scope) if isinstance(scope, Iterable) and not isinstance(scope, str) else (None,)
        )
        if not all(isinstance(one, str) for one in given):
            message = f"scope={scope!r} must be a list such as ['tenant']"
            raise ConfigurationError(message)
        object.__setattr__(self, "scope", given)
        if not isinstance(where, Mapping) or not all(
            isinstance(one, str) for one in where.values()
        ):
            message = f"where={where!r} must be a table such as {{'model': 'gpt-4o'}}"
            raise ConfigurationError(message)
        for key, kind in (
            ("name", str),
            ("timezone", str),
            ("calendar", bool),
            ("soft", bool),
            ("smooth", bool),
        ):
            if not isinstance(getattr(self, key), kind):
                known = "a text in quotes" if kind is str else "true or false"
                raise ConfigurationError(f"{key}={getattr(self, key)!r} must be {known}")

    def _check_scope(self) -> None:
        unknown = (set(self.scope) | set(self.where)) - set(DIMENSIONS)
        if unknown:
            message = f"unknown scope {sorted(unknown)}; use any of {DIMENSIONS}"
            raise ConfigurationError(message)

    def _default_name(self) -> str:
        per = self.per if isinstance(self.per, str) else f"{int(self.per.total_seconds())}s"
        per = f"{per} smooth" if self.smooth else per
        by = f" by {'+'.join(self.scope)}" if self.scope else ""
        only = "".join(f" {key}={value}" for key, value in sorted(self.where.items()))
        return f"{getattr(self, self.unit)} {self.unit}/{per}{by}{only}"
