"""When a budget is gone: a model that still may answer, a place in line, or the refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from streamguard.catalog import Catalog
from streamguard.core.fallback import Candidate, Size, by_size, helpful
from streamguard.errors import (
    BudgetExceededError,
    ContextWindowExceededError,
    OversizedRetryError,
    ProtocolError,
    StreamGuardError,
    WindowBudgetExceededError,
)
from streamguard.guard.call import Call
from streamguard.guard.counter import PromptCounter
from streamguard.guard.settings import Settings
from streamguard.guard.subject import Subject
from streamguard.guard.teller import Teller
from streamguard.guard.waiting import Waiting, WaitingRoom
from streamguard.limits import Limit

Attempt = Callable[[Subject], Awaitable[Call]]

REFUSALS = (BudgetExceededError, ContextWindowExceededError, OversizedRetryError)


class Recourse:
    """Begins calls, and knows what else to try where one is refused."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        teller: Teller,
        counter: PromptCounter,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._teller = teller
        self._counter = counter
        self._room: WaitingRoom | None = None
        if settings.queue is not None:
            self._room = WaitingRoom(settings.queue, teller)
            teller.listen(self._room)

    @property
    def waiting(self) -> list[Waiting]:
        """The calls that wait for a budget, line by line."""
        return [] if self._room is None else self._room.positions()

    async def begin(self, subject: Subject, attempt: Attempt) -> Call:
        """Attempt the call; where it is refused, one with each fallback model that can
        help; where none can, wait for the budget.

        Raises:
            StreamGuardError: the first refusal, when nothing else works either.
        """
        if self._settings.sizes:
            subject = await self._sized(subject)
        room = self._room
        error: StreamGuardError | None = None if room is None else room.ahead(subject)
        if error is None:
            try:
                return self._told(await attempt(subject))
            except REFUSALS as refused:
                error = refused
        call = await self._fall_back(subject, error, attempt)
        if call is not None:
            return self._told(call)
        if room is None or not isinstance(error, WindowBudgetExceededError):
            raise error
        limit = await self._limit(subject, error)
        return self._told(await room.wait(subject, error, limit, attempt))

    async def _limit(self, subject: Subject, error: StreamGuardError) -> Limit | None:
        limits = await self._settings.limits_for(subject.identity, subject.request.model)
        return next((limit for limit in limits if limit.name == error.limit_name), None)

    async def _sized(self, subject: Subject) -> Subject:
        """The request with the model that its name stands for at its size."""
        sizes = self._settings.sizes.get(subject.request.model)
        if not sizes:
            return subject
        tokens = await self._tokens(subject, sizes[-1][1])
        return rerouted(subject, by_size(sizes, tokens)) or subject

    async def _fall_back(
        self, subject: Subject, error: StreamGuardError, attempt: Attempt
    ) -> Call | None:
        for model in await self._models(subject, error):
            other = rerouted(subject, model)
            if other is None:
                return None
            try:
                return await attempt(other)
            except (*REFUSALS, ProtocolError):  # its price may be unknown
                continue
        return None

    async def _models(self, subject: Subject, error: StreamGuardError) -> list[str]:
        """The fallback models worth trying."""
        if not self._settings.fallback:
            return []
        cause = error.first if isinstance(error, OversizedRetryError) else error
        request = subject.request
        least = self._settings.min_output * request.choices
        size = Size(await self._tokens(subject, request.model), least)
        limits = await self._settings.limits_for(subject.identity, request.model)
        others = [self._candidate(model) for model in self._settings.fallback]
        found = helpful(cause, self._candidate(request.model), others, size, limits)
        return [each.model for each in found]

    async def _tokens(self, subject: Subject, model: str) -> int:
        asked = replace(subject, request=replace(subject.request, model=model))
        return (await self._counter.count(asked)).result.input_tokens

    def _candidate(self, model: str) -> Candidate:
        info = self._catalog.model_info(model)
        return Candidate(model, info.context_window, info.input_rate, info.output_rate)

    def _told(self, call: Call) -> Call:
        subject = call.assessment.subject
        if subject.asked is not None:
            self._teller.tell("rerouted", subject, detail=subject.asked)
        return call


def rerouted(subject: Subject, model: str) -> Subject | None:
    """The request for another model; ``None`` where the body does not decide on the model."""
    request = subject.request
    if request.body.get("model") != request.model:
        return None
    other = subject.protocol.parse({**request.body, "model": model}, subject.endpoint)
    if other.model != model:
        return None
    asked = subject.asked or request.model
    return replace(subject, request=other, received=subject.original_body, asked=asked)
