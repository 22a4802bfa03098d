"""The gateway's log: lines for people, or JSON lines that wait until no call is kept waiting."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec
import structlog

from streamguard.sinks.schema import flatten
from streamguard.sinks.structlog import LEVELS
from streamguard.usage import UsageEvent

FLUSH_SECONDS = 0.05


class JSONLines:
    """A sink that writes an event a line, many lines at once and none while a call is begun."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """``stream`` is standard output by default."""
        self._stream = stream or sys.stdout
        self._waiting: list[UsageEvent] = []
        self._timer: asyncio.TimerHandle | None = None

    def emit(self, event: UsageEvent) -> None:
        """Keep the event until the next flush."""
        self._waiting.append(event)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what waits."""
        self._timer = None
        events, self._waiting = self._waiting, []
        self._stream.write("".join(map(_line_of, events)))
        self._stream.flush()

    async def close(self) -> None:
        """Write the rest."""
        if self._timer is not None:
            self._timer.cancel()
        self.flush()


class JSONFormatter(logging.Formatter):
    """Entries of the standard library's loggers as the same JSON lines."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; of an exception its kind and its place, since its text may quote anything."""
        more: dict[str, Any] = {"logger": record.name}
        if record.exc_info and record.exc_info[0] is not None:
            more["exception"] = record.exc_info[0].__name__
            more["at"] = _place(record.exc_info[2])
        return _line(record.getMessage(), record.levelname.lower(), record.created, more).rstrip()


def configure(*, as_json: bool) -> dict[str, Any] | None:
    """Set structlog up; what uvicorn is to be given as ``log_config``, if not its own."""
    if not as_json:
        structlog.configure()  # its own defaults, which print to standard output
        return None
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.add_log_level,
            structlog.processors.JSONRenderer(),
        ]
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": f"{__name__}.JSONFormatter"}},
        "handlers": {
            "out": {
                "class": "logging.StreamHandler",
                "formatter": "json",
                "stream": "ext://sys.stdout",
            }
        },
        "root": {"handlers": ["out"], "level": "WARNING"},
        "loggers": {"uvicorn": {"level": "INFO"}},
    }


def _line_of(event: UsageEvent) -> str:
    return _line(event.event, LEVELS.get(event.event, "info"), event.at, flatten(event))


def _line(event: str, level: str, at: float, more: Mapping[str, Any]) -> str:
    stamp = datetime.fromtimestamp(at or time.time(), UTC).isoformat().replace("+00:00", "Z")
    entry = {**more, "event": event, "timestamp": stamp, "level": level}
    return msgspec.json.encode(entry).decode() + "\n"


def _place(traceback: Any) -> str:
    """The file and line that raised."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return ""
    return f"{traceback.tb_frame.f_code.co_filename.rpartition('/')[2]}:{traceback.tb_lineno}"
