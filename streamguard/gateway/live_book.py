"""What the live page remembers of events: bounded in memory, whoever calls. Pure."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from streamguard.core.alerts import DAY
from streamguard.identity import Identity
from streamguard.sinks.schema import MAX_ID
from streamguard.usage import UsageEvent

MINUTES = 60
"""How far back the minutes go."""

_SCOPES = 4_096
_TALKS = 2_048
_INCIDENTS = 256
_POINTS = 24  # prompts of a conversation
_REFUSED = ("refused", "retry_refused")


class Who(NamedTuple):
    """Whose call it was, and of what."""

    tenant: str | None
    user: str | None
    feature: str | None
    model: str | None
    endpoint: str | None

    @property
    def whole(self) -> bool:
        """Whether no name had to be cut."""
        return not any(value is not None and len(value) == MAX_ID for value in self)


def who_of(identity: Identity, model: str | None, endpoint: str | None) -> Who:
    """The same as one value. Callers choose some of these names: memory holds so much of one."""
    return Who(
        _short(identity.tenant),
        _short(identity.user),
        _short(identity.feature),
        _short(model),
        _short(endpoint),
    )


class Sums:
    """What some calls took. ``cost`` is nano-dollars; ``unpriced`` calls are not in it."""

    __slots__ = ("calls", "cost", "day", "tokens", "unpriced")

    def __init__(self, day: int = 0) -> None:
        self.day = day
        self.calls = 0
        self.tokens = 0
        self.cost = 0
        self.unpriced = 0

    def add(self, other: Sums) -> None:
        """Take the other's figures in."""
        self.calls += other.calls
        self.tokens += other.tokens
        self.cost += other.cost
        self.unpriced += other.unpriced

    def count(self, tokens: int, cost: int | None) -> None:
        """One more call."""
        self.calls += 1
        self.tokens += tokens
        if cost is None:
            self.unpriced += 1
        else:
            self.cost += cost


class Minute:
    """What happened within one minute."""

    __slots__ = ("calls", "cuts", "refused", "tokens")

    def __init__(self) -> None:
        self.calls = 0
        self.tokens = 0
        self.refused = 0
        self.cuts = 0


class Talk:
    """A conversation: how long its prompts were, the latest last."""

    __slots__ = ("at", "calls", "first", "prompts", "who", "window")

    def __init__(self) -> None:
        self.calls = 0
        self.first = 0
        self.prompts: deque[int] = deque(maxlen=_POINTS)
        self.who = Who(None, None, None, None, None)
        self.window: int | None = None
        self.at = 0.0

    @property
    def grew(self) -> int:
        """Tokens that the prompt gained since the first call."""
        return self.prompts[-1] - self.first

    def add(self, tokens: int, who: Who, event: UsageEvent) -> None:
        """One more call."""
        if not self.calls:
            self.first = tokens
        self.calls += 1
        self.prompts.append(tokens)
        self.who, self.window, self.at = who, event.context_window, event.at


class Incident(NamedTuple):
    """Refusals, cuts or warnings of one kind: the latest one's figures, and how many there were.

    ``reason`` is the limit's name, or the code where no limit has to do with it. ``output`` is
    what a cut call had produced.
    """

    kind: str
    who: Who
    times: int
    at: float
    reason: str | None
    code: str | None
    limit: int | None
    used: int | None
    requested: int | None
    output: int | None
    resets_at: float | None


class LiveBook:
    """Takes events, gives figures. A day is a UTC day.

    Attributes:
        since: Unix seconds from which on it knows.
        today: sums of the latest day.
        refused: calls refused since then.
        cuts: calls cut since then.
    """

    def __init__(self, since: float) -> None:
        self.since = since
        self.today = Sums(int(since // DAY))
        self.refused = 0
        self.cuts = 0
        self._minutes: dict[int, Minute] = {}
        self._scopes: OrderedDict[Who, Sums] = OrderedDict()
        self._talks: OrderedDict[str, Talk] = OrderedDict()
        self._incidents: OrderedDict[tuple[str, Who, str | None], Incident] = OrderedDict()

    def take(self, event: UsageEvent) -> None:
        """Note one event."""
        who = who_of(event.identity, event.model, event.endpoint)
        if event.event == "settled":
            self._settled(event, who)
        else:
            self._incident(event, who)

    def roll(self, now: float) -> None:
        """Begin a new day's sums when it is one."""
        day = int(now // DAY)
        if day > self.today.day:
            self.today = Sums(day)

    def minutes(self, now: float) -> list[Minute]:
        """The last hour, minute by minute, the running one last."""
        last = int(now // 60)
        return [self._minutes.get(at) or Minute() for at in range(last - MINUTES + 1, last + 1)]

    def scopes(self) -> Iterator[Who]:
        """Who called, the latest first."""
        return reversed(self._scopes)

    def spenders(self, by: str, most: int) -> list[tuple[str | None, Sums]]:
        """Today's sums by a dimension, the most expensive first (then: the most tokens)."""
        found: dict[str | None, Sums] = {}
        place = Who._fields.index(by)
        for who, sums in self._scopes.items():
            if sums.day == self.today.day and sums.calls:
                found.setdefault(who[place], Sums()).add(sums)
        ranked = sorted(found.items(), key=lambda pair: (-pair[1].cost, -pair[1].tokens))
        return ranked[:most]

    def talks(self, most: int) -> list[tuple[str, Talk]]:
        """The conversations whose prompt grew most."""
        known = [(key, talk) for key, talk in self._talks.items() if talk.grew > 0]
        return sorted(known, key=lambda pair: -pair[1].grew)[:most]

    def incidents(self, most: int) -> list[Incident]:
        """The latest refusals, cuts and warnings, newest first."""
        return list(islice(reversed(self._incidents.values()), most))

    def _minute(self, at: float) -> Minute:
        number = int(at // 60)
        minute = self._minutes.get(number)
        if minute is None:
            minute = self._minutes[number] = Minute()
            for old in [one for one in self._minutes if one <= number - MINUTES]:
                del self._minutes[old]
        return minute

    def _settled(self, event: UsageEvent, who: Who) -> None:
        charged = event.charged
        tokens = 0
        if charged is not None:
            tokens = (charged.input_tokens or 0) + (charged.output_tokens or 0)
        minute = self._minute(event.at)
        minute.calls += 1
        minute.tokens += tokens
        self.roll(event.at)
        self.today.count(tokens, event.cost_nano_usd)
        self._scope(who).count(tokens, event.cost_nano_usd)
        prompt = event.counted.input_tokens
        if event.conversation is not None and prompt is not None:
            self._talk(event.conversation).add(prompt, who, event)

    def _scope(self, who: Who) -> Sums:
        day = self.today.day
        sums = self._scopes.get(who)
        if sums is None or sums.day != day:
            if len(self._scopes) >= _SCOPES:
                self._forget()
            sums = self._scopes[who] = Sums(day)
        self._scopes.move_to_end(who)
        return sums

    def _talk(self, key: str) -> Talk:
        talk = self._talks.get(key)
        if talk is None:
            talk = self._talks[key] = Talk()
            if len(self._talks) > _TALKS:
                self._talks.popitem(last=False)
        self._talks.move_to_end(key)
        return talk

    def _forget(self) -> None:
        """Drop the half that cost least today. Sums of the day keep what they cost."""
        today = self.today.day
        ranked = sorted(self._scopes.items(), key=lambda pair: (pair[1].day == today, pair[1].cost))
        for who, _ in ranked[: _SCOPES // 2]:
            del self._scopes[who]

    def _incident(self, event: UsageEvent, who: Who) -> None:
        kind = "refused" if event.event in _REFUSED else event.event
        minute = self._minute(event.at)
        if kind == "refused":
            minute.refused += 1
            self.refused += 1
            self._scope(who)
        elif kind == "cut":
            minute.cuts += 1
            self.cuts += 1
        reason = _short(event.limit_name or event.code)
        before = self._incidents.pop((kind, who, reason), None)
        self._incidents[kind, who, reason] = Incident(
            kind=kind,
            who=who,
            times=1 + (before.times if before else 0),
            at=event.at,
            reason=reason,
            code=_short(event.code),
            limit=event.output_limit if kind == "cut" else event.limit,
            used=event.used,
            requested=event.requested,
            output=event.counted.output_tokens,
            resets_at=event.resets_at,
        )
        if len(self._incidents) > _INCIDENTS:
            self._incidents.popitem(last=False)


def _short(value: str | None) -> str | None:
    return value if value is None or len(value) <= MAX_ID else f"{value[: MAX_ID - 1]}…"
