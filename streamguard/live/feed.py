"""Sends the page to whoever watches: once a second, and only what changed."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio

SAMPLE_SECONDS = 1.0
PING_SECONDS = 15.0
PING = b": ping\n\n"

Sample = Callable[[], AsyncIterator[tuple[str, dict[str, Any]]]]


class Viewer:
    """One open page. What it was not sent yet is kept by section, the latest only.

    So a slow viewer is sent fewer pictures, and its queue is never longer than the page.
    """

    def __init__(self, state: dict[str, bytes]) -> None:
        """``state`` is the page as it was last sent to others."""
        self._waiting = dict(state)
        self._wake = asyncio.Event()
        self.closed = False

    def offer(self, section: str, data: bytes) -> None:
        """Something to send, in place of what waits of the same section."""
        self._waiting[section] = data
        self._wake.set()

    def close(self) -> None:
        """End the viewer's response."""
        self.closed = True
        self._wake.set()

    async def take(self) -> bytes:
        """What to send next; a comment when nothing happened for a while."""
        if not self._waiting and not self.closed:
            self._wake.clear()
            with anyio.move_on_after(PING_SECONDS):
                await self._wake.wait()
        data = b"".join(self._waiting.values())
        self._waiting.clear()
        return data or PING


class Feed:
    """Samples while there are viewers, and only then.

    Attributes:
        closed: nobody may watch: the guard or the server is shutting down.
    """

    def __init__(self, sample: Sample, *, most: int, stopping: Callable[[], bool]) -> None:
        """``most`` is how many may watch; ``stopping`` tells that the server wants to end."""
        self._sample = sample
        self._most = most
        self._stopping = stopping
        self._state: dict[str, bytes] = {}
        self._viewers: set[Viewer] = set()
        self._task: asyncio.Task[None] | None = None
        self.closed = False

    def __len__(self) -> int:
        return len(self._viewers)

    @property
    def full(self) -> bool:
        """Whether one more viewer is too many."""
        return len(self._viewers) >= self._most

    @contextmanager
    def watching(self) -> Iterator[Viewer]:
        """A viewer for the length of a block."""
        viewer = Viewer(self._state)
        self._viewers.add(viewer)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)

    def close(self) -> None:
        """End every viewer's response and let nobody in."""
        self.closed = True
        if self._task is not None:
            self._task.cancel()
        for viewer in self._viewers:
            viewer.close()

    async def _run(self) -> None:
        self._state.clear()
        while self._viewers and not self.closed:
            if self._stopping():
                self.close()
                return
            async for section, figures in self._sample():
                data = event(section, figures)
                if self._state.get(section) != data:
                    self._state[section] = data
                    for viewer in self._viewers:
                        viewer.offer(section, data)
            await anyio.sleep(SAMPLE_SECONDS)


def event(name: str, figures: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(figures, separators=(',', ':'))}\n\n".encode()


def server_stopping() -> bool:
    """Whether uvicorn runs this process and was told to stop.

    It waits for open responses before it tells the app's lifespan; a page that stays open would
    hold it up. The handlers that it sets for signals are methods of the server.
    """
    handlers = (signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT))
    servers = (getattr(handler, "__self__", None) for handler in handlers)
    return any(getattr(server, "should_exit", False) is True for server in servers)
