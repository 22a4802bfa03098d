"""When usage stops counting. Times are whole milliseconds since the Unix epoch.

A ruler cuts time into numbered buckets and says which of them count at a moment.

- Sliding: ``BUCKETS`` buckets a window; the oldest one that is only partly inside counts in
  full. So no stretch of the window's length ever holds more than the limit, at the price of
  releasing up to ``1 / BUCKETS`` of a window late (1 s for a minute, 24 min for a day).
  Weighting the oldest bucket instead reaches 1.9 times the limit under a burst.
- Calendar: one bucket a period, numbered by the instant it starts. Days, weeks and months
  start at local midnight, so a day may have 23 or 25 hours; hours and shorter periods follow
  the local offset and begin anew at a change of it.
- Smooth: a bucket that leaks. What is used flows off evenly, so any stretch of ``t`` seconds
  admits the capacity and ``t`` times the rate at most. Its only bucket is the present moment.
- No window: nothing ages; only what is held counts.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta, tzinfo
from functools import cache
from math import gcd
from typing import Protocol

from streamguard.core.accounts import Window
from streamguard.errors import ConfigurationError
from streamguard.limits import zone

BUCKETS = 60
"""Buckets of a sliding window: it releases at most 1/60 of its length late."""

HOUR, DAY, WEEK = 3_600, 86_400, 604_800
FOREVER = 10**14
"""Milliseconds of three thousand years."""

_SECOND = 1_000


class Ruler(Protocol):
    """Which buckets of time count."""

    def place(self, now: int) -> tuple[int, int]:
        """The oldest bucket that counts at ``now``, and the one that is being filled."""

    def until(self, now: int) -> int:
        """The moment after ``now`` from which ``place`` may answer differently."""

    def release(self, bucket: int) -> int:
        """The moment from which ``bucket`` no longer counts."""


class Sliding:
    """The last ``seconds`` seconds, in buckets of equal width."""

    __slots__ = ("span", "width")

    def __init__(self, seconds: int) -> None:
        self.span = seconds * _SECOND
        self.width = -(-self.span // BUCKETS)

    def place(self, now: int) -> tuple[int, int]:
        """See ``Ruler``."""
        return (now - self.span) // self.width, now // self.width

    def until(self, now: int) -> int:
        """See ``Ruler``."""
        first, current = self.place(now)
        return min((current + 1) * self.width, (first + 1) * self.width + self.span)

    def release(self, bucket: int) -> int:
        """See ``Ruler``."""
        return (bucket + 1) * self.width + self.span


class Smooth:
    """A level that ``units`` flow off of each ``period`` milliseconds, in whole units.

    ``part`` is what has flowed of the next unit, in ``1 / period``: however often a level is
    looked at, nothing is lost and nothing flows twice.
    """

    __slots__ = ("period", "units")

    def __init__(self, units: int, seconds: int) -> None:
        span = seconds * _SECOND
        common = gcd(units, span)
        self.units, self.period = units // common, span // common

    def place(self, now: int) -> tuple[int, int]:
        """See ``Ruler``."""
        return now, now

    def until(self, now: int) -> int:
        """See ``Ruler``."""
        return now + 1

    def release(self, bucket: int) -> int:
        """See ``Ruler``."""
        return bucket

    def flow(self, elapsed: int, part: int) -> tuple[int, int]:
        """The units that flow off in ``elapsed`` milliseconds, and the part of the next."""
        return divmod(elapsed * self.units + part, self.period)

    def time(self, units: int, part: int) -> int:
        """Milliseconds until ``units`` have flowed off, ``FOREVER`` at most."""
        return min(FOREVER, -((part - units * self.period) // self.units))


class Unaged:
    """No window: one bucket for ever, which nothing is ever charged to."""

    __slots__ = ()

    def place(self, now: int) -> tuple[int, int]:  # noqa: ARG002
        """See ``Ruler``."""
        return 0, 0

    def until(self, now: int) -> int:
        """See ``Ruler``."""
        return now + FOREVER

    def release(self, bucket: int) -> int:
        """See ``Ruler``."""
        return bucket


class Calendar:
    """The clock's own minutes, hours, days, weeks or months in a time zone."""

    __slots__ = ("_last", "seconds", "zone")

    def __init__(self, seconds: int, zone: tzinfo) -> None:
        self.seconds = seconds
        self.zone = zone
        self._last = (0, 0)

    def place(self, now: int) -> tuple[int, int]:
        """See ``Ruler``."""
        start, end = self._last
        if not start <= now < end:
            start, end = self._last = self.period(now)
        return start, start

    def until(self, now: int) -> int:
        """See ``Ruler``."""
        return self.release(self.place(now)[1])

    def release(self, bucket: int) -> int:
        """See ``Ruler``."""
        start, end = self._last
        return end if bucket == start else self.period(bucket)[1]

    def period(self, now: int) -> tuple[int, int]:
        """Start and end of the period that ``now`` lies in."""
        moment = now // _SECOND
        cut = self._ticks if 0 < self.seconds <= HOUR else self._dates
        start, end = cut(moment)
        return start * _SECOND, end * _SECOND

    def starts(self, now: int, around: int) -> list[int]:
        """Starts of the period of ``now``, of ``around`` before it and ``around + 1`` after.

        A store that decides by its own clock picks its period from these.
        """
        start, end = self.period(now)
        found = [start, end]
        for _ in range(around):
            found.insert(0, self.period(found[0] - 1)[0])
            found.append(self.period(found[-1])[1])
        return found

    def _ticks(self, moment: int) -> tuple[int, int]:
        """An hour or a whole part of one, counted on the local offset."""
        start = moment - (moment + self._offset(moment)) % self.seconds
        end = start + self.seconds
        if self._offset(start) != self._offset(moment):
            start = self._change(start, moment)
        elif self._offset(end - 1) != self._offset(moment):
            end = self._change(moment, end)
        return start, end

    def _dates(self, moment: int) -> tuple[int, int]:
        """Whole hours (2, 3, 4, 6, 8, 12), days, weeks and months on the local clock face."""
        local = datetime.fromtimestamp(moment, self.zone)
        day = local.date()
        if self.seconds == 0:
            first = day.replace(day=1)
            return self._midnight(first), self._midnight(_next_month(first))
        if self.seconds >= DAY:
            days = self.seconds // DAY
            first = day - timedelta(days=day.weekday() if days > 1 else 0)
            return self._midnight(first), self._midnight(first + timedelta(days=days))
        step = self.seconds // HOUR
        hour = local.hour - local.hour % step
        return self._instant(day, hour), self._instant(day, hour + step)

    def _midnight(self, day: date) -> int:
        return self._instant(day, 0)

    def _instant(self, day: date, hour: int) -> int:
        """Where the clock face shows this first; in a gap, the instant of the change."""
        face = datetime(day.year, day.month, day.day) + timedelta(hours=hour)  # noqa: DTZ001
        return int(face.replace(tzinfo=self.zone).timestamp())

    def _offset(self, moment: int) -> int:
        offset = datetime.fromtimestamp(moment, self.zone).utcoffset() or timedelta()
        return int(offset.total_seconds())

    def _change(self, before: int, after: int) -> int:
        """The first second that has the offset of ``after``."""
        target = self._offset(after)
        while after - before > 1:
            middle = (before + after) // 2
            if self._offset(middle) == target:
                after = middle
            else:
                before = middle
        return after


def _next_month(first: date) -> date:
    return (first + timedelta(days=31)).replace(day=1)


@cache
def ruler(window: Window) -> Ruler:
    """The ruler of a window.

    Raises:
        ConfigurationError: the time zone is unknown, or the calendar has no such period.
    """
    if window.seconds is None:
        return Unaged()
    if window.seconds < 0:
        message = f"a window of {window.seconds} seconds; use 1 or more"
        raise ConfigurationError(message)
    if window.leak:
        return smooth(window)
    if window.seconds and not window.calendar:
        return Sliding(window.seconds)
    seconds = window.seconds
    if seconds not in {0, DAY, WEEK} and HOUR % seconds and (seconds % HOUR or DAY % seconds):
        message = (
            f"no calendar window of {seconds} seconds; use month, week, day, hour, minute, "
            "or a span that divides an hour, or whole hours that divide a day"
        )
        raise ConfigurationError(message)
    return Calendar(seconds, zone(window.timezone))


@cache
def smooth(window: Window) -> Smooth:
    """The ruler of a window that leaks."""
    return Smooth(window.leak, window.seconds or 1)
