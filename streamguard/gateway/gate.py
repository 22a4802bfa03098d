"""The gateway's front door: who is calling, and what may be called at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from streamguard.asgi.types import ASGIApp, Receive, Scope, Send
from streamguard.errors import StoreUnavailableError
from streamguard.gateway.answers import answer, refuse, refuse_late
from streamguard.gateway.headers import QUERY_KEYS
from streamguard.gateway.keys import KeyRing, hashed
from streamguard.gateway.proxy import ROUTE
from streamguard.gateway.routes import Route, family_of, plain_path, query_of, route_of
from streamguard.identity import Identity

IDENTITY = "streamguard.identity"
"""Where in the scope the gate leaves who is calling."""

MAX_HEADERS = 64 * 1024

_PLAIN = frozenset({b"x-api-key", b"x-goog-api-key", b"api-key"})
"""Headers that hold a key as it is."""

Ready = Callable[[], Awaitable[bool]]


class Gate:
    """An ASGI app in front of the guarded proxy. Answers health checks itself.

    Attributes:
        closed: nobody new is let in: the gateway is shutting down.
    """

    def __init__(self, guarded: ASGIApp, free: ASGIApp, ring: KeyRing | None, ready: Ready) -> None:
        """``guarded`` takes the calls that cost something, ``free`` the others. Without a
        ``ring`` callers' own keys pass, and each key is a tenant of its own.
        """
        self._guarded = guarded
        self._free = free
        self._ring = ring
        self._ready = ready
        self.closed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one connection in, or answer it here."""
        if scope["type"] != "http":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "not guarded"})
        elif scope["path"] == "/healthz":
            await answer(send, 200, {"status": "ok"})
        elif scope["path"] == "/readyz":
            ready = not self.closed and await self._ready()
            await answer(send, 200 if ready else 503, {"status": "ok" if ready else "not ready"})
        else:
            await self._enter(scope, receive, send)

    async def _enter(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = plain_path(scope)
        family = family_of(path or scope["path"])
        route = None if path is None else route_of(scope, path)
        if self.closed:
            await refuse_late(send, family)
        elif sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADERS:
            message = f"the headers are over {MAX_HEADERS:,} bytes"
            await refuse(send, family, 431, "headers_too_large", message)
        elif route is None:
            message = f"this gateway does not serve {scope['method']} {scope['path'][:200]}"
            await refuse(send, family, 403, "forbidden", message)
        else:
            await self._identified(route, scope, receive, send)

    async def _identified(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        sent = credentials(scope)
        key = sent[0] if sent else None
        if self._ring is None and len(sent) > 1:
            # The upstream might take another one than the tenant is named by.
            message = "more than one key was sent; send only the provider's own"
            await refuse(send, route.family, 401, "invalid_api_key", message)
            return
        try:
            identity = await self._identify(key)
        except StoreUnavailableError as error:
            await refuse(send, route.family, 503, error.code, error.message)
            return
        if identity is None:
            said = "no key was sent" if key is None else "this key is not known"
            message = f"{said}; ask for one made by 'streamguard keys create'"
            await refuse(send, route.family, 401, "invalid_api_key", message)
            return
        app = self._guarded if route.guarded else self._free
        await app({**scope, IDENTITY: identity, ROUTE: route}, receive, send)

    async def _identify(self, key: str | None) -> Identity | None:
        if self._ring is not None:
            return None if key is None else await self._ring.identity(key)
        return Identity(tenant=None if key is None else f"key-{hashed(key)[:16]}")


def identify(scope: Scope) -> Identity:
    """Who the gate found to be calling."""
    found: Identity = scope[IDENTITY]
    return found


def credentials(scope: Scope) -> list[str]:
    """The API keys of a request, wherever a family puts them, a bearer's first; each once."""
    headers = scope["headers"]
    words = [value.split() for name, value in headers if name.lower() == b"authorization"]
    bearers = [b" ".join(said[1:]) for said in words if said and said[0].lower() == b"bearer"]
    plain = [value for name, value in headers if name.lower() in _PLAIN]
    others = [b" ".join(said) for said in words if said and said[0].lower() != b"bearer"]
    query = query_of(scope)
    asked = [value for name in query if name.lower() in QUERY_KEYS for value in query[name]]
    found = [key.decode("latin-1").strip() for key in (*bearers, *plain)] + asked
    return list(
        dict.fromkeys(key for key in (*found, *(o.decode("latin-1") for o in others)) if key)
    )
