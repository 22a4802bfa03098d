"""Questions to the usage ledger. Calls made inside another guarded call count once, in it.

Every answer is a list of flat dicts, ready for JSON. Tokens and cost are what the budgets were
charged; ``cost_usd`` is US dollars. A figure that no call knows is ``None``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, Select, and_, case, desc, func, select

from streamguard.core.alerts import DAY
from streamguard.identity import Identity
from streamguard.limits import NANO
from streamguard.sinks.ledger_table import DIMENSIONS, USAGE
from streamguard.usage import Usage, UsageEvent

Answer = dict[str, Any]

MICRO = 1_000_000
_C = USAGE.c
_REFUSED = _C.event.in_(("refused", "retry_refused"))
_SETTLED = _C.event == "settled"
_BY_TIME = _C.at >= 0  # always true; without it SQLite reads the table, not the period's index


@dataclass(frozen=True, slots=True)
class Period:
    """Which calls to look at.

    Attributes:
        since: Unix seconds, inclusive; ``None`` from the first.
        until: Unix seconds, exclusive; ``None`` to the last.
        only: dimension to value, such as ``{"tenant": "acme"}``.
    """

    since: float | None = None
    until: float | None = None
    only: Mapping[str, str] = field(default_factory=dict)

    def condition(self) -> ColumnElement[bool]:
        """As SQL."""
        parts: list[ColumnElement[bool]] = [_C.within.is_(None)]
        if self.since is not None:
            parts.append(_C.at >= round(self.since * MICRO))
        if self.until is not None:
            parts.append(_C.at < round(self.until * MICRO))
        parts += [_C[DIMENSIONS[name]] == value for name, value in self.only.items()]
        return and_(*parts)


ALL = Period()


class Ledger:
    """Reads a usage ledger. The methods wait for the database: not for an event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def totals(self, period: Period = ALL) -> Answer:
        """Calls by how they ended, tokens and cost; tokens read from and written to caches."""
        more = (
            func.min(_C.at).label("first"),
            func.max(_C.at).label("last"),
            func.sum(_C.charged_cached).label("cached"),
            func.sum(_C.charged_cache_write).label("written"),
        )
        row = self._rows(select(*_figures(), *more).where(period.condition(), _BY_TIME))[0]
        return {
            **_named(row),
            "cached_tokens": _whole(row.cached),
            "cache_write_tokens": _whole(row.written),
            "first_at": None if row.first is None else row.first / MICRO,
            "last_at": None if row.last is None else row.last / MICRO,
        }

    def top(self, by: str, limit: int = 10, period: Period = ALL) -> list[Answer]:
        """The values of a dimension that cost most (then: took most tokens), with figures."""
        key = _C[DIMENSIONS[by]]
        query = select(*_figures(), key).where(period.condition()).group_by(key)
        rows = self._rows(query)
        rows.sort(key=lambda row: (-(row.cost or 0), -_total(row), -row.calls))
        return [{by: row[-1], **_named(row)} for row in rows[:limit]]

    def series(self, step: int, period: Period = ALL) -> list[Answer]:
        """Figures by time: each step of ``step`` seconds that has calls, oldest first."""
        at = (_C.at // (step * MICRO)).label("step")
        chosen = select(*_figures(), at).where(period.condition(), _BY_TIME)
        query = chosen.group_by(at).order_by(at)
        return [{"at": row.step * step, **_named(row)} for row in self._rows(query)]

    def outliers(self, over: int, limit: int = 10, period: Period = ALL) -> list[Answer]:
        """The largest calls of more than ``over`` tokens, largest first."""
        query = (
            select(USAGE)
            .where(period.condition(), _C.total_tokens > over)
            .order_by(desc(_C.total_tokens))
            .limit(limit)
        )
        return [_call(row._asdict()) for row in self._rows(query)]

    def growth(self, limit: int = 10, period: Period = ALL) -> list[Answer]:
        """The conversations whose prompt grew most, with their input tokens call by call."""
        grew = (func.max(_C.counted_input) - func.min(_C.counted_input)).label("grew")
        has = _C.conversation.is_not(None)
        query = (
            select(_C.conversation, func.count().label("calls"), grew)
            .where(period.condition(), has)
            .group_by(_C.conversation)
            .order_by(desc(grew))
            .limit(limit)
        )
        found = [row for row in self._rows(query) if row.grew]
        return [self._conversation(row.conversation, row.calls, period) for row in found]

    def drift(self, period: Period = ALL) -> list[Answer]:
        """By model and method: what was counted against what the provider reported."""
        query = (
            select(_C.model, _C.method, *_differences())
            .where(period.condition(), _C.reported_input.is_not(None))
            .group_by(_C.model, _C.method)
            .order_by(desc("calls"))
        )
        return [_drift(row) for row in self._rows(query)]

    def history(self, since: float) -> list[UsageEvent]:
        """One settled call a UTC day, tenant and feature that holds the sums, oldest first.

        What alert rules need to go on after a restart; ``since`` is in Unix seconds, and its
        whole day counts.
        """
        day = (_C.at // (DAY * MICRO)).label("day")
        sums = (func.sum(_C.charged_input), func.sum(_C.charged_output), func.sum(_C.cost_nano_usd))
        query = (
            select(day, _C.tenant, _C.feature, *sums)
            .where(Period(since // DAY * DAY).condition(), _SETTLED)
            .group_by(day, _C.tenant, _C.feature)
            .order_by(day)
        )
        return [_day(row) for row in self._rows(query)]

    def _conversation(self, conversation: str, calls: int, period: Period) -> Answer:
        query = (
            select(_C.at, _C.counted_input, _C.tenant, _C.user_id, _C.feature, _C.model)
            .where(period.condition(), _C.conversation == conversation)
            .order_by(desc(_C.at))
            .limit(_SHOWN)
        )
        rows = self._rows(query)[::-1]
        last = rows[-1]
        return {
            "conversation": conversation,
            "tenant": last.tenant,
            "user": last.user_id,
            "feature": last.feature,
            "model": last.model,
            "calls": calls,
            "last_at": last.at / MICRO,
            "input_tokens": [row.counted_input for row in rows],
        }

    def _rows(self, query: Select[Any]) -> list[Row[Any]]:
        with self._engine.connect() as connection:
            return list(connection.execute(query).all())


_SHOWN = 50  # calls of a conversation


def _day(row: Row[Any]) -> UsageEvent:
    taken, made, cost = (_whole(one) for one in row[-3:])
    return UsageEvent(
        "settled",
        f"day-{row.day}",
        float(row.day * DAY),
        Identity(row.tenant, None, row.feature),
        charged=Usage(taken, made),
        cost_nano_usd=cost,
    )


def _figures() -> Sequence[ColumnElement[Any]]:
    return (
        func.count().label("calls"),
        func.count(case((_SETTLED, 1))).label("settled"),
        func.count(case((_C.outcome == "cut", 1))).label("cut"),
        func.count(case((_REFUSED, 1))).label("refused"),
        func.sum(_C.charged_input).label("input"),
        func.sum(_C.charged_output).label("output"),
        func.sum(_C.cost_nano_usd).label("cost"),
        func.count(case((and_(_SETTLED, _C.cost_nano_usd.is_(None)), 1))).label("unpriced"),
    )


def _total(row: Row[Any]) -> int:
    return int(row.input or 0) + int(row.output or 0)


def _named(row: Row[Any]) -> Answer:
    return {
        "calls": row.calls,
        "settled": row.settled,
        "cut": row.cut,
        "refused": row.refused,
        "input_tokens": _whole(row.input),
        "output_tokens": _whole(row.output),
        "total_tokens": _total(row) if row.input is not None else None,
        "cost_usd": None if row.cost is None else int(row.cost) / NANO,
        "unpriced": row.unpriced,
    }


def _whole(number: Any) -> int | None:
    return None if number is None else int(number)


def _call(row: Mapping[str, Any]) -> Answer:
    known = {name: value for name, value in row.items() if value is not None}
    known["at"] = row["at"] / MICRO
    if "user_id" in known:
        known["user"] = known.pop("user_id")
    if "cost_nano_usd" in known:
        known["cost_usd"] = known.pop("cost_nano_usd") / NANO
    return known


def _differences() -> Sequence[ColumnElement[Any]]:
    both = and_(_C.counted_input.is_not(None), _C.reported_input.is_not(None))
    return (
        func.count().label("calls"),
        func.count(case((_C.counted_input == _C.reported_input, 1))).label("exact"),
        func.count(case((_C.counted_input < _C.reported_input, 1))).label("under"),
        func.sum(case((both, _C.counted_input))).label("counted"),
        func.sum(case((both, _C.reported_input))).label("reported"),
        func.max(_C.reported_input - _C.counted_input).label("worst_under"),
        func.sum(case((_C.reported_output.is_not(None), _C.counted_output))).label("out_counted"),
        func.sum(case((_C.counted_output.is_not(None), _C.reported_output))).label("out_reported"),
    )


def _drift(row: Row[Any]) -> Answer:
    return {
        "model": row.model,
        "method": row.method,
        "calls": row.calls,
        "exact": row.exact,
        "under": row.under,
        "input_counted": _whole(row.counted),
        "input_reported": _whole(row.reported),
        "input_drift": _ratio(row.counted, row.reported),
        "worst_under": max(0, row.worst_under or 0),
        "output_counted": _whole(row.out_counted),
        "output_reported": _whole(row.out_reported),
        "output_drift": _ratio(row.out_counted, row.out_reported),
    }


def _ratio(counted: Any, reported: Any) -> float | None:
    """How far the count is over (+) or under (-) the report, as a fraction of the report."""
    return None if counted is None or not reported else int(counted) / int(reported) - 1
