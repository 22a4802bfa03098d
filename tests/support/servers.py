"""Run an ASGI app on a free port of 127.0.0.1 under a real server, in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

SERVERS = ("uvicorn", "hypercorn", "granian")
DEADLINE = 20.0
_PAUSE = 0.005

App = Callable[..., Awaitable[None]]
Stop = Callable[[], None]
Runner = Callable[[App, socket.socket, Callable[[Stop], None]], Awaitable[None]]


class _Watched:
    """Passes everything to the app; tells when its lifespan has started (or it has none)."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.ready = threading.Event()
        self.failed = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return

        async def watched_send(message: Any) -> None:
            self.failed = self.failed or message["type"] == "lifespan.startup.failed"
            await send(message)
            self.ready.set()

        try:
            await self.app(scope, receive, watched_send)
        finally:
            self.ready.set()


async def _uvicorn(app: App, sock: socket.socket, started: Callable[[Stop], None]) -> None:
    import uvicorn

    config = uvicorn.Config(
        app, log_config=None, access_log=False, timeout_graceful_shutdown=1, loop="asyncio"
    )
    server = uvicorn.Server(config)
    started(lambda: setattr(server, "should_exit", True))
    await server.serve(sockets=[sock])


async def _hypercorn(app: App, sock: socket.socket, started: Callable[[Stop], None]) -> None:
    from hypercorn.asyncio.run import worker_serve
    from hypercorn.config import Config, Sockets
    from hypercorn.utils import wrap_app

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, _context: None)
    config = Config()
    config.graceful_timeout = 1
    config.loglevel = "CRITICAL"
    stop = asyncio.Event()
    started(lambda: _soon(loop, stop.set))
    await worker_serve(
        wrap_app(app, config.wsgi_max_body_size, "asgi"),
        config,
        sockets=Sockets([], [sock], []),
        shutdown_trigger=stop.wait,
    )


async def _granian(app: App, sock: socket.socket, started: Callable[[Stop], None]) -> None:
    from granian.constants import Interfaces
    from granian.server.embed import Server

    loop = asyncio.get_running_loop()
    server = Server(app, port=sock.getsockname()[1], interface=Interfaces.ASGI, log_enabled=False)
    server.workers_kill_timeout = 2
    started(lambda: _soon(loop, server.stop))
    with contextlib.suppress(TimeoutError):  # a request that never ends outlives the timeout
        await server.serve()


def _soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call)


_RUNNERS: dict[str, Runner] = {"uvicorn": _uvicorn, "hypercorn": _hypercorn, "granian": _granian}


def _bind(server: str) -> socket.socket:
    # asyncio turns Nagle's algorithm off only where the protocol number says TCP; with it on,
    # small writes wait 40 ms for the peer's delayed acknowledgement.
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if server == "granian":  # it binds for itself: keep the port from others meanwhile
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", 0))
    if server != "granian":
        sock.listen(512)
        sock.setblocking(False)
    return sock


class _Thread:
    """One server in one thread with an event loop of its own."""

    def __init__(self, app: App, server: str) -> None:
        self.watched = _Watched(app)
        self.sock = _bind(server)
        self.port: int = self.sock.getsockname()[1]
        self.stop: Stop = lambda: None
        self.error: BaseException | None = None
        self.runner = _RUNNERS[server]
        self.thread = threading.Thread(target=self._run, name=f"serve-{server}", daemon=True)

    def _run(self) -> None:
        try:
            asyncio.run(self.runner(self.watched, self.sock, self._started))
        except BaseException as error:  # noqa: BLE001 - told to the test by the main thread
            self.error = error
        finally:
            self.watched.ready.set()

    def _started(self, stop: Stop) -> None:
        self.stop = stop

    def start(self) -> None:
        self.thread.start()
        if not self.watched.ready.wait(DEADLINE):
            raise TimeoutError("the app's lifespan did not start")
        if self.watched.failed or self.error is not None:
            raise RuntimeError("the app did not start") from self.error
        wait_until(self._accepts, "the server does not accept connections")

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def close(self) -> None:
        self.stop()
        self.thread.join(DEADLINE)
        self.sock.close()
        if self.thread.is_alive():
            raise TimeoutError("the server did not stop")


def wait_until(condition: Callable[[], Any], message: str, timeout: float = DEADLINE) -> None:
    """Return as soon as ``condition()`` is true; ``TimeoutError`` after ``timeout`` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(message)
        time.sleep(_PAUSE)


@contextlib.contextmanager
def serve(app: App, server: str = "uvicorn") -> Iterator[str]:
    """The app under ``server`` (one of ``SERVERS``): gives ``http://127.0.0.1:PORT``.

    Returns from entering once the lifespan has started and connections are accepted.
    """
    for name in ("uvicorn", "uvicorn.error", "hypercorn.error", "_granian", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    thread = _Thread(app, server)
    try:
        thread.start()
        yield f"http://127.0.0.1:{thread.port}"
    finally:
        thread.close()
