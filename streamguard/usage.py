"""What a call used, and the events that tell of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from streamguard.identity import ANONYMOUS, Identity

Method = Literal["exact", "calibrated", "bound"]
"""How a count was made: the model's own tokenizer, a fitted estimate, or an upper bound."""

EventName = Literal[
    "preflight",
    "trimmed",
    "rerouted",
    "queued",
    "cached",
    "warned",
    "refused",
    "started",
    "cut",
    "settled",
    "released",
    "retried",
    "retry_refused",
    "store_error",
]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one call; unknown is ``None``, never 0.

    ``cached_tokens`` (read from the provider's cache) and ``cache_write_tokens`` (written to it)
    are parts of ``input_tokens``; ``reasoning_tokens`` is part of ``output_tokens``.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None

    @property
    def total_tokens(self) -> int | None:
        """Input and output together; ``None`` while either is unknown."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens

    def merged(self, other: Usage) -> Usage:
        """Take each field from ``other`` where it knows it, else keep this one's."""
        return Usage(
            *(
                mine if theirs is None else theirs
                for mine, theirs in zip(self.fields(), other.fields(), strict=True)
            )
        )

    def fields(self) -> tuple[int | None, ...]:
        """The counts, in the order of the constructor."""
        return (
            self.input_tokens,
            self.output_tokens,
            self.reasoning_tokens,
            self.cached_tokens,
            self.cache_write_tokens,
        )


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """One thing that happened to a guarded call. It never holds prompt or output text.

    ``counted`` is what streamguard counted, ``reported`` what the provider said, ``charged``
    what the budgets were charged.
    ``cost_nano_usd`` is in billionths of a US dollar. Durations are seconds. ``at`` is
    Unix seconds. ``conversation`` is a digest that all calls of a conversation share.
    ``within`` is the request id of the guarded request this call was made inside: that
    request's own figures hold this call's too. ``context_window`` is in tokens.
    """

    event: EventName
    request_id: str
    at: float
    identity: Identity = ANONYMOUS
    model: str | None = None
    endpoint: str | None = None
    counted: Usage = Usage()
    reported: Usage | None = None
    charged: Usage | None = None
    method: Method | None = None
    cost_nano_usd: int | None = None
    output_limit: int | None = None
    outcome: str | None = None
    duration: float | None = None
    first_token: float | None = None
    status: int | None = None
    code: str | None = None
    limit_name: str | None = None
    limit: int | None = None
    used: int | None = None
    requested: int | None = None
    resets_at: float | None = None
    attempt: int | None = None
    position: int | None = None
    components: Mapping[str, int] = field(default_factory=dict)
    detail: str | None = None
    conversation: str | None = None
    within: str | None = None
    context_window: int | None = None
