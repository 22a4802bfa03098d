"""Events as structlog entries."""

from __future__ import annotations

import logging
import sys
from functools import cache
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


NAME = "streamguard"


def default_logger() -> Any:
    """The application's own structlog, where it configured it; else its ``logging``, where that
    has a handler; else standard error: standard output belongs to the application.
    """
    import structlog

    if structlog.is_configured():
        return structlog.get_logger(NAME)
    plain = logging.getLogger(NAME)
    if plain.hasHandlers():
        return structlog.wrap_logger(
            plain, _for_logging(), wrapper_class=structlog.stdlib.BoundLogger
        )
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr), _for_people(colors=sys.stderr.isatty())
    )


@cache
def _for_logging() -> list[Any]:
    import structlog

    return [
        structlog.stdlib.filter_by_level,
        structlog.processors.LogfmtRenderer(key_order=["event"]),
    ]


@cache
def _for_people(*, colors: bool) -> list[Any]:
    import structlog

    return [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%Y-%m-%d %H:%M:%S", utc=False),
        structlog.dev.ConsoleRenderer(colors=colors),
    ]


class StructlogSink:
    """One entry an event: the event's name, and the fields of ``streamguard.sinks.schema``.

    Without a ``logger`` entries go to ``structlog.get_logger("streamguard")`` where the
    application configured structlog, to ``logging.getLogger("streamguard")`` where it only
    configured ``logging`` (as logfmt), and else to standard error. structlog is imported at the
    first event. Refusals, cuts and changed requests are warnings, a store out of reach is an
    error, the rest is info.
    """

    def __init__(self, logger: Any = None) -> None:
        self._logger = logger

    def emit(self, event: UsageEvent) -> None:
        """Log the event."""
        logger = default_logger() if self._logger is None else self._logger
        log = getattr(logger, LEVELS.get(event.event, "info"))
        log(event.event, **flatten(event))
