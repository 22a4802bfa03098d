"""The one flat schema of a logged event: an allow-list, so nothing else can get out.

A field is a number, or a short identifier: one line, printable, capped. There is no field for
text of prompts or outputs. What is unknown is left out.

Names follow OpenTelemetry's GenAI conventions where those have one; the rest are under
``streamguard.``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from operator import attrgetter
from typing import Any, Literal, NamedTuple, get_args

from streamguard.core.prompt import Component
from streamguard.usage import Usage, UsageEvent

MAX_ID = 128
"""Longest identifier in characters; longer ones end in an ellipsis."""

_LOGGED = 5
"""How many of a usage's counts events show; the rest is only priced."""

Kind = Literal["id", "tokens", "count", "seconds", "unix seconds", "nano-dollars"]


class Field(NamedTuple):
    """One key of a logged event and the ``UsageEvent`` attribute it shows."""

    name: str
    kind: Kind
    attribute: str
    meaning: str


def _usage(prefix: str, attribute: str, meaning: str) -> Iterator[Field]:
    for each in fields(Usage)[:_LOGGED]:
        words = each.name.replace("_", " ")
        yield Field(
            f"{prefix}.{each.name}", "tokens", f"{attribute}.{each.name}", f"{words} {meaning}"
        )
    total = f"{attribute}.total_tokens"
    yield Field(f"{prefix}.total_tokens", "tokens", total, f"input and output tokens {meaning}")


FIELDS: tuple[Field, ...] = (
    Field("streamguard.request_id", "id", "request_id", "the call; the same in all its events"),
    Field("streamguard.at", "unix seconds", "at", "when it happened"),
    Field("streamguard.tenant", "id", "identity.tenant", "who is charged: the tenant"),
    Field("user.id", "id", "identity.user", "who is charged: the user"),
    Field("streamguard.feature", "id", "identity.feature", "who is charged: the feature"),
    Field("gen_ai.request.model", "id", "model", "the model as the client named it"),
    Field("streamguard.endpoint", "id", "endpoint", "the route or API that was called"),
    *_usage("streamguard.counted", "counted", "as streamguard counted them"),
    Field("streamguard.method", "id", "method", "how input was counted: exact, calibrated, bound"),
    Field("gen_ai.usage.input_tokens", "tokens", "reported.input_tokens",
          "input tokens as the provider reported them, cached ones included"),
    Field("gen_ai.usage.output_tokens", "tokens", "reported.output_tokens",
          "output tokens as the provider reported them, reasoning included"),
    Field("gen_ai.usage.reasoning.output_tokens", "tokens", "reported.reasoning_tokens",
          "reasoning tokens as the provider reported them, part of the output"),
    Field("gen_ai.usage.cache_read.input_tokens", "tokens", "reported.cached_tokens",
          "cached tokens as the provider reported them, part of the input"),
    Field("gen_ai.usage.cache_creation.input_tokens", "tokens", "reported.cache_write_tokens",
          "tokens written to the cache as the provider reported them, part of the input"),
    Field("streamguard.reported.total_tokens", "tokens", "reported.total_tokens",
          "input and output tokens as the provider reported them"),
    *_usage("streamguard.charged", "charged", "as the budgets were charged"),
    Field("streamguard.cost", "nano-dollars", "cost_nano_usd", "what the charged tokens cost"),
    Field("streamguard.output_limit", "tokens", "output_limit", "output tokens the call may get"),
    Field("streamguard.outcome", "id", "outcome", "how the call ended"),
    Field("streamguard.duration", "seconds", "duration", "from the request to its end"),
    Field("gen_ai.response.time_to_first_chunk", "seconds", "first_token",
          "from the request to the first output"),
    Field("http.response.status_code", "count", "status", "the HTTP status that was answered"),
    Field("error.type", "id", "code", "the refusal's code, as the client sees it"),
    Field("streamguard.limit.name", "id", "limit_name", "the limit that refused, cut or warned"),
    Field("streamguard.limit.amount", "count", "limit", "its amount, in its own unit"),
    Field("streamguard.limit.used", "count", "used", "what was used or held of it before"),
    Field("streamguard.limit.requested", "count", "requested", "what the call asked of it"),
    Field("streamguard.limit.resets_at", "unix seconds", "resets_at", "when it has room again"),
    Field("streamguard.position", "count", "position", "its place in line, from 1"),
    Field("streamguard.attempt", "count", "attempt", "which attempt of a retried call this is"),
    *(
        Field(f"streamguard.prompt.{part}", "tokens", f"components.{part}",
              f"input tokens of the prompt's {part.replace('_', ' ')}")
        for part in get_args(Component)
    ),
    Field("streamguard.detail", "id", "detail",
          "of a store_error, its kind; of a refused retry, why; rerouted, the model asked for; "
          "settled, what of the report was doubted"),
    Field("streamguard.conversation", "id", "conversation",
          "digest that all calls of a conversation share"),
    Field("streamguard.within", "id", "within",
          "the guarded request this call was made inside; its figures hold this call's too"),
    Field("streamguard.context_window", "tokens", "context_window", "what the model takes"),
)  # fmt: skip
"""Every key that an event may have, in order."""


def flatten(event: UsageEvent) -> dict[str, str | int | float]:
    """The event as flat keys and values; unknown ones are left out."""
    values = ((name, _clean(kind, read(event))) for name, kind, read in _READERS)
    return {name: value for name, value in values if value is not None}


def _reader(path: str) -> Any:
    head, _, tail = path.partition(".")
    if head == "components":
        return lambda event: event.components.get(tail)
    if head in {"reported", "charged"}:
        read = attrgetter(tail)
        return lambda event: None if getattr(event, head) is None else read(getattr(event, head))
    return attrgetter(path)


_READERS = [(field.name, field.kind, _reader(field.attribute)) for field in FIELDS]


def _clean(kind: Kind, value: Any) -> str | int | float | None:
    if kind == "id":
        return identifier(value) if isinstance(value, str) else None
    return value if isinstance(value, (int, float)) else None


def identifier(text: str) -> str:
    """The text on one line, unprintable characters as ``?``, at most ``MAX_ID`` characters."""
    short = text if len(text) <= MAX_ID else text[: MAX_ID - 1] + "…"
    if short.isprintable():
        return short
    return "".join(char if char.isprintable() else "?" for char in short)
