"""Reads a provider's error: whether it refused the request as oversized."""

from __future__ import annotations

import re
from http import HTTPStatus

import msgspec

from streamguard.errors import BudgetExceededError, ContextWindowExceededError, StreamGuardError

_CODES = ("context_length_exceeded", "string_above_max_length", "request_too_large")
_WORDS = re.compile(
    rb"maximum context length|context window|prompt is too long|input token count.{0,40}exceeds",
    re.IGNORECASE,
)


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


def _code(body: bytes) -> str | None:
    try:
        error = msgspec.json.decode(body).get("error")
        return str(error.get("code") or error.get("type")) if isinstance(error, dict) else None
    except (msgspec.DecodeError, AttributeError):
        return None
