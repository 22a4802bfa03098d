"""Recorded calls, run again against other limits by the ledger's own rules. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Literal, NamedTuple

from streamguard.core import ledger
from streamguard.core.accounts import Grant, Refusal
from streamguard.core.admission import Ask, Rates, Terms, amounts, terms
from streamguard.core.books import Books
from streamguard.core.prompt import PromptCount
from streamguard.errors import ContextWindowExceededError, ProtocolError, StreamGuardError
from streamguard.limits import Limit
from streamguard.usage import Usage

Outcome = Literal["passed", "cut", "refused"]

CONTEXT, UNPRICED = "the context window", "no known price"
"""What refuses beside the limits."""

PER_REQUEST = "a budget per request"
"""What cuts beside the windows."""


class Record(NamedTuple):
    """One call as it was: when it began (Unix seconds), how long it took, what it used.

    ``cap`` is the output it might have had; ``cost`` is nano-dollars. Unknown is ``None``.
    """

    at: float
    seconds: float
    scope: dict[str, str]
    input_tokens: int
    output_tokens: int
    cap: int | None = None
    cost: int | None = None


class Replayed(NamedTuple):
    """What would have come of a call: ``by`` is the limit that refused or cut it."""

    record: Record
    outcome: Outcome
    by: str | None
    output_tokens: int
    cost: int | None


@dataclass(frozen=True, slots=True)
class Policy:
    """How calls are held.

    Attributes:
        adaptive: hold what the call will use, as a reserve that has learnt it and is topped up;
            False holds its whole cap.
        reserve: the cap of calls whose cap is not recorded, in tokens.
        least: output tokens a call must be able to get.
    """

    adaptive: bool = True
    reserve: int = 4_096
    least: int = 1


Price = Callable[[str, Usage, float], int | None]
"""Nano-dollars of a model's usage at a time (Unix seconds)."""


class Replay:
    """Runs recorded calls through limits. Calls that are refused do not come again."""

    def __init__(
        self,
        limits_for: Callable[[str], Sequence[Limit]],
        rates: Callable[[str], Rates],
        price: Price,
        policy: Policy | None = None,
    ) -> None:
        """``limits_for`` gives a tenant's limits, ``rates`` a model's window and worst prices."""
        self._limits_for = limits_for
        self._rates = rates
        self._price = price
        self._policy = policy or Policy()
        self._books = Books()
        self._running: list[tuple[float, int, list[int]]] = []
        self._number = 0

    def run(self, records: Iterable[Record]) -> Iterator[Replayed]:
        """What comes of each; ``records`` are in the order in which they began."""
        for record in records:
            self._settle_until(record.at)
            yield self._one(record)

    def _settle_until(self, now: float) -> None:
        while self._running and self._running[0][0] <= now:
            end, number, charge = heappop(self._running)
            ledger.settle(self._books, str(number), charge, now=end)

    def _one(self, record: Record) -> Replayed:
        try:
            asked = self._terms(record)
        except StreamGuardError as error:
            return _refused(record, _name(error))
        self._number += 1
        decision = ledger.reserve(
            self._books,
            str(self._number),
            asked.demands,
            want=asked.want,
            least=asked.least,
            ttl=record.seconds + 1.0,
            now=record.at,
        )
        if isinstance(decision, Refusal):
            return _refused(record, asked.limits[decision.which].name)
        return self._ended(record, asked, decision)

    def _terms(self, record: Record) -> Terms:
        policy = self._policy
        cap = policy.reserve if record.cap is None else record.cap
        want = record.output_tokens if policy.adaptive else max(cap, record.output_tokens)
        count = PromptCount(record.input_tokens, "exact", model=record.scope["model"])
        least = min(policy.least, record.output_tokens)
        ask = Ask(count, cap=want, reserve=least, choices=int(want > 0), least=least)
        limits = self._limits_for(record.scope["tenant"])
        return terms(ask, limits, record.scope, self._rates(record.scope["model"]))

    def _ended(self, record: Record, asked: Terms, grant: Grant) -> Replayed:
        output = min(record.output_tokens, grant.output)
        cut = output < record.output_tokens
        cost = record.cost
        if cut or cost is None:
            usage = Usage(record.input_tokens, output)
            cost = self._price(record.scope["model"], usage, record.at)
        charge = amounts(asked.limits, record.input_tokens, output, cost, requests=1)
        heappush(self._running, (record.at + record.seconds, self._number, charge))
        by = _cutter(asked, grant) if cut else None
        return Replayed(record, "cut" if cut else "passed", by, output, cost)


def _cutter(asked: Terms, grant: Grant) -> str:
    """What cut an output: the window that has not another token, else the request's budget."""
    tried = zip(asked.limits, asked.demands, grant.balances, strict=True)
    full = (limit.name for limit, each, left in tried if left.remaining < each.rate)
    return next(full, PER_REQUEST) if grant.output < asked.want else PER_REQUEST


def _refused(record: Record, by: str) -> Replayed:
    return Replayed(record, "refused", by, 0, 0)


def _name(error: StreamGuardError) -> str:
    if isinstance(error, ContextWindowExceededError):
        return CONTEXT
    return UNPRICED if isinstance(error, ProtocolError) else str(error.limit_name)
