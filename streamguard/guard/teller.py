"""Builds usage events and hands them to the sinks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from streamguard.core.accounts import Grant
from streamguard.core.billing import Spent
from streamguard.errors import StreamGuardError
from streamguard.guard.numbers import tightest
from streamguard.guard.subject import Assessment, Subject
from streamguard.identity import ANONYMOUS
from streamguard.sinks.base import Sink
from streamguard.usage import EventName, Usage, UsageEvent


class Teller:
    """Tells every sink what happened. A sink that fails never reaches the caller."""

    def __init__(self, sinks: Sequence[Sink], clock: Callable[[], float] = time.time) -> None:
        """``clock`` gives the events' Unix time."""
        self._sinks = tuple(sinks)
        self._clock = clock
        self.failures = 0

    def listen(self, sink: Sink) -> None:
        """Tell one more sink."""
        self._sinks = (*self._sinks, sink)

    def tell(self, event: EventName, subject: Subject, **figures: Any) -> None:
        """One event of a request."""
        self._emit(
            UsageEvent(
                event=event,
                request_id=subject.request_id,
                at=self._clock(),
                identity=subject.identity,
                model=subject.request.model,
                endpoint=subject.endpoint,
                **figures,
            )
        )

    def retry(self, event: EventName, subject: Subject | None, **figures: Any) -> None:
        """A retry loop went on or gave up; ``subject`` is unknown where no call was guarded."""
        if subject is not None:
            self.tell(event, subject, **figures)
        else:
            now = self._clock()
            self._emit(UsageEvent(event=event, request_id="unguarded", at=now, **figures))

    async def open(self) -> None:
        """Open the sinks that have an ``open``.

        Raises:
            ConfigurationError: a sink cannot work as it is set up.
        """
        for sink in self._sinks:
            if (opened := getattr(sink, "open", None)) is not None:
                await opened()

    async def close(self) -> None:
        """Close the sinks that have a ``close``; one that fails does not stop the others."""
        for sink in self._sinks:
            if (closed := getattr(sink, "close", None)) is not None:
                try:
                    await closed()
                except Exception:  # noqa: BLE001 - the others must be closed too
                    self.failures += 1

    def admitted(self, assessment: Assessment, output_limit: int, grant: Grant) -> None:
        """A request passed preflight and holds its reservation.

        The limit told of is the one with the smallest part left.
        """
        if assessment.trimmed is not None:
            before, after, room = assessment.trimmed
            counted = Usage(input_tokens=after)
            self.tell("trimmed", assessment.subject, counted=counted, limit=room, requested=before)
        tight = tightest(list(zip(assessment.terms.limits, grant.balances, strict=False)))
        self.tell(
            "preflight",
            assessment.subject,
            counted=Usage(input_tokens=assessment.input_tokens),
            output_limit=output_limit,
            limit_name=tight and tight[0].name,
            limit=tight and tight[1].capacity,
            used=tight and tight[1].used + tight[1].held,
            resets_at=tight and tight[1].resets_at,
            **_known(assessment),
        )

    def crossed(self, assessment: Assessment, grant: Grant) -> None:
        """Soft limits that the call is over: it runs all the same."""
        terms = assessment.terms
        for limit in terms.warnings:
            self.tell("warned", assessment.subject, limit_name=limit.name, limit=limit.amount)
        for which in grant.exceeded:
            limit, balance = terms.limits[which], grant.balances[which]
            self.tell(
                "warned",
                assessment.subject,
                limit_name=limit.name,
                limit=balance.capacity,
                used=balance.used + balance.held,
                resets_at=balance.resets_at,
            )

    def spared(self, subject: Subject, error: StreamGuardError) -> None:
        """A request that would have been refused, were the guard not only observing."""
        self.tell("warned", subject, **_figures(error))

    def refused(self, subject: Subject, error: StreamGuardError, *, repeated: bool) -> None:
        """A request was refused; ``repeated`` when it had been refused as oversized before."""
        event: EventName = "retry_refused" if repeated else "refused"
        self.tell(event, subject, status=error.http_status, **_figures(error))

    def ended(
        self,
        assessment: Assessment,
        spent: Spent,
        usage: Usage,
        cost: int | None,
        took: float,
        allowance: int,
    ) -> None:
        """A call is settled or its hold released; a cut is told of first, with its allowance."""
        figures: dict[str, Any] = {
            "counted": Usage(
                assessment.input_tokens,
                spent.counted.output_tokens,
                spent.counted.reasoning_tokens,
            ),
            "reported": spent.reported,
            **_known(assessment),
            "status": spent.status,
            "outcome": spent.outcome,
            "duration": took,
            "first_token": spent.first_token,
            "detail": f"doubted {', '.join(spent.doubted)}" if spent.doubted else None,
        }
        if spent.outcome == "cut":
            self.tell("cut", assessment.subject, output_limit=allowance, **figures)
        event: EventName = "settled" if spent.billed or usage.total_tokens else "released"
        self.tell(event, assessment.subject, **figures, charged=usage, cost_nano_usd=cost)

    def store_error(self, reservation: str, error: StreamGuardError) -> None:
        """The store could not be asked; the error's text names no tenant."""
        self._emit(
            UsageEvent(
                event="store_error",
                request_id=reservation,
                at=self._clock(),
                identity=ANONYMOUS,
                code=error.http_code,
                detail=type(error).__name__,
            )
        )

    def _emit(self, event: UsageEvent) -> None:
        for sink in self._sinks:
            try:
                sink.emit(event)
            except Exception:  # noqa: BLE001 - telling must never break the call it tells of
                self.failures += 1


def _known(assessment: Assessment) -> dict[str, Any]:
    """What preflight found out about a request."""
    return {
        "method": assessment.count.method,
        "components": assessment.count.components,
        "conversation": assessment.conversation,
        "within": assessment.within,
        "context_window": assessment.rates.context_window,
    }


def _figures(error: StreamGuardError) -> dict[str, Any]:
    tokens = sum(error.components.values()) if error.components else None
    return {
        "counted": Usage(input_tokens=tokens),
        "code": error.http_code,
        "limit_name": error.limit_name,
        "limit": _whole(error.limit),
        "used": _whole(error.used),
        "requested": _whole(error.requested),
        "resets_at": error.resets_at,
        "components": error.components,
    }


def _whole(amount: Any) -> int | None:
    """Tokens as they are; money in nano-dollars."""
    if amount is None or isinstance(amount, int):
        return amount
    return int(amount * 10**9)
