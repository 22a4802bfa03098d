"""Reads a provider's error: whether it refused the request as oversized, whether it bills it."""

from __future__ import annotations

import re
from http import HTTPStatus

import msgspec

from streamguard.core.billing import Spent
from streamguard.errors import (
    BudgetExceededError,
    ConfigurationError,
    ContextWindowExceededError,
    StreamGuardError,
    TimeBudgetExceededError,
)

MAX_ERROR_BYTES = 2**20
"""A longer error is not read. Less would be too little for those that quote the request."""

_CODES = ("context_length_exceeded", "string_above_max_length", "request_too_large")
_WORDS = re.compile(
    rb"maximum context length|context window|prompt is too long|input token count.{0,40}exceeds",
    re.IGNORECASE,
)

_NEVER_SENT = frozenset(
    {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol",
     "LocalProtocolError"}
)  # fmt: skip
"""httpx's errors (httpx2 has the same) after which the provider has seen nothing."""


def oversized_reply(status: int, body: bytes) -> StreamGuardError | None:
    """The refusal a provider's error response amounts to, ``None`` when it is another error."""
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return BudgetExceededError(
            "the provider refused this request as too large (413); shorten it: sending it again "
            "unchanged will be refused"
        )
    if status == HTTPStatus.BAD_REQUEST and (_code(body) in _CODES or _WORDS.search(body)):
        return ContextWindowExceededError(
            "the provider refused this request: it does not fit the model's context window; "
            "shorten it: sending it again unchanged will be refused"
        )
    return None


def oversized_error(error: BaseException) -> StreamGuardError | None:
    """The same for an SDK's exception; a refusal of our own is known already."""
    status = status_of(error)
    if status is None or isinstance(error, StreamGuardError):
        return None
    told = {"code": getattr(error, "code", None), "message": str(error)}
    return oversized_reply(status, msgspec.json.encode({"error": told}))


def status_of(error: BaseException) -> int | None:
    """The HTTP status an SDK's exception tells of (google-genai calls it ``code``)."""
    told = (
        (error, "status_code"),
        (error, "code"),
        (getattr(error, "response", None), "status_code"),
    )
    found = (getattr(holder, name, None) for holder, name in told)
    return next((status for status in found if type(status) is int), None)


def failed(error: BaseException) -> Spent:
    """How a call ended that raised. What may have reached the provider is billed."""
    if isinstance(error, ConfigurationError):
        return Spent("unmetered")
    if isinstance(error, TimeBudgetExceededError):
        return Spent("timed_out")
    status = status_of(error)
    if status is not None:
        return Spent("error_response", billed=False, status=status)
    if isinstance(error, StreamGuardError):
        return Spent("refused", billed=False)
    if _NEVER_SENT.intersection(_names(error)):
        return Spent("unreachable", billed=False)
    return Spent("upstream_error" if isinstance(error, Exception) else "cancelled")


def _names(error: BaseException | None) -> set[str]:
    """Names of the classes of an error and of those behind it."""
    names: set[str] = set()
    while error is not None:
        names.update(kind.__name__ for kind in type(error).__mro__)
        error = error.__cause__
    return names


def _code(body: bytes) -> str | None:
    try:
        error = msgspec.json.decode(body).get("error")
        return str(error.get("code") or error.get("type")) if isinstance(error, dict) else None
    except (msgspec.DecodeError, AttributeError):
        return None
