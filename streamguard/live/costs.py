"""Costs from the usage ledger, for the live page: today, the week before, and by whom."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import anyio.to_thread

from streamguard.core.alerts import DAY
from streamguard.errors import ConfigurationError
from streamguard.limits import NANO
from streamguard.live.book import SPENDERS
from streamguard.sinks.schema import identifier

REFRESH = 10.0
"""Seconds after which the database is asked again, while somebody watches."""

WEEK = 7
TOP = 8


class LedgerView:
    """Asks a ledger for the figures of the page, in a thread, and keeps them for a while."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        """``url`` is the ledger's; ``clock`` is monotonic seconds.

        Raises:
            ConfigurationError: the URL is no ledger's, or the extra for ledgers is missing.
        """
        try:
            from streamguard.sinks.ledger_database import file_of
        except ImportError as error:
            raise ConfigurationError("the ledger needs pip install 'streamguard[sql]'") from error
        file_of(url)
        self._url = url
        self._clock = clock
        self._due = float("-inf")
        self._found: dict[str, Any] = {}

    async def figures(self, now: float) -> dict[str, Any]:
        """``{"cost": …, "spenders": …}`` as of ``now``, or a few seconds before.

        Where the ledger cannot be read there is only an ``error``.
        """
        if self._clock() >= self._due:
            self._found = await anyio.to_thread.run_sync(self._read, now)
            self._due = self._clock() + REFRESH
        return self._found

    def _read(self, now: float) -> dict[str, Any]:
        from sqlalchemy.exc import SQLAlchemyError

        from streamguard.sinks.ledger_database import connect, file_of
        from streamguard.sinks.ledger_queries import Ledger

        file = file_of(self._url)
        if file is not None and not file.is_file():
            return {"error": "there is no usage ledger yet"}
        engine = connect(self._url)
        try:
            return _ask(Ledger(engine), int(now // DAY))
        except SQLAlchemyError as error:
            return {"error": f"the usage ledger cannot be read ({type(error).__name__})"}
        finally:
            engine.dispose()


def _ask(ledger: Any, today: int) -> dict[str, Any]:
    from streamguard.sinks.ledger_queries import Period

    week = Period(since=(today - WEEK) * DAY, until=(today + 1) * DAY)
    days = {int(row["at"] // DAY): row for row in ledger.series(DAY, week)}
    first = ledger.totals()["first_at"]
    known = WEEK if first is None else min(WEEK, today - int(first // DAY))
    before = [_nano(days.get(day, {})) for day in range(today - WEEK, today)]
    period = Period(since=today * DAY, until=(today + 1) * DAY)
    row = days.get(today, {})
    return {
        "cost": {
            "source": "ledger",
            "today": _nano(row),
            "tokens": row.get("total_tokens") or 0,
            "calls": row.get("settled", 0),
            "unpriced": row.get("unpriced", 0),
            "days": before,
            "mean": sum(before) // known if known > 0 else None,
            "known_days": max(0, known),
        },
        "spenders": {
            "source": "ledger",
            "total": _nano(row),
            "by": {name: _top(ledger, name, period) for name in SPENDERS},
        },
    }


def _top(ledger: Any, name: str, period: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": None if row[name] is None else identifier(row[name]),
            "cost": _nano(row),
            "tokens": row["total_tokens"] or 0,
            "calls": row["settled"],
        }
        for row in ledger.top(name, TOP, period)
        if row["settled"]
    ]


def _nano(row: Mapping[str, Any]) -> int:
    return round((row.get("cost_usd") or 0) * NANO)
