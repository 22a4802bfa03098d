"""Trims a request that is too long, where the user asked for it. Never silent."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace

from streamguard.core.admission import Ask, Rates
from streamguard.core.prompt import PromptCount
from streamguard.core.room import Fit, Trimmed, input_room
from streamguard.core.wire import Request
from streamguard.guard.counter import PromptCounter
from streamguard.guard.settings import Settings
from streamguard.guard.subject import Subject
from streamguard.limits import Limit

FORMATS = frozenset({"openai_chat", "anthropic", "ollama"})
"""Wire formats whose bodies have messages, which a fit understands."""

_TRIES = 3


def ask_for(request: Request, count: PromptCount, settings: Settings) -> Ask:
    """What the request wants, by its own cap and the guard's policy."""
    return Ask(
        count=count,
        cap=settings.output_cap(request) if request.produces_output else 0,
        reserve=settings.reserve_for(request.model),
        choices=request.choices if request.produces_output else 0,
        least=settings.min_output,
    )


async def fit_to(
    limits: Sequence[Limit],
    rates: Rates,
    subject: Subject,
    ask: Ask,
    settings: Settings,
    counter: PromptCounter,
) -> tuple[Subject, Ask, Trimmed | None]:
    """The request made to fit its window and budgets; as it is where it fits or nobody asked.

    Raises:
        ContextWindowExceededError: it cannot be made to fit.
    """
    if settings.fit is None or settings.observe or subject.protocol.name not in FORMATS:
        return subject, ask, None
    before, room = ask.count.input_tokens, input_room(ask, limits, subject.scope(), rates)
    if room is None or before <= room:
        return subject, ask, None
    target = room
    for _ in range(_TRIES):
        shorter = await _shortened(settings.fit, subject, target)
        _, count = await counter.count(shorter)
        if count.input_tokens <= room:
            break
        # The guard's count is corrected by what the provider reports; the fit's is not.
        target -= count.input_tokens - room
    trimmed = Trimmed(before, count.input_tokens, room)
    return shorter, ask_for(shorter.request, count, settings), trimmed


async def _shortened(fit: Fit, subject: Subject, room: int) -> Subject:
    answer = fit(subject.request.body, room)
    body, _report = await answer if inspect.isawaitable(answer) else answer
    request = subject.protocol.parse(body, subject.endpoint)
    # The path may name the model, and it was normalised since.
    request = replace(request, model=subject.request.model, cap_field=subject.request.cap_field)
    return replace(subject, request=request, received=subject.original_body)
