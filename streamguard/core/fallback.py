"""Which model may answer instead when the one asked for is refused. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from streamguard.errors import ContextWindowExceededError, StreamGuardError
from streamguard.limits import NANO, Limit


class Candidate(NamedTuple):
    """A model, what it takes, and what a token costs in nano-dollars; ``None`` is unknown."""

    model: str
    context_window: int | None = None
    input_rate: int | None = None
    output_rate: int | None = None

    def cost(self, input_tokens: int, output_tokens: int) -> int | None:
        """Nano-dollars of a call, at most."""
        if self.input_rate is None or self.output_rate is None:
            return None
        return self.input_rate * input_tokens + self.output_rate * output_tokens


class Size(NamedTuple):
    """The call that needs a model: its tokens."""

    input_tokens: int
    output_tokens: int


def helpful(
    error: StreamGuardError,
    asked: Candidate,
    candidates: Sequence[Candidate],
    size: Size,
    limits: Sequence[Limit],
) -> list[Candidate]:
    """The candidates worth trying after ``error``, the one most like what was asked for first.

    - They take the whole call: prompt and least output fit their context window.
    - After a refusal for the window of context, any that fit, in the order given.
    - After a refusal by a budget, only cheaper ones, the dearest first; none where the budget
      counts tokens or calls whatever the model; none that would need more than what is left.
    """
    fitting = [each for each in candidates if each.model != asked.model and _fits(each, size)]
    if isinstance(error, ContextWindowExceededError):
        return fitting
    limit = next((one for one in limits if one.name == error.limit_name), None)
    if error.unit != "cost" and not _by_model(limit):
        return []
    left = _left(error) if error.unit == "cost" and not _by_model(limit) else None
    priced = [(each.cost(*size), each) for each in fitting]
    before = asked.cost(*size)
    cheaper = [
        (cost, each)
        for cost, each in priced
        if cost is not None and (before is None or cost < before) and (left is None or cost <= left)
    ]
    return [each for _, each in sorted(cheaper, key=lambda pair: -pair[0])]


def by_size(sizes: Sequence[tuple[int, str]], input_tokens: int) -> str:
    """The model of the first size that the prompt is within; the last one when it is in none."""
    return next((model for most, model in sizes if input_tokens <= most), sizes[-1][1])


def _fits(candidate: Candidate, size: Size) -> bool:
    window = candidate.context_window
    return window is None or size.input_tokens + size.output_tokens <= window


def _by_model(limit: Limit | None) -> bool:
    """Whether another model is charged to another account."""
    if limit is None:
        return False
    where: Mapping[str, str] = limit.where
    return "model" in limit.scope or "model" in where


def _left(error: StreamGuardError) -> int | None:
    """Nano-dollars the refusing budget has left; ``None`` when unknown."""
    if error.limit is None:
        return None
    return int((Decimal(error.limit) - Decimal(_spent(error))) * NANO)


def _spent(error: StreamGuardError) -> Decimal | int:
    # A per-request budget's ``used`` is the prompt's own cost, which another model has not.
    return (error.used or 0) if error.http_status == 429 else 0  # noqa: PLR2004
