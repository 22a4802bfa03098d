"""Time budgets of a call: first token, idle, whole stream."""

from __future__ import annotations

import math

from streamguard.errors import Lapse, TimeBudgetExceededError
from streamguard.guard.settings import Settings


class Deadlines:
    """When a call has to get on by; times are monotonic seconds of the caller's clock."""

    __slots__ = ("_began", "_first", "_idle", "_last", "_started", "_whole", "active")

    def __init__(self, settings: Settings, now: float) -> None:
        self._first = settings.first_token_seconds or math.inf
        self._idle = settings.idle_seconds or math.inf
        self._whole = settings.stream_seconds or math.inf
        self._began = self._last = now
        self._started = False
        self.active = min(self._first, self._idle, self._whole) < math.inf

    def progress(self, now: float, *, started: bool) -> None:
        """Something came; ``started`` once it was output."""
        self._last = now
        self._started = self._started or started

    @property
    def due(self) -> float:
        """When the next budget lapses; infinite when none can."""
        waiting = self._last + self._idle if self._started else self._began + self._first
        return min(waiting, self._began + self._whole)

    def lapsed(self, now: float) -> TimeBudgetExceededError | None:
        """The budget that lapsed by ``now``."""
        return None if now < self.due else self.error(now)

    def error(self, now: float) -> TimeBudgetExceededError:
        """What to say of a call that is stopped ``now``."""
        lapse, seconds = self._which(now)
        message = (
            f"the {lapse.replace('_', ' ')} time budget of {seconds:g} s is used up after "
            f"{now - self._began:.1f} s; try again, or raise {lapse}_seconds"
        )
        return TimeBudgetExceededError(message, lapse=lapse, seconds=seconds)

    def _which(self, now: float) -> tuple[Lapse, float]:
        if now >= self._began + self._whole:
            return "stream", self._whole
        return ("idle", self._idle) if self._started else ("first_token", self._first)
