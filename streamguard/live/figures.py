"""What the live page's book keeps: callers, minutes, conversations, refusals. Pure."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from streamguard.identity import Identity
from streamguard.sinks.schema import MAX_ID
from streamguard.usage import UsageEvent

_POINTS = 24  # prompts of a conversation


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
    names = (identity.tenant, identity.user, identity.feature, model, endpoint)
    return Who(*(short(name) for name in names))


class Sums:
    """What some calls took. ``cost`` is nano-dollars; ``unpriced`` calls are not in it."""

    __slots__ = ("calls", "cost", "tokens", "unpriced")

    def __init__(self) -> None:
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


class Caller(Sums):
    """A caller's sums of its latest day, and when it was seen last, by number of events."""

    __slots__ = ("day", "seen", "who")

    def __init__(self, who: Who) -> None:
        super().__init__()
        self.who = who
        self.day = 0
        self.seen = 0

    def turn(self, day: int) -> None:
        """Begin a new day at zero."""
        self.day = day
        self.calls = self.tokens = self.cost = self.unpriced = 0


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

    def __init__(self, first: int, who: Who) -> None:
        self.calls = 1
        self.first = first
        self.prompts = deque((first,), maxlen=_POINTS)
        self.who = who
        self.window: int | None = None
        self.at = 0.0

    @property
    def grew(self) -> int:
        """Tokens that the prompt gained since the first call."""
        return self.prompts[-1] - self.first


class Incident:
    """Refusals, cuts or warnings of one kind: the latest one's figures, and how many there were.

    ``reason`` is the limit's name, or the code where no limit has to do with it. ``output`` is
    what a cut call had produced.
    """

    __slots__ = (
        "at", "code", "kind", "limit", "output", "reason", "requested", "resets_at", "times",
        "used", "who",
    )  # fmt: skip

    def __init__(self, kind: str, who: Who, reason: str | None) -> None:
        self.kind = kind
        self.who = who
        self.reason = reason
        self.times = 0

    def take(self, event: UsageEvent) -> None:
        """One more."""
        self.times += 1
        self.at = event.at
        self.code = short(event.code)
        self.limit = event.output_limit if self.kind == "cut" else event.limit
        self.used = event.used
        self.requested = event.requested
        self.output = event.counted.output_tokens
        self.resets_at = event.resets_at


def short(value: str | None) -> str | None:
    """A name, cut to what is kept of one."""
    return value if value is None or len(value) <= MAX_ID else f"{value[: MAX_ID - 1]}…"
