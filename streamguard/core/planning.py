"""Sharing out a context window between the components of a prompt. Pure.

1. What is ``fixed`` gets all it needs, every other component the smallest part that reaches its
   minimum; where those do not fit together, nothing is planned.
2. Each component is raised to its share of the room, the highest priority first.
3. What is left goes to those that need more, the highest priority first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from streamguard.core.planning_keep import Strategy, Summarise, newest_first
from streamguard.core.planning_units import Unit
from streamguard.errors import ConfigurationError

Kind = Literal["fixed", "dynamic", "growing"]

EPSILON = 1e-6
"""What sums of tokens may be off by: an estimate has fractions of tokens."""


@dataclass(frozen=True, slots=True)
class ComponentBudget:
    """What one component of a prompt may take of the context window.

    Attributes:
        name: how messages and the report call it.
        kind: ``fixed`` is never trimmed; ``dynamic`` is made of independent pieces, each of
            which may be left out (retrieved chunks, examples); ``growing`` is a conversation,
            trimmed without holes.
        share: fraction of the room it gets before others may take it; it may get more where
            others leave room.
        minimum: tokens it keeps at least, in whole messages, or the plan is refused.
        priority: who is served first, highest first.
        keep: which messages to keep first, see ``planning_keep``.
        turns: keep or drop a question and all that follows it together.

    Raises:
        ConfigurationError: a kind, a strategy or figures that cannot be, or a summary of what does
            not grow.
    """

    name: str
    kind: Kind = "growing"
    share: float = 0.0
    minimum: int = 0
    priority: int = 0
    keep: Strategy = newest_first
    turns: bool = False

    def __post_init__(self) -> None:
        """Refuse figures that cannot be."""
        if self.kind not in get_args(Kind):
            message = f"component {self.name!r}: kind={self.kind!r}; use one of {get_args(Kind)}"
            raise ConfigurationError(message)
        if not callable(self.keep):
            message = f"component {self.name!r}: keep={self.keep!r} must be a callable strategy"
            raise ConfigurationError(message)
        if not 0 <= self.share <= 1:
            message = f"component {self.name!r}: share={self.share!r} must be between 0 and 1"
            raise ConfigurationError(message)
        if isinstance(self.minimum, bool) or self.minimum < 0:
            message = f"component {self.name!r}: minimum={self.minimum!r} must be tokens, 0 or more"
            raise ConfigurationError(message)
        if isinstance(self.keep, Summarise) and self.kind != "growing":
            message = f"component {self.name!r}: only a growing component can be summarised"
            raise ConfigurationError(message)


class Need(NamedTuple):
    """A component's budget, its units, and the order in which they are kept."""

    budget: ComponentBudget
    units: Sequence[Unit]
    order: Sequence[int]

    @property
    def tokens(self) -> float:
        """Tokens of all its units."""
        return sum(unit.tokens for unit in self.units)

    @property
    def wanted(self) -> float:
        """Tokens of the units that its strategy would keep."""
        return sum(self.units[at].tokens for at in self.order)


class Choice(NamedTuple):
    """What a component was given, and which of its units fit that, as indexes."""

    allowed: float
    kept: frozenset[int]
    tokens: float


def needs(
    budgets: Sequence[ComponentBudget], units: Sequence[Sequence[Unit]], *, trim: bool = True
) -> list[Need]:
    """Each component with its units and their order; nothing is left out when not to ``trim``."""
    return [
        Need(budget, mine, _order(budget, mine, trim=trim))
        for budget, mine in zip(budgets, units, strict=True)
    ]


def _order(budget: ComponentBudget, units: Sequence[Unit], *, trim: bool) -> Sequence[int]:
    if budget.kind == "fixed" or not trim:
        return range(len(units))
    order = list(dict.fromkeys(budget.keep(units)))
    if any(not 0 <= at < len(units) for at in order):
        message = f"component {budget.name!r}: keep= gave an index that is none of its messages"
        raise ConfigurationError(message)
    return order


def floors(asked: Sequence[Need], *, trim: bool = True) -> list[float]:
    """Tokens each component must get: all of it when fixed, else what reaches its minimum."""
    return [_floor(need) if trim and need.budget.kind != "fixed" else need.tokens for need in asked]


def _floor(need: Need) -> float:
    least, total = need.budget.minimum, 0.0
    for at in need.order:
        if total >= least:
            break
        total += need.units[at].tokens
    return total


def choose(asked: Sequence[Need], floor: Sequence[float], room: float) -> list[Choice]:
    """Share ``room`` tokens out; the floors must fit it."""
    allowed = _allowed(asked, floor, room)
    ranks = sorted(range(len(asked)), key=lambda at: -asked[at].budget.priority)
    chosen: dict[int, Choice] = {}
    spare = 0.0
    for at in ranks:
        limit = allowed[at] + spare
        kept, tokens = _take(asked[at], limit)
        chosen[at] = Choice(limit, kept, tokens)
        spare = limit - tokens
    return [chosen[at] for at in range(len(asked))]


def _allowed(asked: Sequence[Need], floor: Sequence[float], room: float) -> list[float]:
    allowed = list(floor)
    left = room - sum(floor)
    ranks = sorted(range(len(asked)), key=lambda at: -asked[at].budget.priority)
    for whole in (False, True):
        for at in ranks:
            need = asked[at]
            goal = need.wanted if whole else min(need.wanted, need.budget.share * room)
            more = max(0.0, min(goal - allowed[at], left))
            allowed[at] += more
            left -= more
    return allowed


def _take(need: Need, limit: float) -> tuple[frozenset[int], float]:
    """Units in the order of preference; a conversation stops at the first that does not fit."""
    kept: list[int] = []
    total = 0.0
    for at in need.order:
        tokens = need.units[at].tokens
        if total + tokens <= limit + EPSILON:
            kept.append(at)
            total += tokens
        elif need.budget.kind == "growing":
            break
    return frozenset(kept), total
