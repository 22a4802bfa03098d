"""One guarded call from its reservation to its one settle."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anyio

from streamguard.core.accounts import Grant
from streamguard.core.admission import amounts
from streamguard.core.billing import Spent, believed, charge
from streamguard.core.disconnect import keeps_billing
from streamguard.core.fund import SLACK, Draw, Fund
from streamguard.core.streams import StreamMeter
from streamguard.core.tokens import Tokenizer
from streamguard.core.wire import Request, StreamState
from streamguard.errors import OutputBudgetExceededError, StreamGuardError
from streamguard.guard.numbers import admitted_headers
from streamguard.guard.prices import cost_of
from streamguard.guard.retry_tally import current_tally
from streamguard.guard.shared import Shared
from streamguard.guard.subject import Assessment
from streamguard.usage import Usage


class Call:
    """What the shells hold while a call runs. ``finish`` settles exactly once.

    Attributes:
        assessment: the request and its count.
        allowance: output tokens all choices together may produce by what is held.
        ceiling: output tokens they may produce if more can be held while they stream.
        body: the body to send: the client's own object when nothing had to change.
        observed: nothing of the call is clamped or cut.
        spent: how it ended, once it has.
        fund: what the reservation holds, for calls made inside this one.
        meters: of its response streams.
    """

    def __init__(
        self,
        shared: Shared,
        assessment: Assessment,
        grant: Grant,
        *,
        outer: Call | None = None,
        drawn: Draw | None = None,
    ) -> None:
        """Start the clock and the heartbeat of the hold."""
        self._shared = shared
        self.assessment = assessment
        self.grant = grant
        self.observed = shared.settings.observe
        self._held = grant.output + (drawn.output_tokens if drawn else 0)
        self._most = max(self._held, assessment.ceiling)
        self.extensible = self._most > self._held
        # Where the provider may send more than the allowance, what comes with the cut is held.
        self._steered = assessment.subject.steered or not assessment.terms.demands
        self._slack = SLACK * (outer is None and (self.extensible or not self._steered))
        self.ceiling = self._most if self._steered else max(0, self._most - self._slack)
        self.allowance = self._allowed()
        self.fund = Fund(assessment.input_tokens, self.allowance)
        self.body = self._rewritten()
        self._outer = outer
        self._drawn = drawn
        self.meters: list[StreamMeter] = []
        self.spent: Spent | None = None
        self._began = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._settling: asyncio.Task[None] | None = None
        self._usage = Usage()
        self._tally = current_tally.get()
        if self._tally is not None:
            self._tally.sent(assessment.input_tokens)
        if assessment.terms.demands:
            self._schedule_renew()

    @property
    def request_id(self) -> str:
        """The reservation's id."""
        return self.assessment.subject.request_id

    @property
    def finished(self) -> bool:
        """Whether the call is being settled, or is."""
        return self.spent is not None

    @property
    def _request(self) -> Request:
        return self.assessment.subject.request

    @property
    def changed(self) -> bool:
        """Whether ``body`` differs from what the client sent."""
        return self.body is not self.assessment.subject.original_body

    @property
    def elapsed(self) -> float:
        """Seconds since the reservation."""
        return time.monotonic() - self._began

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the call's model."""
        return self._shared.counter.tokenizers.for_model(self._request.model).tokenizer

    def meter(self, state: StreamState | None = None) -> StreamMeter:
        """A meter for the response stream, in the request's own wire format by default."""
        subject = self.assessment.subject
        settings = self._shared.settings
        allowance = None if self.observed else self.allowance
        meter = StreamMeter(
            state or subject.protocol.stream(subject.request),
            self.tokenizer,
            allowance,
            soft=settings.graceful_tokens if settings.ending == "graceful" else None,
            input_tokens=self.assessment.input_tokens,
        )
        self.meters.append(meter)
        return meter

    def end(self, meter: StreamMeter) -> bytes:
        """The bytes that end a stream at its allowance, as the settings want it."""
        if self._shared.settings.ending != "strict":
            return meter.end("cut")
        message = (
            f"the output reached its budget of {self.allowance:,} tokens and was cut; raise the "
            "limit, or ask for a shorter answer"
        )
        error = OutputBudgetExceededError(
            message, limit=self.allowance, used=meter.counted, unit="output_tokens"
        )
        return meter.end("strict", error)

    @property
    def drains(self) -> bool:
        """Whether the call goes on to its end when its client leaves."""
        policy, request = self._shared.settings.on_disconnect, self.assessment.subject.request
        if policy == "auto":
            return keeps_billing(request.protocol, request.model)
        return policy == "drain"

    def extend_soon(self, want: int) -> asyncio.Task[int]:
        """Hold up to ``want`` more output tokens, in the background."""
        return self._shared.books.in_background(self.extend(want))

    async def extend(self, want: int) -> int:
        """Hold up to ``want`` more output tokens and allow them; how many were granted.

        A call inside another one extends that one's hold. None granted means none later.
        """
        want = min(want, self._most - self._held)
        if self.finished:
            granted = 0
        elif self._outer is not None and self._drawn is not None:
            granted = await self._draw_more(self._outer, self._drawn, want)
        else:
            granted = await self._shared.books.extend(self.request_id, want)
        self._held += granted
        self.extensible = granted > 0 and self._held < self._most
        more, self.allowance = self._allowed() - self.allowance, self._allowed()
        self.fund.add(more)
        for meter in self.meters:
            meter.extend(more)
        return more

    def _allowed(self) -> int:
        """What may be handed on: short of the ceiling, the chunk that crosses must be held too."""
        if self._steered and self._held >= self._most:
            return self._held
        return max(0, self._held - self._slack)

    async def _draw_more(self, outer: Call, drawn: Draw, want: int) -> int:
        if outer.fund.left.output_tokens < want:
            await outer.extend(want - outer.fund.left.output_tokens)
        more = outer.fund.draw(0, want).output_tokens
        self._drawn = Draw(drawn.input_tokens, drawn.output_tokens + more)
        return more

    def headers(self) -> list[tuple[str, str]]:
        """The ``x-streamguard-*`` headers of an admitted call."""
        return admitted_headers(self.assessment, self.grant, self.ceiling)

    def started(self, status: int) -> None:
        """Tell that the response began."""
        self._shared.teller.tell(
            "started", self.assessment.subject, status=status, duration=self.elapsed
        )

    def hand_on(self) -> None:
        """Note that output was handed on: a retry loop around must not start over."""
        if self._tally is not None:
            self._tally.hand_on()

    def learn_oversized(self, error: StreamGuardError) -> None:
        """Remember that the provider itself refused this request as oversized."""
        request, identity = self._request, self.assessment.subject.identity
        self._shared.refusals.remember(request.body, error, (), request.model, identity)

    def finish_soon(self, spent: Spent) -> None:
        """Settle in the background, once; the guard's ``close`` waits for it."""
        if self.spent is None:
            self.spent = believed(spent)
            self._settling = self._shared.books.in_background(self._finish(self.spent))
            self._settling.add_done_callback(self._settled)

    def _settled(self, _task: asyncio.Task[None]) -> None:
        self._settling = None  # its context holds this call: a cycle that would keep the body

    async def finish(self, spent: Spent) -> Usage:
        """Settle what was used, or release the hold of a call that was not billed; once.

        Safe under cancellation; when the store is out of reach, it is asked again later.
        """
        self.finish_soon(spent)
        if self._settling is not None:
            # The task survives a native cancellation; the scope keeps us waiting under anyio's.
            with anyio.CancelScope(shield=True):
                await asyncio.shield(self._settling)
        return self._usage

    async def _finish(self, spent: Spent) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.extensible = False
        self._usage = usage = self._charged(spent)
        self._shared.learning.learn(self.assessment, spent, usage)
        if self._tally is not None:
            self._tally.received(usage.output_tokens or 0)
        cost = self._cost(usage)
        try:
            await self._close(self._own_part(usage), usage, cost, billed=spent.billed)
        finally:
            told = (self.assessment, spent, usage, cost, self.elapsed, self.allowance)
            self._shared.teller.ended(*told)

    def _charged(self, spent: Spent) -> Usage:
        exact = self._shared.counter.tokenizers.for_model(self._request.model).exact
        usage = charge(self.assessment.input_tokens, spent, exact=exact)
        return self.fund.merged(usage, billed=spent.billed)

    def _own_part(self, usage: Usage) -> Draw:
        """What this call's own reservation is charged, after its share of an outer one."""
        used = Draw(usage.input_tokens or 0, usage.output_tokens or 0)
        if self._outer is None or self._drawn is None:
            return used
        if not self.assessment.terms.demands:
            self._outer.fund.put_back(self._drawn, used)
            return Draw(0, 0)
        covered = Draw(*(min(*pair) for pair in zip(used, self._drawn, strict=True)))
        self._outer.fund.put_back(self._drawn, covered)
        return Draw(used[0] - covered[0], used[1] - covered[1])

    def _cost(self, usage: Usage) -> int | None:
        return cost_of(self._shared.catalog, self._request, usage, self.spent)

    async def _close(self, own: Draw, usage: Usage, cost: int | None, *, billed: bool) -> None:
        terms = self.assessment.terms
        if not terms.demands:
            return
        if not billed and own == (0, 0):
            await self._shared.books.release(self.request_id)
            return
        if own != (usage.input_tokens, usage.output_tokens):  # the rest is the outer call's
            cost = self._cost(replace(usage, input_tokens=own[0], output_tokens=own[1]))
        charged = amounts(terms.limits, *own, cost, requests=0 if self._outer else 1)
        await self._shared.books.settle(self.request_id, charged)

    def _rewritten(self) -> Mapping[str, Any]:
        subject = self.assessment.subject
        cap = None
        if subject.request.produces_output and not self.observed:
            cap = max(1, self.ceiling // subject.request.choices)
        return subject.protocol.rewrite(subject.request, cap)

    def _schedule_renew(self) -> None:
        delay = self._shared.settings.hold_ttl / 3
        # A weak reference: a call that was dropped without finish must not renew for ever.
        self._timer = asyncio.get_running_loop().call_later(delay, _renew, weakref.ref(self))

    def renew(self) -> None:
        """Heartbeat of the hold, in the background."""
        self._shared.books.renew(self.request_id)
        self._schedule_renew()


def _renew(reference: weakref.ref[Call]) -> None:
    call = reference()
    if call is not None and not call.finished:
        call.renew()
