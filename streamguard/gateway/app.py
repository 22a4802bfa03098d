"""Puts the gateway together: gate → guard → proxy, and the configuration that may change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import anyio
import anyio.to_thread
import structlog

from streamguard.asgi import StreamGuardMiddleware
from streamguard.asgi.types import ASGIApp, Message, Receive, Scope, Send
from streamguard.errors import ConfigurationError, StreamGuardError
from streamguard.facade import Guard
from streamguard.gateway.config import GatewayConfig, read_gateway
from streamguard.gateway.gate import Gate, identify
from streamguard.gateway.keys import KeyRing
from streamguard.gateway.proxy import Proxy
from streamguard.gateway.upstreams import Upstream
from streamguard.identity import Identity
from streamguard.limits import Limit
from streamguard.sinks.base import Sink
from streamguard.sinks.structlog import StructlogSink

WATCH_SECONDS = 1.0


class Gateway:
    """An ASGI app that runs from one configuration and follows its changes."""

    def __init__(
        self, config: GatewayConfig, *, path: Path | None = None, sinks: Sequence[Sink] = ()
    ) -> None:
        """``path`` is watched: limits, plans, tenants and upstreams follow it while running."""
        self.config = config
        self._path = path
        self._ring = KeyRing(config.keys) if config.keys else None
        told: list[Sink] = [StructlogSink(), *sinks]
        if config.ledger:
            from streamguard.sinks.ledger import LedgerSink

            told.append(LedgerSink(config.ledger))
        self.guard = Guard(self._limits, sinks=told, **config.guard)
        self._proxy = Proxy(self._upstreams, pass_credentials=self._ring is None)
        guarded = StreamGuardMiddleware(
            self._proxy, guard=self.guard, identify=identify, unlisted="deny"
        )
        self._app: ASGIApp = Gate(guarded, self._ring, self._ready)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await self._app(scope, receive, send)

    def _limits(self, identity: Identity, model: str) -> Sequence[Limit]:  # noqa: ARG002
        return self.config.limits_for(identity.tenant)

    def _upstreams(self) -> Sequence[Upstream]:
        return self.config.upstreams

    async def _ready(self) -> bool:
        try:
            await self.guard.open()
            return await self.guard.books.reachable()
        except StreamGuardError:
            return False

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        watch: asyncio.Task[None] | None = None
        try:
            await self.guard.open()
            await self._proxy.open()
        except StreamGuardError as error:
            failed: Message = {"type": "lifespan.startup.failed", "message": error.message}
            await send(failed)
            return
        if self._path is not None:
            watch = asyncio.create_task(self._watch(self._path))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if watch is not None:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch
        await self._proxy.close()
        await self.guard.close()
        if self._ring is not None:
            self._ring.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _watch(self, path: Path) -> None:
        log = structlog.get_logger("streamguard")
        seen = await anyio.to_thread.run_sync(_stamp, path)
        while True:
            await anyio.sleep(WATCH_SECONDS)
            now = await anyio.to_thread.run_sync(_stamp, path)
            if now == seen:
                continue
            seen = now
            try:
                self.config = await anyio.to_thread.run_sync(read_gateway, path)
                log.info("config_reloaded", file=str(path))
            except ConfigurationError as error:
                log.warning("config_rejected", error=error.message)


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size
