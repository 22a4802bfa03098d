"""``streamguard serve`` as a process of its own, to be sent signals."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from support.servers import wait_until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Served:
    """A running gateway."""

    def __init__(self, folder: Path, *args: str, **env: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"gateway-{self.port}.log"
        words = [sys.executable, "-m", "streamguard", "serve", "--port", str(self.port), *args]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                words, cwd=folder, env={**os.environ, **env}, stdout=log, stderr=log
            )

    def wait(self) -> Served:
        """Until connections are accepted; fails at once when the process ends."""
        wait_until(lambda: self.process.poll() is not None or self._accepts(), self.told())
        assert self.process.poll() is None, self.told()
        return self

    def _accepts(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return b"started server process" in self.log.read_bytes().lower()
        return False

    def told(self) -> str:
        """The log by now."""
        return self.log.read_text()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def ended(self) -> int:
        """Wait for the end; the exit code."""
        return self.process.wait(30)


@contextlib.contextmanager
def served(folder: Path, *args: str, **env: str) -> Iterator[Served]:
    """A gateway that accepts connections; killed at the end if it is still there."""
    one = Served(folder, *args, **env)
    try:
        yield one.wait()
    finally:
        if one.process.poll() is None:
            one.terminate()
            try:
                one.ended()
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()
