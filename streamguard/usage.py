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
    """Tokens and web searches of one call; unknown is ``None``, never 0.

    Attributes:
        input_tokens: the prompt's, those of a cache included.
        output_tokens: the reply's, reasoning included.
        reasoning_tokens: part of the output.
        cached_tokens: part of the input: read from the provider's cache.
        cache_write_tokens: part of the input: written to the provider's cache.
        audio_input_tokens: part of the input.
        audio_output_tokens: part of the output.
        long_cache_write_tokens: part of ``cache_write_tokens``: to be kept longer than usual.
        web_searches: searches that the provider made and bills by the call.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    audio_input_tokens: int | None = None
    audio_output_tokens: int | None = None
    long_cache_write_tokens: int | None = None
    web_searches: int | None = None

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
            self.audio_input_tokens,
            self.audio_output_tokens,
            self.long_cache_write_tokens,
            self.web_searches,
        )


@dataclass(frozen=True, slots=True)
class UsageEvent:
    """One thing that happened to a guarded call. It never holds prompt or output text.

    What is unknown is ``None``, and what an event does not say is left out where it is logged.

    Attributes:
        event: what happened.
        request_id: the call's, the same in all its events.
        at: when, in Unix seconds.
        identity: who is charged.
        model: as the client named it.
        endpoint: the route or API that was called.
        counted: tokens as streamguard counted them.
        reported: tokens as the provider reported them.
        charged: tokens as the budgets were charged.
        method: how the input was counted.
        cost_nano_usd: what the charged tokens cost, in billionths of a US dollar.
        output_limit: output tokens the call may get.
        outcome: how the call ended.
        duration: seconds from the request to its end.
        first_token: seconds from the request to the first output.
        status: the HTTP status that was answered.
        code: a refusal's code, as the client sees it.
        limit_name: the limit that refused, cut or warned.
        limit: its amount, in its own unit; costs in billionths of a US dollar.
        used: what was used or held of it before, in the same unit.
        requested: what the call asked of it, in the same unit.
        resets_at: when it has room again, in Unix seconds.
        attempt: which attempt of a retried call this is, from 1.
        position: its place in line, from 1.
        components: input tokens by part of the prompt.
        detail: more, as one short identifier.
        conversation: a digest that all calls of a conversation share.
        within: request id of the guarded request this call was made inside: that request's own
            figures hold this call's too.
        context_window: tokens the model takes.
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
