"""The figures a client sees: response headers and the ``streamguard`` object of a refusal."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from streamguard.core.accounts import Balance, Grant
from streamguard.errors import (
    OversizedRetryError,
    StoreUnavailableError,
    StreamGuardError,
    TimeBudgetExceededError,
    WindowBudgetExceededError,
)
from streamguard.guard.subject import Assessment
from streamguard.limits import Limit

# SDKs wait at most this long when told to; beyond it they would retry early, for nothing.
LONGEST_RETRY_AFTER = 60.0


def admitted_headers(assessment: Assessment, grant: Grant, ceiling: int) -> list[tuple[str, str]]:
    """Headers of an admitted call: input tokens, the output it may have (``ceiling``), the
    tightest window's limit and what is left of it.
    """
    headers = [
        ("x-streamguard-request-id", assessment.subject.request_id),
        ("x-streamguard-input-tokens", str(assessment.input_tokens)),
        ("x-streamguard-output-limit", str(ceiling)),
        *_changes(assessment),
    ]
    tight = tightest(list(zip(assessment.terms.limits, grant.balances, strict=False)))
    if tight is not None:
        limit, balance = tight
        headers += _window_headers(limit.unit, balance.capacity, balance.remaining)
        if balance.resets_at is not None:
            headers.append(("x-streamguard-reset", str(math.ceil(balance.resets_at))))
    return headers


def _changes(assessment: Assessment) -> Iterator[tuple[str, str]]:
    """What was done to the request, so that it is never silent."""
    if assessment.trimmed is not None:
        removed = assessment.trimmed.before - assessment.trimmed.after
        yield "x-streamguard-trimmed", str(removed)
    if assessment.subject.asked is not None:
        yield "x-streamguard-model", assessment.subject.request.model
    if assessment.subject.queued is not None:
        yield "x-streamguard-queued", f"{assessment.subject.queued:.3f}"
        yield "x-streamguard-queue-position", str(assessment.subject.position)


def refusal_headers(error: StreamGuardError, request_id: str) -> list[tuple[str, str]]:
    """Headers of a refusal: its figures, and whether a retry can help."""
    headers = [("x-streamguard-request-id", request_id)]
    if "input_tokens" in (numbers := refusal_numbers(error)):
        headers.append(("x-streamguard-input-tokens", str(numbers["input_tokens"])))
    if error.limit is not None:
        headers.append(("x-streamguard-limit", str(error.limit)))
        left = max(Decimal(0), Decimal(error.limit) - Decimal(error.used or 0))
        headers.append(("x-streamguard-remaining", f"{left:f}"))
    if error.resets_at is not None:
        headers.append(("x-streamguard-reset", str(math.ceil(error.resets_at))))
    if error.retry_after is not None:
        headers.append(("retry-after", str(max(1, math.ceil(error.retry_after)))))
    if not worth_retrying(error):
        headers.append(("x-should-retry", "false"))
    return headers


def worth_retrying(error: StreamGuardError) -> bool:
    """Whether sending the same again soon can succeed."""
    if isinstance(error, WindowBudgetExceededError):
        return error.retry_after is not None and error.retry_after <= LONGEST_RETRY_AFTER
    return isinstance(error, (StoreUnavailableError, TimeBudgetExceededError))


def refusal_numbers(error: StreamGuardError) -> dict[str, Any]:
    """The figures behind a refusal as JSON; money as decimal strings of US dollars."""
    first = error.first if isinstance(error, OversizedRetryError) else error
    figures: Mapping[str, Any] = {
        "input_tokens": sum(first.components.values()) if first.components else None,
        "limit": _plain(first.limit),
        "used": _plain(first.used),
        "requested": _plain(first.requested),
        "unit": first.unit,
        "scope": first.scope or None,
        "resets_at": first.resets_at,
        "components": first.components or None,
        "grew": first.grew or None,
        "repeated": True if first is not error else None,
    }
    return {key: value for key, value in figures.items() if value is not None}


def _window_headers(unit: str, limit: int, remaining: int) -> list[tuple[str, str]]:
    if unit == "cost":
        return [
            ("x-streamguard-limit", f"{Decimal(limit) / 10**9:f}"),
            ("x-streamguard-remaining", f"{Decimal(remaining) / 10**9:f}"),
        ]
    return [("x-streamguard-limit", str(limit)), ("x-streamguard-remaining", str(remaining))]


def tightest(pairs: list[tuple[Limit, Balance]]) -> tuple[Limit, Balance] | None:
    """The window with the smallest part left."""
    return min(pairs, key=lambda pair: pair[1].remaining / max(1, pair[1].capacity), default=None)


def _plain(amount: int | Decimal | None) -> int | str | None:
    return f"{amount:f}" if isinstance(amount, Decimal) else amount
