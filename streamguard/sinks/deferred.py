"""Does a sink's work in a thread, a quarter of a second later at most."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio.to_thread

from streamguard.usage import UsageEvent

WAITING = 100_000
"""Events that may wait; more are dropped and counted."""

_SECONDS = 0.25


class Deferred:
    """A bounded queue of events, each with a note, and the thread that works it off.

    The thread starts with the first event. ``dropped`` counts events that came while too many
    were waiting.
    """

    def __init__(self, work: Callable[[UsageEvent, Any], None], name: str) -> None:
        self._work = work
        self._name = name
        self._waiting: deque[tuple[UsageEvent, Any]] = deque()
        self._working = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def put(self, event: UsageEvent, note: Any = None) -> None:
        """Queue an event."""
        if len(self._waiting) >= WAITING:
            self.dropped += 1
            return
        self._waiting.append((event, note))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def flush(self) -> None:
        """Work off what waits, now. What one event raises does not stop the others."""
        with self._working:
            while self._waiting:
                event, note = self._waiting.popleft()
                try:
                    self._work(event, note)
                except Exception:  # noqa: BLE001 - as in the guard: telling breaks nothing
                    self.dropped += 1

    async def close(self) -> None:
        """Work off what waits and end the thread; a later event starts a new one."""
        self._stop.set()
        if self._thread is not None:
            await anyio.to_thread.run_sync(self._thread.join)
        self.flush()
        self._stop.clear()
        self._thread = None

    def _run(self) -> None:
        while not self._stop.wait(_SECONDS):
            self.flush()
