"""What an error says about trying again: whether it can help, and when."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz
from http import HTTPStatus

from streamguard.errors import StreamGuardError, TimeBudgetExceededError
from streamguard.guard.numbers import worth_retrying
from streamguard.guard.provider_errors import status_of

_TRANSIENT = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS}
_BROKEN = {"APIConnectionError", "TransportError", "ConnectionError", "TimeoutError"}
"""Connection errors of SDKs, httpx and Python, by name: no SDK has to be imported."""


def transient(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, StreamGuardError):
        return worth_retrying(error) or isinstance(error, TimeBudgetExceededError)
    told = _headers(error).get("x-should-retry")
    if told in ("true", "false"):
        return told == "true"
    status = status_of(error)
    if status is not None:
        spent = getattr(error, "code", None) == "insufficient_quota"
        return (status in _TRANSIENT or status >= HTTPStatus.INTERNAL_SERVER_ERROR) and not spent
    return bool(_BROKEN.intersection(kind.__name__ for kind in type(error).__mro__))


def told_wait(error: BaseException) -> float | None:
    """Seconds that an error says to wait: our own figures, ``Retry-After-Ms``, ``Retry-After``."""
    if isinstance(error, StreamGuardError):
        return error.retry_after
    headers = _headers(error)
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        seconds = _seconds(headers.get(name))
        if seconds is not None:
            return seconds / unit
    return _until(headers.get("retry-after"))


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _until(date: str | None) -> float | None:
    """Seconds until an HTTP date (RFC 9110, 10.2.3)."""
    try:
        parsed = parsedate_tz(date or "")
        return None if parsed is None else max(0.0, mktime_tz(parsed) - time.time())
    except (ValueError, OverflowError):
        return None


def _headers(error: BaseException) -> Mapping[str, str]:
    headers: Mapping[str, str] = getattr(getattr(error, "response", None), "headers", None) or {}
    return headers
