"""Events as structlog entries."""

from __future__ import annotations

from typing import Any

from streamguard.sinks.schema import flatten
from streamguard.usage import EventName, UsageEvent

LEVELS: dict[EventName, str] = {
    "trimmed": "warning",
    "rerouted": "warning",
    "warned": "warning",
    "refused": "warning",
    "cut": "warning",
    "retry_refused": "warning",
    "store_error": "error",
}
"""Events that are not just information."""


class StructlogSink:
    """One entry an event: the event's name, and the fields of ``streamguard.sinks.schema``.

    structlog is imported at the first event; without a ``logger``,
    ``structlog.get_logger("streamguard")`` is used. Refusals, cuts and changed
    requests are warnings, a store out of reach is an error, the rest is info.
    """

    def __init__(self, logger: Any = None) -> None:
        self._logger = logger

    def emit(self, event: UsageEvent) -> None:
        """Log the event."""
        if self._logger is None:
            import structlog

            self._logger = structlog.get_logger("streamguard")
        log = getattr(self._logger, LEVELS.get(event.event, "info"))
        log(event.event, **flatten(event))
