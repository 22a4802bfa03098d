"""Alert rules over usage events, and the book that says each thing once. Pure.

A rule looks at every event and keeps a bounded memory. Its clock is the event's own ``at``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from streamguard.usage import UsageEvent

Severity = Literal["warning", "critical"]
DAY = 86_400
_MAX_NAME = 128
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Alert:
    """Something an operator should know. It names identifiers and figures, never text.

    Attributes:
        rule: the rule that fired.
        key: what it is about; the book tells one key once in its rest.
        at: Unix seconds, the event's.
        message: one sentence with the figures.
        severity: how bad.
        scope: who and what: tenant, user, feature, model, conversation.
        figures: the numbers of the message.
        request_id: the call that made it fire.
        rest: seconds in which the same key is not told again.
    """

    rule: str
    key: str
    at: float
    message: str
    severity: Severity = "warning"
    scope: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, int | float | str] = field(default_factory=dict)
    request_id: str = ""
    rest: float = 3_600.0


class Rule(Protocol):
    """Sees every event in the order it happened."""

    def see(self, event: UsageEvent) -> Iterable[Alert]:
        """The alerts that this event sets off."""


class Recent(Generic[Value]):
    """Values by key; the ones not used for longest go first."""

    def __init__(self, entries: int, new: Callable[[], Value]) -> None:
        self._entries = entries
        self._new = new
        self._values: OrderedDict[Hashable, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> Value:
        """The key's value, a new one at first; it counts as used."""
        value = self._values.get(key)
        if value is None:
            value = self._values[key] = self._new()
            if len(self._values) > self._entries:
                self._values.popitem(last=False)
        else:
            self._values.move_to_end(key)
        return value


class AlertBook:
    """Feeds the rules and lets through what is new: once a key, and not too many an hour.

    ``suppressed`` counts the alerts over ``per_hour``.
    """

    def __init__(self, rules: Iterable[Rule], *, per_hour: int = 60, entries: int = 10_000) -> None:
        self._rules = tuple(rules)
        self._per_hour = per_hour
        self._quiet_until: Recent[list[float]] = Recent(entries, lambda: [float("-inf")])
        self._hour: tuple[int, int] = (0, 0)
        self.suppressed = 0

    def feed(self, event: UsageEvent) -> list[Alert]:
        """The alerts to send for this event."""
        fired = (alert for rule in self._rules for alert in rule.see(event))
        return [alert for alert in fired if self._is_new(alert)]

    def _is_new(self, alert: Alert) -> bool:
        quiet_until = self._quiet_until.get((alert.rule, alert.key))
        if alert.at < quiet_until[0]:
            return False
        hour, sent = int(alert.at // 3_600), self._hour[1]
        if hour != self._hour[0]:
            sent = 0
        if sent >= self._per_hour:
            self.suppressed += 1
            return False
        self._hour = (hour, sent + 1)
        quiet_until[0] = alert.at + alert.rest
        return True


def values_of(event: UsageEvent, names: tuple[str, ...]) -> tuple[str | None, ...]:
    """The event's values of some dimensions, as a key for a rule's memory."""
    return tuple([_READ[name](event) for name in names])


def scope_of(event: UsageEvent, *names: str) -> dict[str, str]:
    """The event's known dimensions among ``names``."""
    values = zip(names, values_of(event, names), strict=True)
    return {name: value for name, value in values if value is not None}


_READ: Mapping[str, Callable[[UsageEvent], str | None]] = {
    "tenant": lambda event: _short(event.identity.tenant),
    "user": lambda event: _short(event.identity.user),
    "feature": lambda event: _short(event.identity.feature),
    "model": lambda event: _short(event.model),
    "endpoint": lambda event: _short(event.endpoint),
    "conversation": lambda event: _short(event.conversation),
}


def _short(value: str | None) -> str | None:
    """Clients choose some of these names: memory and messages hold so much of one."""
    return value if value is None or len(value) <= _MAX_NAME else f"{value[: _MAX_NAME - 1]}…"


def key_of(scope: Mapping[str, str]) -> str:
    """A scope as one string; different scopes never share one."""
    return repr(sorted(scope.items()))


def whose(scope: Mapping[str, str]) -> str:
    """A scope in words."""
    return ", ".join(f"{name} {value}" for name, value in scope.items()) or "everyone"


def spent(event: UsageEvent) -> Iterator[int]:
    """The charged tokens of a call that counts: settled, and in no outer call's figures."""
    if event.event == "settled" and event.within is None and event.charged is not None:
        total = event.charged.total_tokens
        if total is not None:
            yield total
