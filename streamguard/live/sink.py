"""Feeds the live page's book: an event costs next to nothing where it happens."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from streamguard.live.book import LiveBook
from streamguard.usage import UsageEvent

_TOLD = frozenset({"settled", "refused", "retry_refused", "cut", "warned"})
_BATCH = 256


class LiveSink:
    """Queues what happened and books it in batches, or when somebody looks.

    Calls made inside another guarded call count once, in it.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        *,
        on_open: Callable[[], None] | None = None,
        on_close: Callable[[], None] | None = None,
    ) -> None:
        """``clock`` gives Unix seconds; the others are called as the guard opens and closes."""
        self._book = LiveBook(clock())
        self._waiting: deque[UsageEvent] = deque()
        self._lock = threading.Lock()
        self._on_open = on_open
        self._on_close = on_close

    def emit(self, event: UsageEvent) -> None:
        """Take one event."""
        if event.event in _TOLD and event.within is None:
            self._waiting.append(event)
            if len(self._waiting) >= _BATCH:
                self._work_off()

    def book(self) -> LiveBook:
        """The book, up to date."""
        self._work_off()
        return self._book

    async def open(self) -> None:
        """The guard is opening."""
        if self._on_open is not None:
            self._on_open()

    async def close(self) -> None:
        """The guard is closing."""
        if self._on_close is not None:
            self._on_close()

    def _work_off(self) -> None:
        with self._lock:
            while self._waiting:
                self._book.take(self._waiting.popleft())
