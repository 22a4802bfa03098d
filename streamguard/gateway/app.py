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
from streamguard.asgi.types import ASGIApp, Receive, Scope, Send
from streamguard.errors import ConfigurationError, StreamGuardError, TimeBudgetExceededError
from streamguard.facade import Guard
from streamguard.gateway.config import GatewayConfig, read_gateway
from streamguard.gateway.gate import Gate, identify
from streamguard.gateway.keys import KeyRing
from streamguard.gateway.proxy import BrokenUpstreamError, Proxy
from streamguard.gateway.telling import told_by
from streamguard.gateway.upstreams import Upstream
from streamguard.identity import Identity
from streamguard.limits import Limit
from streamguard.live import Beside, LivePage
from streamguard.sinks.base import Sink
from streamguard.sinks.structlog import StructlogSink

WATCH_SECONDS = 1.0
_LOOK_SECONDS = 0.05


class ShuttingDownError(TimeBudgetExceededError):
    """The gateway stops: what still runs is ended."""

    status = 503
    code = "shutting_down"

    def __init__(self, seconds: float) -> None:
        """``seconds`` is how long running calls had."""
        message = f"the gateway is shutting down and waited {seconds:g} s for this call; try again"
        super().__init__(message, lapse="stream", seconds=seconds)


class Gateway:
    """An ASGI app that runs from one configuration and follows its changes."""

    def __init__(
        self,
        config: GatewayConfig,
        *,
        path: Path | None = None,
        sinks: Sequence[Sink] | None = None,
    ) -> None:
        """``path`` is watched: limits, plans, tenants and upstreams follow it while running.
        ``sinks`` are told beside the ledger; structlog is by default.
        """
        self.config = config
        self._path = path
        self._seen = None if path is None else _stamp(path)
        self._ring = KeyRing(config.keys) if config.keys else None
        told = told_by(config.tell)
        self.guard = Guard(
            self._limits, sinks=[*_sinks(config, sinks), *told.sinks], **config.guard
        )
        self._proxy = Proxy(self._upstreams, pass_credentials=self._ring is None)
        guarded = StreamGuardMiddleware(
            self._proxy, guard=self.guard, identify=identify, unlisted="deny"
        )
        self._gate = Gate(guarded, self._proxy, self._ring, self._ready)
        self._app: ASGIApp = self._gate
        self._live: LivePage | None = None
        if config.live_page:
            ledger = config.ledger or None
            self._live = LivePage(self.guard, password=config.live_page, ledger=ledger)
            self._app = Beside(self._gate, self._live)
        if told.page is not None:
            self._app = Beside(self._app, told.page, at="/metrics")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        # Returning without the final body makes the server break the connection.
        with contextlib.suppress(BrokenUpstreamError):
            await self._app(scope, receive, send)

    async def drain(self, seconds: float) -> None:
        """Let nobody new in; return when all calls are over. What runs longer than ``seconds``
        is ended in its protocol's own form.
        """
        self._gate.closed = True
        if self._live is not None:
            self._live.close()
        with anyio.move_on_after(seconds):
            while self._proxy.running:  # noqa: ASYNC110 - once in a process's life
                await anyio.sleep(_LOOK_SECONDS)
        if self._proxy.running:
            log = structlog.get_logger("streamguard")
            log.warning("calls_ended_early", calls=len(self._proxy.running), seconds=seconds)
            self._proxy.end_all(ShuttingDownError(seconds))

    def _limits(self, identity: Identity, model: str) -> Sequence[Limit]:  # noqa: ARG002
        return self.config.limits_for(identity.tenant)

    def _upstreams(self) -> Sequence[Upstream]:
        return self.config.upstreams

    async def _ready(self) -> bool:
        try:
            await self.guard.open()
            store = await self.guard.books.reachable()
        except StreamGuardError:
            return False
        return store and (self._ring is None or await self._ring.reachable())

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.guard.open()
        except StreamGuardError as error:
            await send({"type": "lifespan.startup.failed", "message": error.message})
            return
        await self._proxy.open()
        watch = None if self._path is None else asyncio.create_task(self._watch(self._path))
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
        while True:
            await anyio.sleep(WATCH_SECONDS)
            now = await anyio.to_thread.run_sync(_stamp, path)
            if now != self._seen:
                self._seen = now
                await self._reload(path)

    async def _reload(self, path: Path) -> None:
        log = structlog.get_logger("streamguard")
        try:
            config = await anyio.to_thread.run_sync(read_gateway, path)
        except ConfigurationError as error:
            log.warning("config_rejected", error=error.message, kept="the configuration as it was")
            return
        restart = self.config.needs_restart(config)
        self.config = config
        log.info("config_reloaded", file=str(path), needs_restart=restart)


def _sinks(config: GatewayConfig, given: Sequence[Sink] | None) -> list[Sink]:
    told: list[Sink] = [StructlogSink()] if given is None else [*given]
    if config.ledger:
        from streamguard.sinks.ledger import LedgerSink

        told.append(LedgerSink(config.ledger, spool=config.ledger_spool or None))
    return told


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size
