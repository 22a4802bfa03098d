"""What the live page shows, as data for JSON: figures and identifiers, no text of prompts."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from heapq import nlargest
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

from streamguard.guard.call import Call
from streamguard.live.book import LiveBook
from streamguard.live.costs import LedgerView
from streamguard.live.figures import Incident, Talk, Who, who_of
from streamguard.live.sink import LiveSink
from streamguard.live.spending import Spending
from streamguard.live.windows import Windows
from streamguard.sinks.schema import identifier

if TYPE_CHECKING:
    from streamguard.guard.engine import Engine

STREAMS = 40
"""Open streams that are listed; all are counted."""

INCIDENTS = 16
TALKS = 8
_CALLERS = 300
_FIGURES = ("kind", "times", "at", "limit", "used", "requested", "output", "resets_at")

Section = tuple[str, dict[str, Any]]


class _Moment(NamedTuple):
    book: LiveBook
    calls: Sequence[Call]
    now: float


class LiveView:
    """Makes one picture of a guard at a time; costs nothing in between."""

    def __init__(
        self,
        guard: Engine,
        sink: LiveSink,
        ledger: LedgerView | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``clock`` gives Unix seconds."""
        self._guard = guard
        self._clock = clock
        self._sink = sink
        self._spending = Spending(ledger)
        self._windows = Windows(guard)
        self._makers = (
            ("streams", self._streams),
            ("pulse", self._pulse),
            ("incidents", self._incidents),
            ("talks", self._talks),
            ("cost", self._cost),
            ("spenders", self._spenders),
            ("windows", self._budgets),
        )

    async def sections(self) -> AsyncIterator[Section]:
        """Every section of the page as it is now.

        One that cannot be made just now says so in its ``error``.
        """
        now = self._clock()
        moment = _Moment(self._sink.book(), self._open(), now)
        moment.book.roll(now)
        for name, make in self._makers:
            try:
                data = await make(moment)
            except Exception as error:  # noqa: BLE001 - a look-up or store must not end the page
                data = {"error": type(error).__name__}
            yield name, data

    def _open(self) -> list[Call]:
        """The calls under way, without those made inside another one, oldest first."""
        known: list[Call] = []
        with contextlib.suppress(RuntimeError):  # another thread began one just now
            known = list(self._guard.open_calls)
        calls = [call for call in known if not _is_part(call)]
        return sorted(calls, key=lambda call: -call.elapsed)

    async def _streams(self, moment: _Moment) -> dict[str, Any]:
        shown = moment.calls
        if len(shown) > STREAMS:
            chosen = set(nlargest(STREAMS, shown, key=_part_used))
            shown = [call for call in shown if call in chosen]
        return {
            "open": len(moment.calls),
            "waiting": len(self._guard.waiting),
            "rows": [_stream(call, moment.now) for call in shown],
        }

    async def _pulse(self, moment: _Moment) -> dict[str, Any]:
        minutes = moment.book.minutes(moment.now)
        names = ("calls", "tokens", "refused", "cuts")
        series = {name: [getattr(one, name) for one in minutes] for name in names}
        return {"since": moment.book.since, **series}

    async def _incidents(self, moment: _Moment) -> dict[str, Any]:
        book = moment.book
        rows = [await self._incident(one, moment.now) for one in book.incidents(INCIDENTS)]
        return {"since": book.since, "refused": book.refused, "cuts": book.cuts, "rows": rows}

    async def _incident(self, one: Incident, now: float) -> dict[str, Any]:
        limits = await self._windows.limits(one.who, now) if one.who.whole else ()
        unit = next((limit.unit for limit in limits if limit.name == one.reason), "tokens")
        figures = {name: getattr(one, name) for name in _FIGURES}
        names = {"reason": _shown(one.reason), "code": _shown(one.code)}
        return {**figures, **names, **_named(one.who), "unit": unit}

    async def _talks(self, moment: _Moment) -> dict[str, Any]:
        return {"rows": [_talk(key, talk) for key, talk in moment.book.talks(TALKS)]}

    async def _cost(self, moment: _Moment) -> dict[str, Any]:
        cost: dict[str, Any] = (await self._spending.figures(moment.book, moment.now))["cost"]
        return cost

    async def _spenders(self, moment: _Moment) -> dict[str, Any]:
        found = await self._spending.figures(moment.book, moment.now)
        spenders: dict[str, Any] = found["spenders"]
        return spenders

    async def _budgets(self, moment: _Moment) -> dict[str, Any]:
        callers = chain(
            (_who(call) for call in moment.calls[:STREAMS]),
            (one.who for one in moment.book.incidents(INCIDENTS)),
            moment.book.callers(_CALLERS),
        )
        distinct = list(dict.fromkeys(islice(callers, _CALLERS)))
        return await self._windows.rows(distinct, moment.now)


def _is_part(call: Call) -> bool:
    return call.assessment.within is not None


def _produced(call: Call) -> int:
    return sum(meter.nearly for meter in call.meters)


def _part_used(call: Call) -> float:
    return sum(meter.counted_at_most for meter in call.meters) / max(1, call.ceiling)


def _who(call: Call) -> Who:
    subject = call.assessment.subject
    return who_of(subject.identity, subject.request.model, subject.endpoint)


def _named(who: Who) -> dict[str, str | None]:
    return {name: _shown(value) for name, value in who._asdict().items()}


def _shown(name: str | None) -> str | None:
    return None if name is None else identifier(name)


def _stream(call: Call, now: float) -> dict[str, Any]:
    return {
        "id": call.request_id,
        **_named(_who(call)),
        "at": round(now - call.elapsed, 1),
        "input": call.assessment.input_tokens,
        "output": _produced(call) if call.meters else None,
        "held": call.allowance,
        "limit": call.ceiling,
    }


def _talk(key: str, talk: Talk) -> dict[str, Any]:
    return {
        "id": key,
        **_named(talk.who),
        "calls": talk.calls,
        "first": talk.first,
        "prompts": list(talk.prompts),
        "window": talk.window,
        "at": talk.at,
    }
