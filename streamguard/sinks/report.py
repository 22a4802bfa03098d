"""How a sink tells the operator that it is in trouble: loudly, and without drowning the log."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamguard.sinks.structlog import default_logger

Report = Callable[..., None]
"""``report(event, **figures)``: numbers and short words only, never a URL or a row."""

QUIET_SECONDS = 60.0


def log_error(event: str, **figures: Any) -> None:
    """Log an error where events are logged by default."""
    default_logger().error(event, **figures)


class Complaints:
    """Passes a kind of trouble on at most once a minute; the end of it resets that."""

    def __init__(self, report: Report, clock: Callable[[], float]) -> None:
        """``clock`` is monotonic seconds."""
        self._report = report
        self._clock = clock
        self._told: dict[str, float] = {}

    def say(self, event: str, **figures: Any) -> bool:
        """Report it, unless it was reported within the last minute; whether it was now."""
        now = self._clock()
        if now - self._told.get(event, float("-inf")) < QUIET_SECONDS:
            return False
        self._told[event] = now
        self._report(event, **figures)
        return True

    def over(self, event: str) -> bool:
        """Forget it; True when it had been reported."""
        return self._told.pop(event, None) is not None
