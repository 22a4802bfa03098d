"""What a guarded request hands to the code that runs inside it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from streamguard.errors import TimeBudgetExceededError
from streamguard.guard.call import Call
from streamguard.identity import ANONYMOUS, Identity

IdentitySource = Callable[[], Awaitable[Identity]]

current_call: ContextVar[Call | None] = ContextVar("streamguard_call", default=None)
"""The call that the middleware guards around this code: wrapped clients join it."""

end_early: ContextVar[Callable[[TimeBudgetExceededError], None] | None] = ContextVar(
    "streamguard_end_early", default=None
)
"""Ends the guarded request around this code, in its protocol's own form."""

identity_source: ContextVar[IdentitySource | None] = ContextVar(
    "streamguard_identity", default=None
)
"""Who the running HTTP request belongs to, asked only when something is charged."""


async def current_identity() -> Identity:
    """The identity of the HTTP request around this code, anonymous outside one."""
    source = identity_source.get()
    return ANONYMOUS if source is None else await source()
