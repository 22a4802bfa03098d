"""One call as a row of the usage ledger: flat, and safe to hand to any database."""

from __future__ import annotations

from typing import Any

import msgspec

from streamguard.sinks.schema import identifier
from streamguard.usage import Usage, UsageEvent

TERMINAL = frozenset({"settled", "released", "refused", "retry_refused", "cached"})
"""Events that end a call: exactly one a call becomes a row. A cut is the outcome of a settled."""

_MOST = 2**63 - 1
_NOTHING = Usage()


class UsageRow(msgspec.Struct, omit_defaults=True, gc=False):
    """The columns of the ledger. Unknown is ``None``, never 0.

    ``at`` is whole microseconds since 1970. ``total_tokens`` is the call's size: what was
    charged, or for a call that was not, what was counted. The other names are those of
    ``UsageEvent`` and ``Usage``.
    """

    at: int
    request_id: str
    event: str
    outcome: str | None = None
    tenant: str | None = None
    user_id: str | None = None
    feature: str | None = None
    model: str | None = None
    endpoint: str | None = None
    conversation: str | None = None
    within: str | None = None
    method: str | None = None
    counted_input: int | None = None
    counted_output: int | None = None
    counted_reasoning: int | None = None
    counted_cached: int | None = None
    reported_input: int | None = None
    reported_output: int | None = None
    reported_reasoning: int | None = None
    reported_cached: int | None = None
    charged_input: int | None = None
    charged_output: int | None = None
    charged_reasoning: int | None = None
    charged_cached: int | None = None
    total_tokens: int | None = None
    cost_nano_usd: int | None = None
    context_window: int | None = None
    output_limit: int | None = None
    duration: float | None = None
    first_token: float | None = None
    status: int | None = None
    code: str | None = None
    limit_name: str | None = None
    limit_amount: int | None = None
    limit_used: int | None = None
    limit_requested: int | None = None
    resets_at: float | None = None
    attempt: int | None = None
    components: str | None = None
    detail: str | None = None
    reported_cache_write: int | None = None
    charged_cache_write: int | None = None


COLUMNS = UsageRow.__struct_fields__
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(UsageRow).decode


def _counts(usage: Usage) -> tuple[int | None, int | None, int | None, int | None]:
    """The columns of a usage, but for what was written to a cache."""
    return (
        usage.input_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
        usage.cached_tokens,
    )


def row_of(event: UsageEvent) -> UsageRow:
    """The row of an event. Names are cut to identifiers; no text of a prompt can be in it."""
    who = event.identity
    return UsageRow(
        round(event.at * 1_000_000),
        identifier(event.request_id),
        event.event,
        _name(event.outcome),
        _name(who.tenant),
        _name(who.user),
        _name(who.feature),
        _name(event.model),
        _name(event.endpoint),
        _name(event.conversation),
        _name(event.within),
        event.method,
        *_counts(event.counted),
        *_counts(event.reported or _NOTHING),
        *_counts(event.charged or _NOTHING),
        _size(event),
        event.cost_nano_usd,
        event.context_window,
        event.output_limit,
        event.duration,
        event.first_token,
        event.status,
        _name(event.code),
        _name(event.limit_name),
        event.limit,
        event.used,
        event.requested,
        event.resets_at,
        event.attempt,
        _encode(event.components).decode() if event.components else None,
        _name(event.detail),
        (event.reported or _NOTHING).cache_write_tokens,
        (event.charged or _NOTHING).cache_write_tokens,
    )


def encode(event: UsageEvent) -> bytes:
    """One line of JSON for an event, without its end of line."""
    row = row_of(event)
    try:
        return _encode(row)
    except (OverflowError, UnicodeEncodeError):
        for name in COLUMNS:
            setattr(row, name, _tame(getattr(row, name)))
        return _encode(row)


def decode(line: bytes) -> UsageRow:
    """The row of a line.

    Raises:
        msgspec.DecodeError: the line is torn or not a row.
    """
    return _decode(line)


def _name(text: str | None) -> str | None:
    return None if text is None else identifier(text)


def _size(event: UsageEvent) -> int | None:
    if event.charged is not None and event.charged.total_tokens:
        return event.charged.total_tokens
    counted = event.counted
    if counted.input_tokens is None and counted.output_tokens is None:
        return None
    return (counted.input_tokens or 0) + (counted.output_tokens or 0)


def _tame(value: Any) -> Any:
    """A value that every database takes."""
    if isinstance(value, int):
        return max(-_MOST, min(_MOST, value))
    return identifier(value) if isinstance(value, str) else value
