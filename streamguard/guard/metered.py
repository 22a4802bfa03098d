"""What a provider's response used, and how it is cut. Middleware and wrapped clients share it."""

from __future__ import annotations

from typing import Literal

from streamguard.core.billing import Spent
from streamguard.core.replies import measure
from streamguard.core.wire import Delta, EndReason, Reply, Request, StreamState
from streamguard.errors import ProtocolError, TimeBudgetExceededError
from streamguard.guard.call import Call
from streamguard.guard.learning import may_hide
from streamguard.guard.top_up import TopUp
from streamguard.usage import Usage

Mode = Literal["stream", "whole", "error", "encoded", "empty"]
"""How a response is taken: metered as it comes, read whole, or not billed."""

MAX_WHOLE_BYTES = 64 * 1024 * 1024
"""A whole response longer than this cannot be metered."""

TOKENS_A_SECOND = 100
"""What a model generates of one choice, about, where nobody sees it."""

_GIVEN_UP = ("disconnected", "cancelled")
_UNLIMITED = 2**62


def mode_of(status: int, media: str | None, encoding: str | None, request: Request) -> Mode:
    """How to take a response, by its status and its content type and encoding headers."""
    if not 200 <= status < 300:  # noqa: PLR2004
        return "error"
    if status == 204:  # noqa: PLR2004
        return "empty"
    if (encoding or "identity").strip().lower() != "identity":
        return "encoded"
    kind = (media or "").split(";")[0].strip().lower()
    is_json = kind == "application/json" or kind.endswith("+json")
    return "whole" if is_json and not request.array_stream else "stream"


def measured(call: Call, body: bytes) -> tuple[bytes, Spent]:
    """Count a whole response; the same object comes back unless it had to be cut."""
    subject = call.assessment.subject
    reply = subject.protocol.read_reply(subject.request, body)
    if not reply.deltas and reply.usage == Usage():
        # Not the protocol's own response: what cannot be read is counted as it stands.
        text = body.decode("utf-8", "replace")
        counted = measure(Reply([Delta((0, "raw"), text)]), call.tokenizer, _UNLIMITED).counted
        return body, Spent("completed", Usage(output_tokens=counted))
    limit = _UNLIMITED if call.observed else call.allowance
    result = measure(reply, call.tokenizer, limit)
    usage = Usage(output_tokens=result.counted, reasoning_tokens=result.reasoning)
    if result.kept is None:
        return body, Spent("completed", usage, reply.usage, served=reply.served)
    whole = measure(reply, call.tokenizer, _UNLIMITED)  # what was cut off is billed all the same
    usage = Usage(output_tokens=whole.counted, reasoning_tokens=whole.reasoning)
    shortened = subject.protocol.shorten_reply(subject.request, body, result.kept)
    return shortened, Spent("cut", usage, reply.usage, served=reply.served)


def unseen(call: Call, outcome: str) -> Usage:
    """About what a call that was given up had generated of output that shows only when it is done:
    a whole response, hidden thoughts. What calls inside the call report is known better.
    """
    request = call.assessment.subject.request
    shows = outcome not in _GIVEN_UP or (request.stream and not may_hide(request))
    if call.fund.joined or shows or not request.produces_output:
        return Usage()
    about = int(call.elapsed * TOKENS_A_SECOND) * request.choices
    return Usage(output_tokens=min(call.allowance, about))


def unmetered(call: Call) -> Spent:
    """A response that cannot be read: the provider bills it, so all that was allowed counts."""
    return Spent("unmetered", Usage(output_tokens=call.allowance))


class MeteredStream:
    """One response stream of a call: bytes in, bytes to hand on out.

    Attributes:
        over: nothing more may be fed: close the upstream, then send what the last ``feed`` gave,
            which holds the protocol's own ending.
    """

    def __init__(self, call: Call, state: StreamState | None = None) -> None:
        """``state`` is the stream's wire format where it is not the request's own."""
        self._call = call
        self._meter = call.meter(state)
        self._top_up = TopUp(call, self._meter)
        self._broken = False
        self._late = False
        self._first_token: float | None = None
        self.over = False

    @property
    def cut(self) -> bool:
        """Whether the allowance ended the stream."""
        return self._meter.cut

    @property
    def handed_on(self) -> bool:
        """Whether any output was handed on."""
        return self._first_token is not None

    @property
    def delivered(self) -> int:
        """Output tokens handed on so far, exact."""
        return self._meter.counted

    def wants_more(self, size: int) -> bool:
        """Whether ``await more(size)`` is due before the next ``size`` bytes are fed."""
        return self._top_up.needed(size)

    async def more(self, size: int) -> None:
        """Hold more output for the stream, where the budgets have it."""
        await self._top_up.ensure(size)

    def feed(self, data: bytes) -> bytes:
        """What to hand on of the upstream's next bytes; the same object where nothing changed."""
        meter = self._meter
        try:
            out = meter.feed(data)
        except ProtocolError as error:
            return self._break_off(error)
        if meter.cut or self._first_token is None:
            return self._noted(out)
        return out

    def finish(self) -> bytes:
        """What to hand on when the upstream has ended."""
        try:
            return self._noted(self._meter.finish())
        except ProtocolError as error:
            return self._break_off(error)

    def time_out(self, error: TimeBudgetExceededError) -> bytes:
        """What to hand on when a time budget lapsed: the protocol's own early end where the whole
        stream's is used up, an error where the provider is stuck.
        """
        self.over = self._late = True
        reason: EndReason = "cut" if error.lapse == "stream" else "upstream_error"
        return self._meter.end(reason, error)

    def spent(self, outcome: str) -> Spent:
        """What was used by now. ``outcome`` is how it ended, where the stream does not say."""
        meter = self._meter
        if self._late:
            outcome = "timed_out"
        elif self._broken:
            outcome = "upstream_error"
        elif meter.cut:
            outcome = "cut"
        elif meter.native_end:
            outcome = "completed"
        output = max(meter.observed, unseen(self._call, outcome).output_tokens or 0)
        counted = Usage(output_tokens=output, reasoning_tokens=meter.counted_by("reasoning"))
        first, served = self._first_token, meter.served
        return Spent(outcome, counted, meter.reported, first_token=first, served=served)

    def _noted(self, out: bytes) -> bytes:
        """Note the first output and the cut; a cut has its ending appended."""
        meter = self._meter
        if self._first_token is None and meter.first_output:
            self._first_token = self._call.elapsed
            self._call.hand_on()
        if not meter.cut:
            return out
        self.over = True
        return out + self._call.end(meter)

    def _break_off(self, error: ProtocolError) -> bytes:
        self.over = self._broken = True
        return self._meter.end("upstream_error", error)
