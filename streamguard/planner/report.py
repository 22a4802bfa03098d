"""The report of a plan: what each component got, what was kept, trimmed and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from streamguard.core.planning import Choice, Kind, Need
from streamguard.core.planning_keep import Summarise, said
from streamguard.core.planning_units import Unit
from streamguard.usage import Method


class Piece(NamedTuple):
    """One unit of messages, or one chunk: whether it was kept, and why. It holds no text.

    ``positions`` count what was added to the planner, from 0.
    """

    component: str
    positions: tuple[int, ...]
    role: str
    tokens: int
    kept: bool
    why: str


class ComponentReport(NamedTuple):
    """One component's part of the plan, in tokens; ``kept`` and ``trimmed`` count its units."""

    name: str
    kind: Kind
    needed: int
    tokens: int
    kept: int
    trimmed: int


@dataclass(frozen=True)
class Report:
    """Where the window goes, in tokens.

    Attributes:
        model: the model the plan is for.
        window: its context window.
        reserve: what is kept free for the output.
        input_tokens: the whole request, as ``count_request`` counts it.
        method: how that was counted.
        overhead: the request around the components' messages: tools, response format, priming.
        summaries: tokens of the summaries of what was dropped.
        components: each component's part, in the planner's order.
        trimmed_tokens: what was left out.
    """

    model: str
    window: int
    reserve: int
    input_tokens: int
    method: Method
    overhead: int
    summaries: int
    components: tuple[ComponentReport, ...]
    asked: Sequence[Need] = field(repr=False)
    choices: Sequence[Choice] = field(repr=False)

    @property
    def remaining(self) -> int:
        """Tokens that could still be added, the reserve left as it is."""
        return self.window - self.reserve - self.input_tokens

    @property
    def trimmed(self) -> int:
        """How many units were left out."""
        return sum(each.trimmed for each in self.components)

    @property
    def trimmed_tokens(self) -> int:
        """Tokens that were left out."""
        return sum(each.needed - each.tokens for each in self.components)

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """Every unit in the order added, kept or trimmed, and why."""
        found = [
            _piece(need, choice, at)
            for need, choice in zip(self.asked, self.choices, strict=True)
            for at in range(len(need.units))
        ]
        return tuple(sorted(found, key=lambda piece: piece.positions))

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON values; there is no text of any message in it."""
        names = (
            "model", "window", "reserve", "input_tokens", "method", "remaining", "overhead",
            "summaries", "trimmed_tokens",
        )  # fmt: skip
        return {
            **{name: getattr(self, name) for name in names},
            "components": [each._asdict() for each in self.components],
            "pieces": [piece._asdict() for piece in self.pieces],
        }


def _piece(need: Need, choice: Choice, at: int) -> Piece:
    unit, kept = need.units[at], at in choice.kept
    why = _why(need, unit, choice, kept=kept, wanted=at in need.order)
    return Piece(need.budget.name, unit.positions, unit.role, round(unit.tokens), kept, why)


def _why(need: Need, unit: Unit, choice: Choice, *, kept: bool, wanted: bool) -> str:
    keep = need.budget.keep
    if kept:
        return "never trimmed" if need.budget.kind == "fixed" else f"kept by {said(keep)}"
    reason = f"left out by {said(keep)}"
    if wanted:
        score = "" if unit.score is None else f"score {unit.score:g}; "
        reason = (
            f"{score}no room: {need.wanted:,.0f} tokens wanted, {choice.allowed:,.0f} allowed "
            f"to {need.budget.name}"
        )
    return f"summarised; {reason}" if isinstance(keep, Summarise) else reason
