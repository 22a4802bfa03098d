"""Runs the gateway under uvicorn: one process, or workers that share one listening socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import structlog
import uvicorn

from streamguard.errors import ConfigurationError
from streamguard.gateway.app import Gateway
from streamguard.gateway.config import GatewayConfig
from streamguard.gateway.telling import PAGE

WORKER_FD = "STREAMGUARD_WORKER_FD"
"""Set for workers: the listening socket that they were given."""

METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's own variable."""

KEEP_ALIVE_SECONDS = 75
"""Longer than clients keep an idle connection, so that it is they who close it."""

SETTLE_SECONDS = 5
"""For writing endings and settling, after running calls had their time."""

GC_ALLOCATIONS = 20_000
"""Python's 700 is a collection or two a call."""

_EVERYWHERE = {"0.0.0.0", "::"}  # noqa: S104 - to tell, not to listen
_LOOK_SECONDS = 0.1
_STARTUP_FAILURE = 3


class _Server(uvicorn.Server):
    """Tells the gateway to drain before it waits for connections to close."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, seconds: float) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._seconds = seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # What is here now stays: looking through it again and again is a pause for every stream.
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_ALLOCATIONS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        draining = asyncio.create_task(self._gateway.drain(self._seconds))
        await super().shutdown(sockets)
        await draining


def serve(gateway: Gateway, listener: socket.socket, log_config: Mapping[str, Any] | None) -> None:
    """Serve until SIGTERM or SIGINT; then running calls get ``shutdown_seconds`` to end.

    A second SIGINT ends at once.
    """
    seconds = gateway.config.shutdown_seconds
    more: dict[str, Any] = {} if log_config is None else {"log_config": log_config}
    config = uvicorn.Config(
        gateway,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        ws="none",
        lifespan="on",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(seconds) + SETTLE_SECONDS,
        **more,
    )
    server = _Server(config, gateway, seconds)
    host, port = listener.getsockname()[:2]
    structlog.get_logger("streamguard").info("listening", **addresses(gateway.config, host, port))
    server.run(sockets=[listener])
    if not server.started:
        sys.exit(_STARTUP_FAILURE)


def addresses(config: GatewayConfig, host: str, port: int) -> dict[str, str]:
    """Where the gateway listens, what clients of each family set, and where its pages are.

    A gateway that listens everywhere is shown by the name it has on its own machine.
    """
    here = "localhost" if host in _EVERYWHERE else _in_url(host)
    url = f"http://{here}:{port}"
    found = {"url": f"http://{_in_url(host)}:{port}"}
    for family in dict.fromkeys(one.family for one in config.upstreams):
        found[f"{family}_base_url"] = f"{url}/v1" if family == "openai" else url
    if config.live_page:
        found["live"] = f"{url}/live"
    if config.tell.get(PAGE):
        found["metrics"] = f"{url}/metrics"
    return found


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def listen(host: str, port: int) -> socket.socket:
    """The listening socket; a worker's is the one it was given.

    Raises:
        ConfigurationError: the address cannot be had.
    """
    if os.environ.get(WORKER_FD):
        return socket.socket(fileno=int(os.environ[WORKER_FD]))
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's algorithm off only where the protocol number says TCP.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    listener.listen(2048)
    listener.setblocking(False)
    return listener


@contextlib.contextmanager
def shared_metrics(config: GatewayConfig) -> Iterator[None]:
    """A folder in which workers keep their metrics, so that each shows those of all.

    It is the one that ``PROMETHEUS_MULTIPROC_DIR`` names, if it does; none where there is no page.
    """
    if not config.tell.get(PAGE) or METRICS_FOLDER in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="streamguard-metrics-") as folder:
        os.environ[METRICS_FOLDER] = folder
        try:
            yield
        finally:
            del os.environ[METRICS_FOLDER]


class Workers:
    """Several processes on one socket; one that dies is replaced."""

    def __init__(self, command: Sequence[str], count: int, listener: socket.socket) -> None:
        """``command`` starts one worker."""
        self._command = command
        self._listener = listener
        self._stop = False
        self._processes = [self._start() for _ in range(count)]
        self.code = 0

    def run(self) -> int:
        """Until SIGTERM or SIGINT, or until a worker cannot start; the exit code."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._told)
        while not self._stop:
            time.sleep(_LOOK_SECONDS)
            self._processes = [self._alive(process) for process in self._processes]
        self._listener.close()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait()
        return self.code

    def _told(self, _number: int, _frame: object) -> None:
        self._stop = True

    def _start(self) -> subprocess.Popen[bytes]:
        fd = self._listener.fileno()
        # A session of its own: Ctrl-C in a terminal reaches the parent only, which tells it.
        return subprocess.Popen(  # noqa: S603 - this program's own command line
            self._command,
            env={**os.environ, WORKER_FD: str(fd)},
            pass_fds=[fd],
            start_new_session=True,
        )

    def _alive(self, process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
        code = process.poll()
        if code is None or self._stop:
            return process
        if 0 < code <= _STARTUP_FAILURE:  # it would fail again
            self._stop, self.code = True, code
            return process
        structlog.get_logger("streamguard").error("worker_died", code=code)
        return self._start()
