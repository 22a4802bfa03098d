"""The gateway's front door: who is calling, and what may be called at all."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from streamguard.asgi.body import encoded, header
from streamguard.asgi.types import ASGIApp, Receive, Scope, Send
from streamguard.errors import StoreUnavailableError
from streamguard.gateway.keys import KeyRing, hashed
from streamguard.gateway.upstreams import family_of
from streamguard.identity import Identity
from streamguard.protocols import normal_path

IDENTITY = "streamguard.identity"
"""Where in the scope the gate leaves who is calling."""

Ready = Callable[[], Awaitable[bool]]


class Gate:
    """An ASGI app in front of the guarded proxy. Answers health checks itself."""

    def __init__(self, app: ASGIApp, ring: KeyRing | None, ready: Ready) -> None:
        """Without a ``ring`` callers' own keys pass, and each key is a tenant of its own."""
        self._app = app
        self._ring = ring
        self._ready = ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one connection in, or answer it here."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "not guarded"})
        elif scope["path"] == "/healthz":
            await answer(send, 200, {"status": "ok"})
        elif scope["path"] == "/readyz":
            ready = await self._ready()
            await answer(send, 200 if ready else 503, {"status": "ok" if ready else "not ready"})
        elif not _allowed(scope):
            await refuse(send, scope, 403, "forbidden", "this gateway does not serve that path")
        else:
            await self._enter(scope, receive, send)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        key = credential(scope)
        try:
            identity = await self._identify(key)
        except StoreUnavailableError as error:
            await refuse(send, scope, 503, error.code, error.message)
            return
        if identity is None:
            said = "no key was sent" if key is None else "this key is not known"
            message = f"{said}; ask for one made by 'streamguard keys create'"
            await refuse(send, scope, 401, "invalid_api_key", message)
            return
        await self._app({**scope, IDENTITY: identity}, receive, send)

    async def _identify(self, key: str | None) -> Identity | None:
        if self._ring is not None:
            return None if key is None else await self._ring.identity(key)
        return Identity(tenant=None if key is None else f"key-{hashed(key)[:16]}")


def identify(scope: Scope) -> Identity:
    """Who the gate found to be calling."""
    found: Identity = scope[IDENTITY]
    return found


def credential(scope: Scope) -> str | None:
    """The API key of a request, wherever its family puts it."""
    headers = scope["headers"]
    bearer = header(headers, b"authorization") or b""
    if bearer[:7].lower() == b"bearer ":
        return bearer[7:].strip().decode("latin-1")
    for name in (b"x-api-key", b"x-goog-api-key", b"api-key"):
        value = header(headers, name)
        if value:
            return value.decode("latin-1")
    query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
    return query["key"][0] if "key" in query else None


async def answer(send: Send, status: int, body: object, *more: tuple[str, str]) -> None:
    """Send a JSON response."""
    data = json.dumps(body).encode()
    pairs = [("content-type", "application/json"), ("content-length", str(len(data))), *more]
    await send({"type": "http.response.start", "status": status, "headers": encoded(pairs)})
    await send({"type": "http.response.body", "body": data})


async def refuse(send: Send, scope: Scope, status: int, code: str, message: str) -> None:
    """Send an error in the envelope of the path's family."""
    family = family_of(normal_path(scope["path"]))
    kind = {401: "authentication_error", 403: "permission_error"}.get(status, "api_error")
    body: dict[str, object] = {
        "error": {"message": message, "type": kind, "param": None, "code": code}
    }
    if family == "anthropic":
        body = {"type": "error", "error": {"type": kind, "message": message}}
    elif family == "google":
        names = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 503: "UNAVAILABLE"}
        body = {"error": {"code": status, "message": message, "status": names[status]}}
    retry = () if status == 503 else (("x-should-retry", "false"),)  # noqa: PLR2004
    await answer(send, status, body, *retry)


def _allowed(scope: Scope) -> bool:
    """POSTs are the guard's to judge; of the rest only the list of models is harmless: other
    reads would see what other tenants stored under the gateway's own key.
    """
    if scope["method"] == "POST":
        return True
    path = normal_path(scope["path"])
    return scope["method"] == "GET" and path.rpartition("/models")[1] != ""
