"""Preflight: count a request, hold it against window and budgets, before anything is sent."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from streamguard.core.accounts import Refusal
from streamguard.core.admission import Ask, Rates, Terms, shown
from streamguard.core.admission import terms as terms_of
from streamguard.core.outlook import outlook
from streamguard.core.room import most_input
from streamguard.errors import StreamGuardError, WindowBudgetExceededError
from streamguard.guard.fitting import ask_for, fit_to
from streamguard.guard.prices import check_others, rates_of
from streamguard.guard.shared import Shared
from streamguard.guard.subject import Assessment, Preflight, Subject
from streamguard.limits import Limit, Unit


async def assess(shared: Shared, subject: Subject) -> Assessment:
    """Count the request and hold it against the context window and the per-request budgets.

    Raises:
        StreamGuardError: the refusal, which is remembered.
    """
    request, settings = subject.request, shared.settings
    limits = await settings.limits_for(subject.identity, *request.models)
    grew: dict[str, int] = {}
    try:
        if not settings.observe:
            shared.refusals.check(subject, limits)
        rates = rates_of(shared.catalog, request)
        most = most_input(limits, subject.scope(), rates)
        prompt, count = await shared.counter.count(subject, most)
        conversation, grew = shared.refusals.grew(prompt, count, subject.identity)
        ask = ask_for(request, count, settings)
        subject, ask, trimmed = await fit_to(limits, rates, subject, ask, settings, shared.counter)
        terms = _terms(shared, subject, ask, rates, limits)
    except StreamGuardError as error:
        error.grew = grew
        shared.refusals.remember(request.body, error, limits, request.model, subject.identity)
        raise
    return Assessment(subject, ask.count, rates, terms, conversation, trimmed=trimmed)


def _terms(
    shared: Shared, subject: Subject, ask: Ask, rates: Rates, limits: Sequence[Limit]
) -> Terms:
    try:
        check_others(subject.request, limits)
        return terms_of(ask, limits, subject.scope(), rates)
    except StreamGuardError as error:
        if not shared.settings.observe:
            raise
        shared.teller.spared(subject, error)
        return Terms(want=ask.cap * ask.choices, least=0)


async def foresee(shared: Shared, assessment: Assessment) -> Preflight:
    """What a reserve would answer now; nothing is held.

    Raises:
        WindowBudgetExceededError: a window has too little left.
    """
    terms = assessment.terms
    await shared.open()
    balances = await shared.books.balances(terms.demands)
    output = outlook(terms, balances, time.time())
    if isinstance(output, Refusal):
        raise window_error(output, terms.limits[output.which], assessment.subject.scope())
    names = [limit.name for limit in terms.limits]
    return Preflight(
        count=assessment.count,
        output_limit=output,
        context_window=assessment.rates.context_window,
        balances=dict(zip(names, balances, strict=True)),
    )


def window_error(
    refusal: Refusal, limit: Limit, scope: dict[str, str]
) -> WindowBudgetExceededError:
    """The error for a window that has too little left, with what to do next."""
    balance, unit = refusal.balance, limit.unit
    values: dict[str, Any] = {key: scope.get(key, "") for key in limit.scope}
    message = (
        f"budget {limit.name!r} is exhausted: {_say(unit, balance.used)} used and "
        f"{_say(unit, balance.held)} held of {_say(unit, balance.capacity)}; this call needs at "
        f"least {_say(unit, refusal.needed)}. {_advice(refusal)}"
    )
    error = WindowBudgetExceededError(
        message,
        limit=shown(unit, balance.capacity),
        used=shown(unit, balance.used + balance.held),
        requested=shown(unit, refusal.needed),
        scope=values,
        resets_at=balance.resets_at if refusal.retry_after is not None else None,
        retry_after=refusal.retry_after,
        unit=unit,
    )
    error.limit_name = limit.name
    return error


def _advice(refusal: Refusal) -> str:
    if refusal.retry_after is None:
        return "It can never fit this budget: shorten the request or raise the limit."
    advice = f"Try again in {max(1, round(refusal.retry_after))} s or raise the limit."
    return advice + " Calls with a smaller max_tokens hold less." * (refusal.balance.held > 0)


def _say(unit: Unit, amount: int) -> str:
    return f"${shown(unit, amount):f}" if unit == "cost" else f"{amount:,}"
