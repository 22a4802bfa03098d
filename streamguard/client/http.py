"""Guards an ``httpx`` or ``httpx2`` client by putting a transport around each of its own."""

from __future__ import annotations

import sys
from functools import cache
from types import TracebackType
from typing import Any, Self

from streamguard.client.flow import Flow, Unlisted
from streamguard.client.io import AsyncIo, SyncIo, run_now
from streamguard.errors import ConfigurationError
from streamguard.guard.engine import Engine
from streamguard.identity import Identity

_LIBRARIES = ("httpx2", "httpx")


class _Guarded:
    def __init__(self, inner: Any, flow: Flow, owner: Any) -> None:
        """``owner`` is the client the ``inner`` transport belongs to: it closes it."""
        self.inner = inner
        self._flow = flow
        self._owner = owner


class GuardedTransport(_Guarded):
    """Guards what an asynchronous client sends. Its own transport does the sending."""

    async def handle_async_request(self, request: Any) -> Any:
        """One request, guarded."""
        return await self._flow.handle(request, self.inner, AsyncIo())

    async def aclose(self) -> None:
        """Close the client that was wrapped, once."""
        await self._owner.aclose()

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.inner.__aexit__(kind, error, traceback)


class SyncGuardedTransport(_Guarded):
    """Guards what a synchronous client sends."""

    def handle_request(self, request: Any) -> Any:
        """One request, guarded."""
        io = SyncIo(lambda: self._flow.guard.books.loop)
        return run_now(self._flow.handle(request, self.inner, io))

    def close(self) -> None:
        """Close the client that was wrapped, once."""
        self._owner.close()

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.inner.__exit__(kind, error, traceback)


def library_of(client: object) -> str | None:
    """The HTTP library that a client is of: "httpx2", "httpx" or ``None``."""
    roots = {kind.__module__.partition(".")[0] for kind in type(client).__mro__}
    return next((name for name in _LIBRARIES if name in roots), None)


def guard_http(
    guard: Engine, client: Any, identity: Identity | None, unlisted: Unlisted = "detect"
) -> Any:
    """A twin of an HTTP client whose every request is guarded; ``client`` stays as it is.

    The twin shares the connections, headers, cookies, hooks and mounts. Closing it closes both.

    Raises:
        ConfigurationError: not such a client, closed, or guarded already.
    """
    library = library_of(client)
    if library is None or not hasattr(client, "_transport"):
        raise ConfigurationError(f"{type(client).__name__} is no httpx or httpx2 client")
    web: Any = sys.modules[library]
    if client.is_closed:
        raise ConfigurationError("the client is closed; wrap an open one")
    if is_guarded(client):
        raise ConfigurationError("the client is guarded already; wrap the one it was made from")
    flow = Flow(guard, web, identity, unlisted)
    kind = GuardedTransport if isinstance(client, web.AsyncClient) else SyncGuardedTransport
    twin = _twin(client)
    inner = _PerLoop(client) if getattr(client, "_per_loop", False) else client._transport
    twin._transport = kind(inner, flow, client)
    twin._mounts = {
        pattern: None if mounted is None else kind(mounted, flow, client)
        for pattern, mounted in client._mounts.items()
    }
    return twin


def is_guarded(client: Any) -> bool:
    """Whether an HTTP client was made by ``guard_http``."""
    return isinstance(client._transport, _Guarded)


class _PerLoop:
    """google-genai's clients keep a pool for each event loop, beside their own transport."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def handle_async_request(self, request: Any) -> Any:
        client = self._client._client_for_running_loop()
        return await client._transport_for_url(request.url).handle_async_request(request)


def _twin(client: Any) -> Any:
    own: Any = type(client)
    kind = _undying(own)
    twin = kind.__new__(kind)
    vars(twin).update(vars(client))
    twin._state = type(client._state).UNOPENED
    if hasattr(client, "_per_loop"):
        twin._per_loop = False
    return twin


@cache
def _undying(kind: Any) -> Any:
    """SDKs' own clients close themselves when collected; a twin must not close what it shares."""
    if not hasattr(kind, "__del__"):
        return kind
    return type(kind.__name__, (kind,), {"__del__": lambda _self: None})
