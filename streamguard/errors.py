"""Every error streamguard raises.

::

    StreamGuardError
    ├── ConfigurationError              a setting is wrong; nothing was sent
    ├── ProtocolError                   the body is malformed, ambiguous or unsupported
    ├── BudgetExceededError             a budget refuses
    │   ├── InputBudgetExceededError    the prompt is over a per-request budget
    │   ├── OutputBudgetExceededError   the output is over its budget
    │   └── WindowBudgetExceededError   a window has too little left
    ├── ContextWindowExceededError      the prompt cannot fit the model
    ├── OversizedRetryError             refused before as oversized, and sent again
    ├── TimeBudgetExceededError         the call took longer than its time budget
    └── StoreUnavailableError           the budget store is out of reach, policy fail-closed
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import ClassVar, Literal

Amount = int | Decimal
Lapse = Literal["first_token", "idle", "stream"]
"""Which time budget of a call ran out."""


class StreamGuardError(Exception):
    """Base of all errors; carries the figures behind the refusal where they apply.

    Token amounts are integers; amounts of money are ``Decimal`` US dollars.
    """

    status: ClassVar[int] = 500
    code: ClassVar[str] = "streamguard_error"

    def __init__(
        self,
        message: str,
        *,
        limit: Amount | None = None,
        used: Amount | None = None,
        requested: Amount | None = None,
        scope: Mapping[str, str] | None = None,
        resets_at: float | None = None,
        retry_after: float | None = None,
        unit: str | None = None,
        components: Mapping[str, int] | None = None,
    ) -> None:
        """Keep the figures; ``resets_at`` is Unix seconds, ``retry_after`` seconds from now.

        ``retry_after`` is ``None`` where waiting cannot help. ``components`` are the prompt's
        tokens by component; ``grew`` is what each gained since the conversation's last call.
        """
        super().__init__(message)
        self.limit = limit
        self.used = used
        self.requested = requested
        self.scope = dict(scope or {})
        self.resets_at = resets_at
        self.retry_after = retry_after
        self.unit = unit
        self.components = dict(components or {})
        self.grew: dict[str, int] = {}
        self.limit_name: str | None = None

    @property
    def message(self) -> str:
        """What happened, the figures, and what to do next."""
        return str(self.args[0])

    @property
    def http_status(self) -> int:
        """The HTTP status a refused client sees."""
        return self.status

    @property
    def http_code(self) -> str:
        """The machine-readable code a refused client sees."""
        return self.code


class ConfigurationError(StreamGuardError):
    """A setting is wrong; raised when the guard is built or a config is read."""

    code = "configuration_error"


class ProtocolError(StreamGuardError):
    """The request body is malformed, ambiguous or of an unsupported kind."""

    status = 400
    code = "invalid_request"


class UnsupportedBodyError(ProtocolError):
    """The body's media type or content encoding is not supported."""

    status = 415


class BodyTooLargeError(ProtocolError):
    """The request body is over the byte limit that the guard reads."""

    status = 413


class BudgetExceededError(StreamGuardError):
    """A budget refuses the call."""

    status = 413
    code = "request_budget_exceeded"


class InputBudgetExceededError(BudgetExceededError):
    """The prompt alone is over a per-request budget."""


class OutputBudgetExceededError(BudgetExceededError):
    """The output ran over its budget, or no output fits the budget."""


class WindowBudgetExceededError(BudgetExceededError):
    """A window's budget has too little left for the call."""

    status = 429
    code = "budget_exceeded"


class ContextWindowExceededError(StreamGuardError):
    """The prompt and its reserved output do not fit the model's context window."""

    status = 400
    code = "context_length_exceeded"


class OversizedRetryError(StreamGuardError):
    """The same request was refused as oversized before; it was not sent again."""

    status = 400
    code = "context_length_exceeded"

    def __init__(self, message: str, *, first: StreamGuardError) -> None:
        """Repeat the figures, status and code of the ``first`` refusal."""
        super().__init__(
            message,
            limit=first.limit,
            used=first.used,
            requested=first.requested,
            scope=first.scope,
            unit=first.unit,
            components=first.components,
        )
        self.first = first

    @property
    def http_status(self) -> int:
        """The first refusal's status."""
        return self.first.http_status

    @property
    def http_code(self) -> str:
        """The first refusal's code."""
        return self.first.http_code


class TimeBudgetExceededError(StreamGuardError):
    """A call took longer than its time budget."""

    status = 504
    code = "time_budget_exceeded"

    def __init__(self, message: str, *, lapse: Lapse, seconds: float) -> None:
        """``lapse`` is the budget that is used up, of ``seconds``."""
        super().__init__(message, limit=math.ceil(seconds), unit="seconds")
        self.lapse = lapse


class StoreUnavailableError(StreamGuardError):
    """The budget store is out of reach and the policy is to fail closed."""

    status = 503
    code = "budget_store_unavailable"
