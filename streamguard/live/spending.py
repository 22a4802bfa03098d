"""Today's costs and who spent them: from the usage ledger, or this process's own book."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from streamguard.live.book import LiveBook
from streamguard.live.costs import TOP, LedgerView
from streamguard.live.figures import Sums
from streamguard.sinks.schema import identifier

RANK_SECONDS = 5.0
"""How often very many callers are ranked: it takes milliseconds."""

_MANY = 512


class Spending:
    """Gives the sections ``cost`` and ``spenders``. Both name their ``source``."""

    def __init__(self, ledger: LedgerView | None) -> None:
        self._ledger = ledger
        self._state: object = None
        self._at = float("-inf")
        self._found: dict[str, Any] = {}

    async def figures(self, book: LiveBook, now: float) -> dict[str, Any]:
        """Both sections; the cost says where a ledger cannot be read."""
        told = {} if self._ledger is None else await self._ledger.figures(now)
        if "cost" in told:
            return told
        if self._state != book.state and now - self._at >= _pause(book):
            self._state, self._at, self._found = book.state, now, _ranked(book)
        cost = {**self._found["cost"], "ledger": told.get("error")}
        return {**self._found, "cost": cost}


def _pause(book: LiveBook) -> float:
    return RANK_SECONDS if len(book) > _MANY else 0.0


def _ranked(book: LiveBook) -> dict[str, Any]:
    today = book.today()
    source = {"source": "process", "since": book.since}
    by = {name: _top(ranked) for name, ranked in book.spenders(TOP).items()}
    return {
        "cost": {
            **source,
            "today": today.cost,
            "tokens": today.tokens,
            "calls": today.calls,
            "unpriced": today.unpriced,
        },
        "spenders": {**source, "total": today.cost, "by": by},
    }


def _top(ranked: Sequence[tuple[str | None, Sums]]) -> list[dict[str, Any]]:
    return [
        {
            "name": None if name is None else identifier(name),
            "cost": sums.cost,
            "tokens": sums.tokens,
            "calls": sums.calls,
        }
        for name, sums in ranked
    ]
