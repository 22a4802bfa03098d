"""One request as the guard sees it: parsed, then assessed. Values only."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from streamguard.core.accounts import Balance
from streamguard.core.admission import Rates, Terms
from streamguard.core.prompt import PromptCount
from streamguard.core.room import Trimmed
from streamguard.core.wire import Request, WireProtocol
from streamguard.identity import Identity


@dataclass(frozen=True, slots=True)
class Subject:
    """Which request this is and whom it is charged to.

    ``received`` is the body as the client sent it, where the guard put another in its place;
    ``asked`` is the model it asked for, where another answers; ``queued`` is the seconds it
    waited for a budget, and ``position`` its first place in line; ``size`` is the body's
    bytes, 0 where it came decoded; ``steered`` is False where the guard can only cut, and not
    hold the provider to a cap.
    """

    request_id: str
    protocol: WireProtocol
    request: Request
    identity: Identity
    endpoint: str
    received: Mapping[str, Any] | None = None
    asked: str | None = None
    queued: float | None = None
    position: int | None = None
    size: int = 0
    steered: bool = True

    @property
    def original_body(self) -> Mapping[str, Any]:
        """The body as the client sent it."""
        return self.request.body if self.received is None else self.received

    @property
    def kind(self) -> tuple[str, str]:
        """What lengths of outputs are learnt by: the tenant, and the model with the feature."""
        return self.identity.tenant or "", f"{self.request.model} {self.identity.feature or ''}"

    def scope(self) -> dict[str, str]:
        """The value of every scope dimension; unknown is the empty string."""
        return {
            "tenant": self.identity.tenant or "",
            "user": self.identity.user or "",
            "feature": self.identity.feature or "",
            "model": self.request.model,
            "endpoint": self.endpoint,
        }


@dataclass(frozen=True, slots=True)
class Assessment:
    """A request that its per-request budgets and the context window allow.

    ``ceiling`` is the output it may have beyond what is held at first;
    ``conversation`` is a digest; ``within`` is the id of the guarded request around this one;
    ``trimmed`` tells of a prompt that was shortened.
    """

    subject: Subject
    count: PromptCount
    rates: Rates
    terms: Terms
    conversation: str | None = None
    ceiling: int = 0
    within: str | None = None
    trimmed: Trimmed | None = None

    @property
    def input_tokens(self) -> int:
        """The prompt's tokens."""
        return self.count.input_tokens


@dataclass(frozen=True, slots=True)
class Preflight:
    """What ``guard.preflight`` answers for a request that may be sent.

    Attributes:
        count: the prompt's tokens, method, margin and components.
        output_limit: output tokens that all choices together may produce.
        context_window: tokens the model takes, ``None`` when unknown.
        balances: limit name to its account as it stands.
    """

    count: PromptCount
    output_limit: int
    context_window: int | None
    balances: dict[str, Balance]

    @property
    def input_tokens(self) -> int:
        """The prompt's tokens."""
        return self.count.input_tokens


def new_request_id() -> str:
    """A random id for one reservation."""
    return f"sg-{secrets.token_hex(16)}"
