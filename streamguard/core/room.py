"""How long a prompt may be, the other side of ``admission``; and what makes it fit. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from streamguard.core.admission import Ask, Rates, applies, demand, held_to_output
from streamguard.core.prompt import PromptCount
from streamguard.limits import Limit


class FitReport(Protocol):
    """What a fit tells of its work."""

    @property
    def trimmed_tokens(self) -> int:
        """Tokens that were left out."""


Fitted = tuple[Mapping[str, Any], FitReport]
Fit = Callable[[Mapping[str, Any], int], Fitted | Awaitable[Fitted]]
"""From a chat body and the input tokens it may have to a shorter body and its report.

It raises ``ContextWindowExceededError`` where the body cannot be made to fit.
"""


class Trimmed(NamedTuple):
    """A prompt that was shortened: input tokens before and after, and what it had to fit."""

    before: int
    after: int
    room: int


_ONE = PromptCount(1, "exact")
_TOKENS = frozenset({"tokens", "input_tokens"})
_COUNTED = _TOKENS | {"cost"}


def input_room(
    ask: Ask, limits: Sequence[Limit], scope: Mapping[str, str], rates: Rates
) -> int | None:
    """The most input tokens that the context window and the per-request budgets leave.

    ``None`` where nothing bounds them. Windows of time are left out: they empty by themselves.

    Raises:
        ProtocolError: a cost budget applies and the model's price is unknown.
    """
    mine = [limit for limit in limits if applies(limit, scope)]
    ask = held_to_output(ask, mine)
    rooms = [
        _room_in(limit, ask, scope, rates)
        for limit in mine
        if limit.span is None and limit.unit in _COUNTED and not limit.soft
    ]
    if rates.context_window is not None:
        reserve = min(ask.cap, ask.reserve) * bool(ask.choices)
        rooms.append(rates.context_window - reserve)
    known = [room for room in rooms if room is not None]
    return max(0, min(known)) if known else None


def most_input(limits: Sequence[Limit], scope: Mapping[str, str], rates: Rates) -> int | None:
    """Input tokens beyond which a request is refused whatever else it asks for.

    The context window where it is known: its refusal comes before a budget's, and by bounds
    alone it could not be told which of the two it is. ``None`` where nothing bounds them.
    """
    if rates.context_window is not None:
        return rates.context_window
    known = [
        limit.amount
        for limit in limits
        if limit.span is None and limit.unit in _TOKENS and not limit.soft
        if applies(limit, scope)
    ]
    return min(known, default=None)


def _room_in(limit: Limit, ask: Ask, scope: Mapping[str, str], rates: Rates) -> int | None:
    named = replace(_ONE, model=ask.count.model)
    one = demand(limit, replace(ask, count=named), scope, rates)
    none = demand(limit, replace(ask, count=replace(named, input_tokens=0)), scope, rates)
    left = limit.amount - none.fixed - ask.least * ask.choices * one.rate
    each = one.fixed - none.fixed
    return left // each if each else None
