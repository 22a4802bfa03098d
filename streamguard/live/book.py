"""What the live page remembers of events: bounded in memory, whoever calls. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from heapq import nlargest
from itertools import islice
from operator import attrgetter

from streamguard.core.alerts import DAY
from streamguard.live.figures import (
    Caller,
    Incident,
    Minute,
    Sums,
    Talk,
    Who,
    short,
    who_of,
)
from streamguard.usage import UsageEvent

MINUTES = 60
"""How far back the minutes go."""

SPENDERS = ("tenant", "user", "feature", "model")

_CALLERS = 8_192
_TALKS = 2_048
_INCIDENTS = 256
_TRIES = 8
_REFUSED = ("refused", "retry_refused")


class LiveBook:
    """Takes events, gives figures. A day is a UTC day.

    Where more call than are remembered, those who cost little are forgotten first; the day's
    sums keep what they cost.

    Attributes:
        since: Unix seconds from which on it knows.
        events: how many were taken.
        refused: calls refused since then.
        cuts: calls cut since then.
    """

    def __init__(self, since: float) -> None:
        self.since = since
        self.events = 0
        self.refused = 0
        self.cuts = 0
        self._day = int(since // DAY)
        self._forgotten = Sums()
        self._cost = 0  # nano-dollars of the day
        self._minutes: dict[int, Minute] = {}
        self._callers: OrderedDict[tuple[str | None, ...], Caller] = OrderedDict()
        self._talks: OrderedDict[str, Talk | tuple[int, Who]] = OrderedDict()
        self._incidents: OrderedDict[tuple[str, Who, str | None], Incident] = OrderedDict()

    def __len__(self) -> int:
        return len(self._callers)

    @property
    def state(self) -> tuple[int, int]:
        """Differs whenever the sums may."""
        return self.events, self._day

    def take(self, event: UsageEvent) -> None:
        """Note one event."""
        self.events += 1
        who = event.identity
        key = (who.tenant, who.user, who.feature, event.model, event.endpoint)
        caller = self._callers.get(key) or self._new(event)
        caller.seen = self.events
        minute = self._minutes.get(int(event.at // 60)) or self._minute(int(event.at // 60))
        if event.event == "settled":
            self._settled(event, caller, minute)
        else:
            self._incident(event, caller, minute)

    def roll(self, now: float) -> None:
        """Begin a new day's sums when it is one."""
        if now // DAY > self._day:
            self._day = int(now // DAY)
            self._forgotten = Sums()
            self._cost = 0

    def today(self) -> Sums:
        """Sums of the latest day."""
        total = Sums()
        total.add(self._forgotten)
        for caller in self._todays():
            total.add(caller)
        return total

    def minutes(self, now: float) -> list[Minute]:
        """The last hour, minute by minute, the running one last."""
        last = int(now // 60)
        return [self._minutes.get(at) or Minute() for at in range(last - MINUTES + 1, last + 1)]

    def callers(self, most: int) -> list[Who]:
        """Who called, the latest first."""
        latest = nlargest(most, self._callers.values(), key=attrgetter("seen"))
        return [caller.who for caller in latest]

    def spenders(self, most: int) -> Mapping[str, list[tuple[str | None, Sums]]]:
        """Today's sums by each of ``SPENDERS``, the most expensive first (then: most tokens)."""
        found: list[dict[str | None, Sums]] = [{} for _ in SPENDERS]
        for caller in self._todays():
            for name, sums in zip(caller.who, found, strict=False):
                known = sums.get(name)
                if known is None:
                    known = sums[name] = Sums()
                known.add(caller)
        return {
            by: nlargest(most, sums.items(), key=lambda pair: (pair[1].cost, pair[1].tokens))
            for by, sums in zip(SPENDERS, found, strict=True)
        }

    def talks(self, most: int) -> list[tuple[str, Talk]]:
        """The conversations whose prompt grew most."""
        known = (
            (key, talk)
            for key, talk in self._talks.items()
            if isinstance(talk, Talk) and talk.grew > 0
        )
        return nlargest(most, known, key=lambda pair: pair[1].grew)

    def incidents(self, most: int) -> list[Incident]:
        """The latest refusals, cuts and warnings, newest first."""
        return list(islice(reversed(self._incidents.values()), most))

    def _todays(self) -> Iterator[Caller]:
        return (one for one in self._callers.values() if one.day == self._day and one.calls)

    def _new(self, event: UsageEvent) -> Caller:
        who = who_of(event.identity, event.model, event.endpoint)
        caller = self._callers.get(who)  # names that were cut are found by what was left
        if caller is None:
            if len(self._callers) >= _CALLERS:
                self._forget()
            caller = self._callers[tuple(who)] = Caller(who)
        return caller

    def _forget(self) -> None:
        """Drop the oldest that cost no more today than callers do on average."""
        average = self._cost / len(self._callers)
        for _ in range(_TRIES):
            key, oldest = self._callers.popitem(last=False)
            if oldest.day != self._day or oldest.cost <= average:
                break
            self._callers[key] = oldest  # gets another turn
        else:
            del self._callers[key]
        if oldest.day == self._day:
            self._forgotten.add(oldest)

    def _minute(self, number: int) -> Minute:
        minute = self._minutes[number] = Minute()
        for old in [one for one in self._minutes if one <= number - MINUTES]:
            del self._minutes[old]
        return minute

    def _settled(self, event: UsageEvent, caller: Caller, minute: Minute) -> None:
        charged = event.charged
        tokens = 0
        if charged is not None:
            tokens = (charged.input_tokens or 0) + (charged.output_tokens or 0)
        minute.calls += 1
        minute.tokens += tokens
        if event.at // DAY > self._day:
            self.roll(event.at)
        if caller.day != self._day:
            caller.turn(self._day)
        caller.calls += 1
        caller.tokens += tokens
        if event.cost_nano_usd is None:
            caller.unpriced += 1
        else:
            caller.cost += event.cost_nano_usd
            self._cost += event.cost_nano_usd
        prompt = event.counted.input_tokens
        if event.conversation is not None and prompt is not None:
            self._said(event.conversation, prompt, caller.who, event)

    def _said(self, key: str, prompt: int, who: Who, event: UsageEvent) -> None:
        """One more prompt of a conversation. Most have no second one and cost as little."""
        talk = self._talks.get(key)
        if talk is None:
            self._talks[key] = (prompt, who)
            if len(self._talks) > _TALKS:
                self._talks.popitem(last=False)
            return
        if not isinstance(talk, Talk):
            talk = self._talks[key] = Talk(*talk)
        talk.calls += 1
        talk.prompts.append(prompt)
        talk.who, talk.window, talk.at = who, event.context_window, event.at
        self._talks.move_to_end(key)

    def _incident(self, event: UsageEvent, caller: Caller, minute: Minute) -> None:
        kind = "refused" if event.event in _REFUSED else event.event
        if kind == "refused":
            minute.refused += 1
            self.refused += 1
        elif kind == "cut":
            minute.cuts += 1
            self.cuts += 1
        reason = short(event.limit_name or event.code)
        key = (kind, caller.who, reason)
        incident = self._incidents.get(key)
        if incident is None:
            incident = self._incidents[key] = Incident(*key)
            if len(self._incidents) > _INCIDENTS:
                self._incidents.popitem(last=False)
        incident.take(event)
        self._incidents.move_to_end(key)
