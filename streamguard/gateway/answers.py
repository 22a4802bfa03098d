"""What the gateway itself answers, in the envelope that the family's clients read."""

from __future__ import annotations

from typing import Any

from streamguard.asgi.body import send_json
from streamguard.asgi.types import Send
from streamguard.core.strict_json import dumps

_ANTHROPIC = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    415: "invalid_request_error",
    431: "invalid_request_error",
}
_OPENAI = {401: "authentication_error", 403: "permission_error"}
_GOOGLE = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_SERVER_ERROR = 500


def envelope(family: str, status: int, code: str, message: str) -> dict[str, Any]:
    """An error as clients of the family expect it."""
    if family == "anthropic":
        kind = _ANTHROPIC.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}}
    if family == "google":
        name = _GOOGLE.get(status, "INVALID_ARGUMENT")
        return {"error": {"code": status, "message": message, "status": name}}
    if family == "ollama":
        return {"error": message}
    fallback = "api_error" if status >= _SERVER_ERROR else "invalid_request_error"
    kind = _OPENAI.get(status, fallback)
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


async def answer(send: Send, status: int, body: object, *more: tuple[str, str]) -> None:
    """Send a JSON response."""
    await send_json(send, status, dumps(body), more)


async def refuse(send: Send, family: str, status: int, code: str, message: str) -> None:
    """Send an error; clients are told not to retry what stays as it is."""
    retry = () if status >= _SERVER_ERROR else (("x-should-retry", "false"),)
    await answer(send, status, envelope(family, status, code, message), *retry)


async def refuse_late(send: Send, family: str) -> None:
    """Refuse who comes when the gateway is on its way out."""
    message = "the gateway is shutting down; try again"
    await refuse(send, family, 503, "shutting_down", message)
