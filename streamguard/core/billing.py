"""From what was counted and what was reported to what is charged. Pure."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from streamguard.core.wire import Served
from streamguard.usage import Usage

MOST_TOKENS = 100_000_000
"""More than any call can use: the largest context windows have a tenth. A report of more is an
error, or an attack on the budget.
"""


@dataclass(frozen=True, slots=True)
class Spent:
    """How a call ended and what it used.

    Attributes:
        outcome: completed, cut, disconnected, app_error, upstream_error, cancelled, ….
        counted: what streamguard counted of the output.
        reported: what the provider said; unknown fields are ``None``.
        billed: False when the provider does not bill the call (it answered with an error).
        status: the HTTP status of the response, where there was one.
        first_token: seconds from the call's start to its first output.
        served: which model and tier answered, where the provider said so.
        doubted: which fields of the report were left out, for no call can have used that much.
    """

    outcome: str
    counted: Usage = Usage()
    reported: Usage = Usage()
    billed: bool = True
    status: int | None = None
    first_token: float | None = None
    served: Served = Served()
    doubted: tuple[str, ...] = ()


def believed(spent: Spent) -> Spent:
    """What can be true of a report; ``charge`` puts our own count in place of the rest."""
    reported = spent.reported
    absurd = tuple(
        field.name
        for field in fields(reported)
        if (getattr(reported, field.name) or 0) > MOST_TOKENS
    )
    if not absurd:
        return spent
    kept: dict[str, None] = dict.fromkeys(absurd)
    return replace(spent, reported=replace(reported, **kept), doubted=absurd)


def charge(input_tokens: int, spent: Spent, *, exact: bool) -> Usage:
    """The usage to settle: the provider's word where it gave it, else the count.

    An output seen is never refunded: where the tokenizer is the model's own, the larger of
    counted and reported counts. A reported zero is a zero, not an unknown.
    """
    if not spent.billed:
        return Usage(0, 0, 0, 0)
    counted, reported = spent.counted, spent.reported
    seen = counted.output_tokens or 0
    output = seen if reported.output_tokens is None else reported.output_tokens
    if exact or spent.outcome != "completed":
        output = max(output, seen)
    given = input_tokens if reported.input_tokens is None else reported.input_tokens
    return replace(reported, input_tokens=given, output_tokens=output)
