"""The alert rules. Each holds a bounded memory and needs no clock. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from decimal import Decimal

from streamguard.core.alerts import DAY, Alert, Recent, key_of, scope_of, spent, values_of, whose
from streamguard.errors import ConfigurationError
from streamguard.limits import to_nano
from streamguard.usage import UsageEvent

_BUDGET_CODES = {"budget_exceeded", "request_budget_exceeded", "context_length_exceeded"}
_WEEK = 7
_PLACE = ("tenant", "feature")
_PERSON = ("tenant", "user")


class ContextShare:
    """A call filled more than ``share`` of its model's context window.

    Raises:
        ConfigurationError: ``share`` does not lie between 0 and 1.
    """

    name = "context_share"

    def __init__(self, share: float = 0.9) -> None:
        if not 0 < share < 1:
            raise ConfigurationError(f"share={share!r} must lie between 0 and 1")
        self._share = share

    def see(self, event: UsageEvent) -> Iterator[Alert]:
        """Once an hour for each tenant, user, feature and model."""
        window = event.context_window
        for total in spent(event):
            if window and total > self._share * window:
                scope = scope_of(event, "tenant", "user", "feature", "model")
                yield Alert(
                    self.name,
                    key_of(scope),
                    event.at,
                    f"a call of {whose(scope)} took {total:,} tokens, {total / window:.0%} of "
                    f"the context window of {window:,}",
                    scope=scope,
                    figures={"total_tokens": total, "context_window": window},
                    request_id=event.request_id,
                )


class _Days:
    """Tokens of the last eight days by day number, and the first day ever seen."""

    __slots__ = ("first", "tokens", "told")

    def __init__(self) -> None:
        self.first: int | None = None
        self.tokens: dict[int, int] = {}
        self.told: int | None = None

    def add(self, day: int, tokens: int) -> None:
        """Count; days more than a week before the latest are forgotten."""
        self.first = day if self.first is None else min(self.first, day)
        self.tokens[day] = self.tokens.get(day, 0) + tokens
        latest = max(self.tokens)
        for old in [one for one in self.tokens if one < latest - _WEEK]:
            del self.tokens[old]

    def mean_before(self, day: int) -> float | None:
        """The mean of the seven days before; ``None`` while fewer are known."""
        if self.first is None or self.first > day - _WEEK:
            return None
        return sum(self.tokens.get(one, 0) for one in range(day - _WEEK, day)) / _WEEK


class DailyGrowth:
    """A tenant's feature used more than ``factor`` times its mean of the last seven days.

    Days are UTC; a quiet day counts as 0. It needs seven days of history, in which something
    was used. ``at_least`` tokens a day are needed to be worth telling.

    Raises:
        ConfigurationError: ``factor`` is not above 1.
    """

    name = "daily_growth"

    def __init__(self, factor: float = 2.0, *, at_least: int = 0, entries: int = 10_000) -> None:
        if factor <= 1:
            raise ConfigurationError(f"factor={factor!r} must be above 1")
        self._factor = factor
        self._at_least = at_least
        self._days: Recent[_Days] = Recent(entries, _Days)

    def see(self, event: UsageEvent) -> Iterator[Alert]:
        """Once a day for each tenant and feature."""
        for total in spent(event):
            days, day = self._days.get(values_of(event, _PLACE)), int(event.at // DAY)
            days.add(day, total)
            mean, today = days.mean_before(day), days.tokens.get(day, 0)
            if not mean or days.told == day or today < self._at_least:
                return
            if today > self._factor * mean:
                days.told = day
                scope = scope_of(event, *_PLACE)
                yield Alert(
                    self.name,
                    f"{key_of(scope)} {day}",
                    event.at,
                    f"{whose(scope)} used {today:,} tokens today, {today / mean:.1f} times the "
                    f"mean of the last 7 days ({mean:,.0f})",
                    scope=scope,
                    figures={"tokens_today": today, "mean_7_days": round(mean)},
                    request_id=event.request_id,
                    rest=DAY,
                )


class DailySpend:
    """A scope spent more than ``usd`` US dollars in a UTC day.

    Raises:
        ConfigurationError: ``usd`` is no amount.
    """

    name = "daily_spend"

    def __init__(
        self, usd: str | Decimal, *, scope: tuple[str, ...] = ("tenant",), entries: int = 10_000
    ) -> None:
        """``scope`` names the dimensions that have a sum each; empty is one for all."""
        self._amount = to_nano(usd)
        self._scope = scope
        self._sums: Recent[list[int]] = Recent(entries, lambda: [0])

    def see(self, event: UsageEvent) -> Iterator[Alert]:
        """Once a day for each scope."""
        cost = event.cost_nano_usd
        if event.event != "settled" or event.within is not None or not cost:
            return
        day = int(event.at // DAY)
        total = self._sums.get((*values_of(event, self._scope), day))
        before, total[0] = total[0], total[0] + cost
        if before <= self._amount < total[0]:
            scope = scope_of(event, *self._scope)
            yield Alert(
                self.name,
                f"{key_of(scope)} {day}",
                event.at,
                f"{whose(scope)} spent ${total[0] / 1e9:,.2f} today, over "
                f"${self._amount / 1e9:,.2f}",
                severity="critical",
                scope=scope,
                figures={"spent_usd": total[0] / 1e9, "over_usd": self._amount / 1e9},
                request_id=event.request_id,
                rest=DAY,
            )


class Refused:
    """A budget or a context window refused a call."""

    name = "budget_refusal"

    def see(self, event: UsageEvent) -> Iterator[Alert]:
        """Once an hour for each tenant, user, feature and limit."""
        if event.event not in ("refused", "retry_refused") or event.code not in _BUDGET_CODES:
            return
        scope = scope_of(event, "tenant", "user", "feature", "model")
        limit = event.limit_name or "the context window"
        figures = {"limit": event.limit, "used": event.used, "requested": event.requested}
        yield Alert(
            self.name,
            f"{key_of(scope)} {limit}",
            event.at,
            f"{limit} refused a call of {whose(scope)}",
            scope=scope,
            figures={
                "limit_name": limit,
                "code": event.code or "",
                **{name: number for name, number in figures.items() if number is not None},
            },
            request_id=event.request_id,
        )


class UserBurst:
    """A user made more than ``calls`` calls within ``seconds``.

    Raises:
        ConfigurationError: a figure is not above 0.
    """

    name = "user_burst"

    def __init__(self, calls: int = 60, seconds: float = 60.0, *, entries: int = 10_000) -> None:
        if calls < 1 or seconds <= 0:
            raise ConfigurationError(f"calls={calls!r} and seconds={seconds!r} must be above 0")
        self._calls = calls
        self._seconds = seconds
        self._times: Recent[deque[float]] = Recent(entries, lambda: deque(maxlen=calls + 1))

    def see(self, event: UsageEvent) -> Iterator[Alert]:
        """Once an hour for each user. Calls that were refused count too."""
        if event.event not in ("settled", "released", "refused", "retry_refused"):
            return
        if event.within is not None or event.identity.user is None:
            return
        times = self._times.get(values_of(event, _PERSON))
        times.append(event.at)
        if len(times) > self._calls and event.at - times[0] < self._seconds:
            scope = scope_of(event, *_PERSON)
            yield Alert(
                self.name,
                key_of(scope),
                event.at,
                f"{whose(scope)} made {len(times):,} calls in {event.at - times[0]:,.1f} s",
                scope=scope,
                figures={"calls": len(times), "seconds": round(event.at - times[0], 3)},
                request_id=event.request_id,
            )


class _Run:
    """How a conversation has grown: calls in a row that were longer than the one before."""

    __slots__ = ("calls", "first", "last")

    def __init__(self) -> None:
        self.calls = 0
        self.first = 0
        self.last = 0

    def add(self, tokens: int) -> None:
        """One more call."""
        if self.calls and tokens > self.last:
            self.calls += 1
        else:
            self.calls, self.first = 1, tokens
        self.last = tokens


class Runaway:
    """A conversation whose input grew with each of ``calls`` calls, ``factor`` times over.

    Every chat grows; one that nobody trims reaches ``at_least`` input tokens.

    Raises:
        ConfigurationError: fewer than 2 calls, or a factor below 1.
    """

    name = "runaway_conversation"

    def __init__(
        self,
        calls: int = 8,
        *,
        factor: float = 3.0,
        at_least: int = 4_000,
        entries: int = 10_000,
    ) -> None:
        if calls < 2 or factor < 1:  # noqa: PLR2004 - one call cannot grow
            raise ConfigurationError(f"calls={calls!r} must be 2 or more, factor={factor!r} 1")
        self._calls = calls
        self._factor = factor
        self._at_least = at_least
        self._runs: Recent[_Run] = Recent(entries, _Run)

    def see(self, event: UsageEvent) -> Iterator[Alert]:
        """Once an hour for each conversation."""
        tokens = event.counted.input_tokens
        if event.event != "settled" or event.conversation is None or tokens is None:
            return
        if event.within is not None:
            return
        run = self._runs.get(event.conversation)
        run.add(tokens)
        grew = tokens >= max(self._at_least, self._factor * run.first)
        if run.calls >= self._calls and grew:
            scope = scope_of(event, "tenant", "user", "feature", "model", "conversation")
            yield Alert(
                self.name,
                event.conversation,
                event.at,
                f"a conversation of {whose(scope)} grew with each of {run.calls} calls, from "
                f"{run.first:,} to {tokens:,} input tokens",
                scope=scope,
                figures={"calls": run.calls, "from_tokens": run.first, "to_tokens": tokens},
                request_id=event.request_id,
            )
