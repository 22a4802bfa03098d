"""What is measured: one table of instruments, and the points that an event adds to them.

The first three are OpenTelemetry's GenAI client metrics, by their names and buckets. A call
inside another guarded call adds nothing: the outer one's figures hold it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from streamguard.limits import NANO
from streamguard.sinks.schema import identifier
from streamguard.usage import UsageEvent

Kind = Literal["histogram", "counter", "gauge"]

OTHER = "(other)"
MAX_SERIES = 1_000
"""Label combinations of one instrument; further ones are added up under ``OTHER``."""

_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST = (0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216)
_CALL = ("gen_ai.operation.name", "gen_ai.provider.name", "gen_ai.request.model")


class Instrument(NamedTuple):
    """A metric: its name, unit and labels as OpenTelemetry writes them."""

    name: str
    kind: Kind
    unit: str
    meaning: str
    labels: tuple[str, ...]
    buckets: tuple[float, ...] = ()


TOKEN_USAGE = Instrument(
    "gen_ai.client.token.usage",
    "histogram",
    "{token}",
    "Number of input and output tokens used.",
    (*_CALL, "gen_ai.token.type"),
    _TOKENS,
)
DURATION = Instrument(
    "gen_ai.client.operation.duration",
    "histogram",
    "s",
    "GenAI operation duration.",
    (*_CALL, "error.type"),
    _SECONDS,
)
FIRST_CHUNK = Instrument(
    "gen_ai.client.operation.time_to_first_chunk",
    "histogram",
    "s",
    "Time to receive the first chunk.",
    _CALL,
    _FIRST,
)
REQUESTS = Instrument(
    "streamguard.requests",
    "counter",
    "{request}",
    "Guarded calls by how they ended: completed, cut, refused, cached, ….",
    ("streamguard.outcome", "streamguard.tenant", "streamguard.feature"),
)
REFUSALS = Instrument(
    "streamguard.refusals",
    "counter",
    "{request}",
    "Refused calls by code and limit.",
    ("error.type", "streamguard.limit.name", "streamguard.tenant"),
)
TOKENS = Instrument(
    "streamguard.tokens",
    "counter",
    "{token}",
    "Tokens that the budgets were charged.",
    ("gen_ai.token.type", "streamguard.tenant", "streamguard.feature"),
)
COST = Instrument(
    "streamguard.cost.usd",
    "counter",
    "{USD}",
    "US dollars that the charged tokens cost, where the price is known.",
    ("gen_ai.request.model", "streamguard.tenant", "streamguard.feature"),
)
_BUDGET = ("streamguard.limit.name", "streamguard.tenant")
UTILIZATION = Instrument(
    "streamguard.budget.utilization",
    "gauge",
    "1",
    "Part of a budget that is used or held, as of the last call that met it.",
    _BUDGET,
)
BUDGET_LIMIT = Instrument(
    "streamguard.budget.limit",
    "gauge",
    "",
    "A budget's amount in its own unit; money in nano-dollars.",
    _BUDGET,
)
BUDGET_USED = Instrument(
    "streamguard.budget.used",
    "gauge",
    "",
    "What is used or held of a budget, in its own unit.",
    _BUDGET,
)
INSTRUMENTS = (
    *(TOKEN_USAGE, DURATION, FIRST_CHUNK, REQUESTS, REFUSALS, TOKENS, COST),
    *(UTILIZATION, BUDGET_LIMIT, BUDGET_USED),
)

Point = tuple[Instrument, float, tuple[str, ...]]


class Measures:
    """Turns events into points whose label combinations are bounded in number."""

    def __init__(self, max_series: int = MAX_SERIES) -> None:
        self._max = max_series
        self._seen: dict[str, set[tuple[str, ...]]] = {one.name: set() for one in INSTRUMENTS}

    def points(self, event: UsageEvent) -> Iterator[Point]:
        """What the event adds."""
        if event.within is not None:
            return
        for instrument, value, labels in _points(event):
            yield instrument, value, self._bounded(instrument, labels)

    def _bounded(self, instrument: Instrument, labels: tuple[str | None, ...]) -> tuple[str, ...]:
        known = tuple("" if label is None else identifier(label) for label in labels)
        seen = self._seen[instrument.name]
        if known in seen:
            return known
        if len(seen) >= self._max:
            return (OTHER,) * len(known)
        seen.add(known)
        return known


_Raw = tuple[Instrument, float, tuple[str | None, ...]]


def _points(event: UsageEvent) -> Iterator[_Raw]:
    if event.event == "preflight":
        yield from _budget(event)
    elif event.event in ("refused", "retry_refused"):
        who = event.identity
        yield REQUESTS, 1, ("refused", who.tenant, who.feature)
        yield REFUSALS, 1, (event.code, event.limit_name, who.tenant)
        if event.code == "budget_exceeded":
            yield from _budget(event)
    elif event.event == "cached":
        yield REQUESTS, 1, ("cached", event.identity.tenant, event.identity.feature)
    elif event.event in ("settled", "released"):
        yield from _ended(event)


def _budget(event: UsageEvent) -> Iterator[_Raw]:
    if event.limit_name is None or event.limit is None or event.used is None:
        return
    labels = (event.limit_name, event.identity.tenant)
    yield BUDGET_LIMIT, event.limit, labels
    yield BUDGET_USED, event.used, labels
    yield UTILIZATION, event.used / event.limit if event.limit else 1.0, labels


def _ended(event: UsageEvent) -> Iterator[_Raw]:
    who = event.identity
    yield REQUESTS, 1, (event.outcome, who.tenant, who.feature)
    call = (*operation(event.endpoint), event.model)
    if event.duration is not None:
        yield DURATION, event.duration, (*call, error_type(event))
    if event.first_token is not None:
        yield FIRST_CHUNK, event.first_token, call
    if event.event != "settled" or event.charged is None:
        return
    charged = event.charged
    for kind, tokens in (("input", charged.input_tokens), ("output", charged.output_tokens)):
        if tokens is not None:
            yield TOKEN_USAGE, tokens, (*call, kind)
            yield TOKENS, tokens, (kind, who.tenant, who.feature)
    if event.cost_nano_usd is not None:
        yield COST, event.cost_nano_usd / NANO, (event.model, who.tenant, who.feature)


def error_type(event: UsageEvent) -> str | None:
    """Why a call failed, ``None`` for one that did not: a cut stream is a whole answer."""
    if event.code is not None:
        return event.code
    if event.status is not None and event.status >= 400:  # noqa: PLR2004 - HTTP
        return str(event.status)
    return None if event.outcome in (None, "completed", "cut") else event.outcome


_OPERATIONS = (
    ("/embeddings", "embeddings", "openai"),
    ("/messages", "chat", "anthropic"),
    ("generateContent", "generate_content", "gcp.gemini"),
    ("GenerateContent", "generate_content", "gcp.gemini"),
    ("/api/chat", "chat", "ollama"),
    ("/api/generate", "text_completion", "ollama"),
    ("/chat/completions", "chat", "openai"),
    ("/completions", "text_completion", "openai"),
)


def operation(endpoint: str | None) -> tuple[str, str]:
    """(operation, provider) by OpenTelemetry's names; a route of the app's own is a chat."""
    for mark, name, provider in _OPERATIONS:
        if endpoint is not None and mark in endpoint:
            return name, provider
    return "chat", "openai"
