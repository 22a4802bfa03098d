"""One flow, two drivers: how a flow reaches the wire and the guard, awaiting or blocking.

A flow is a coroutine over an ``Io``. Under ``AsyncIo`` it suspends as usual; ``SyncIo`` blocks
inside each call, so the same coroutine runs to its end without ever suspending (``run_now``).
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

import anyio

CLOSE_SECONDS = 5.0

T = TypeVar("T")
Work = Callable[[], Coroutine[Any, Any, T]]


class TooLargeError(Exception):
    """A response is over the bytes that may be read."""


class LateError(Exception):
    """Work was broken off because its time was up."""


class Io(Protocol):
    """What differs between asynchronous and synchronous clients."""

    asynchronous: bool

    async def guard(self, work: Work[T]) -> T:
        """Run the guard's part on the event loop it belongs to."""

    async def content(self, request: Any) -> bytes:
        """The request's body."""

    async def send(self, transport: Any, request: Any) -> Any:
        """The transport's response; its body is not read yet."""

    async def read(self, response: Any, most: int) -> bytes:
        """The response's raw body.

        Raises:
            TooLargeError: more than ``most`` bytes.
        """

    async def close(self, response: Any) -> None:
        """Close the connection to the upstream."""

    async def drain(self, parts: Any, feed: Callable[[bytes], object], seconds: float) -> None:
        """Feed what is left of an iterator, for so long at most."""

    def now(self) -> float:
        """Monotonic seconds, of the clock that ``by`` goes by."""

    async def by(self, due: float, work: Callable[[], Awaitable[T]]) -> T:
        """Do ``work`` until ``due``, where it can be broken off.

        Raises:
            LateError: it was broken off.
        """

    def later(self, work: Work[None]) -> None:
        """Run from where nobody can wait: the garbage collector, in any thread."""


class AsyncIo:
    """Awaits. Used by the loop it was made in, so make one a request."""

    asynchronous = True

    def __init__(self) -> None:
        """Remember the running loop."""
        self._loop = asyncio.get_running_loop()

    async def guard(self, work: Work[T]) -> T:
        """Run here."""
        return await work()

    async def content(self, request: Any) -> bytes:
        """Read the body, which stays readable."""
        body: bytes = await request.aread()
        return body

    async def send(self, transport: Any, request: Any) -> Any:
        """Send."""
        return await transport.handle_async_request(request)

    async def read(self, response: Any, most: int) -> bytes:
        """Read whole."""
        return await _joined(aiter(response.stream), most)

    async def close(self, response: Any) -> None:
        """Close, also when this task is being cancelled."""
        with anyio.move_on_after(CLOSE_SECONDS, shield=True):
            await response.stream.aclose()

    async def drain(self, parts: Any, feed: Callable[[bytes], object], seconds: float) -> None:
        """Feed the rest."""
        with anyio.move_on_after(seconds):
            async for part in parts:
                feed(part)

    def now(self) -> float:
        """The loop's time."""
        return self._loop.time()

    async def by(self, due: float, work: Callable[[], Awaitable[T]]) -> T:
        """Do it, and break it off when it is due.

        Raises:
            LateError: it was not done by then.
        """
        if due == math.inf:
            return await work()
        with anyio.CancelScope(deadline=due):
            return await work()
        raise LateError

    def later(self, work: Work[None]) -> None:
        """Run as a task of the loop, if it still runs."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_start, self._loop, work)


class SyncIo:
    """Blocks. The guard runs on its own loop's thread, or on one in the background."""

    asynchronous = False

    def __init__(self, loop: Callable[[], asyncio.AbstractEventLoop | None]) -> None:
        """``loop`` gives the loop that the guard runs on, if it runs on one."""
        self._loop = loop

    async def guard(self, work: Work[T]) -> T:
        """Run on the guard's loop and wait. The context (identity, outer call) goes along."""
        future = asyncio.run_coroutine_threadsafe(work(), self._reachable())
        try:
            return self._wait(future)
        except BaseException:
            future.cancel()
            raise

    async def content(self, request: Any) -> bytes:
        """Read the body, which stays readable."""
        body: bytes = request.read()
        return body

    async def send(self, transport: Any, request: Any) -> Any:
        """Send."""
        return transport.handle_request(request)

    async def read(self, response: Any, most: int) -> bytes:
        """Read whole."""
        return await _joined(_awaited(response.stream), most)

    async def close(self, response: Any) -> None:
        """Close."""
        response.stream.close()

    async def drain(self, parts: Any, feed: Callable[[bytes], object], seconds: float) -> None:
        """Feed the rest; time is looked at between two parts."""
        due = self.now() + seconds
        for part in parts:
            feed(part)
            if self.now() > due:
                return

    def now(self) -> float:
        """Monotonic time."""
        return time.monotonic()

    async def by(self, due: float, work: Callable[[], Awaitable[T]]) -> T:  # noqa: ARG002
        """Do it to its end: blocking work cannot be broken off."""
        return await work()

    def later(self, work: Work[None]) -> None:
        """Run in a thread of its own: the guard's thread must not wait for itself."""
        threading.Thread(target=lambda: run_now(work()), daemon=True).start()

    def _wait(self, future: Future[T]) -> T:
        return future.result()

    def _reachable(self) -> asyncio.AbstractEventLoop:
        loop = self._loop()
        if loop is None or not loop.is_running() or loop is _running():
            return background_loop()
        return loop


def run_now(flow: Coroutine[Any, Any, T]) -> T:
    """Drive a flow over ``SyncIo`` to its end.

    Raises:
        RuntimeError: the flow waits for something that is not ``SyncIo``'s.
    """
    try:
        flow.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    flow.close()
    raise RuntimeError("a flow over SyncIo must not suspend")


def background_loop() -> asyncio.AbstractEventLoop:
    """The event loop of a daemon thread, one a process."""
    with _lock:
        if not _threads or not _threads[0][0].is_alive():  # after a fork it is not
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=loop.run_forever, name="streamguard", daemon=True)
            thread.start()
            _threads[:] = [(thread, loop)]
        return _threads[0][1]


_lock = threading.Lock()
_threads: list[tuple[threading.Thread, asyncio.AbstractEventLoop]] = []
_tasks: set[asyncio.Task[None]] = set()


def _start(loop: asyncio.AbstractEventLoop, work: Work[None]) -> None:
    task = loop.create_task(work())
    _tasks.add(task)  # the loop keeps weak references only
    task.add_done_callback(_tasks.discard)


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _joined(parts: AsyncIterator[bytes], most: int) -> bytes:
    taken = []
    async for part in parts:
        most -= len(part)
        if most < 0:
            raise TooLargeError
        taken.append(part)
    return b"".join(taken)


async def _awaited(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
