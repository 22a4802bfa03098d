"""The response stream of a guarded client: metered, cut, and settled exactly once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any

from streamguard.client.io import Io, LateError, run_now
from streamguard.client.memo import Memo
from streamguard.core.billing import Spent
from streamguard.errors import TimeBudgetExceededError
from streamguard.guard.call import Call
from streamguard.guard.deadlines import Deadlines
from streamguard.guard.metered import MeteredStream


class GuardedBody:
    """One response's body on its way to the client. At its end the upstream is closed, then the
    call is settled: once, however it ends.

    Where the provider bills on after a close, and by the guard's settings, a stream that its caller
    left is read on in the background, so that the bill is known.

    Attributes:
        last: what to hand on at the end, when the upstream has been closed.
    """

    def __init__(
        self,
        call: Call,
        response: Any,
        memo: Memo,
        io: Io,
        deadlines: Deadlines,
        drain_seconds: float,
    ) -> None:
        self.last = b""
        self._call = call
        self._response = response
        self._metered = MeteredStream(call)
        self._memo = memo
        self._io = io
        self._deadlines = deadlines
        self._drain_seconds = drain_seconds
        self._parts: Any = None
        self._outcome = "cancelled"
        self._closed = False

    @property
    def asynchronous(self) -> bool:
        """Whether the stream is to be iterated asynchronously."""
        return self._io.asynchronous

    @contextmanager
    def reading(self) -> Iterator[MeteredStream]:
        """While the upstream is read: how that ends is how the stream does."""
        metered = self._metered
        try:
            yield metered
            if not metered.over:
                self._outcome = "completed"
                self.last = metered.finish()
                self._memo.add(self.last)
        except TimeBudgetExceededError as error:
            self.last = metered.time_out(error)
        except Exception:
            self._outcome = "upstream_error"
            raise

    def feed(self, part: bytes) -> bytes:
        """What to hand on of the upstream's next part; when the stream is over, ``last`` has it."""
        metered = self._metered
        out = metered.feed(part)
        if metered.over:
            self.last = out
            return b""
        if self._memo.wanted:
            self._memo.add(out)
        return out

    async def more(self, size: int) -> None:
        """Hold more output before the next ``size`` bytes, where the budgets have it."""
        await self._io.guard(lambda: self._metered.more(size))

    @property
    def parts(self) -> Any:
        """What the upstream sends: one iterator of the client's kind.

        Raises ``TimeBudgetExceededError`` while iterating, where the provider takes too long.
        """
        if self._parts is None:
            upstream = self._response.stream
            if self._deadlines.active:
                upstream = self._timed(upstream) if self.asynchronous else self._timed_now(upstream)
            self._parts = aiter(upstream) if self.asynchronous else iter(upstream)
        return self._parts

    async def _timed(self, upstream: Any) -> AsyncIterator[bytes]:
        step = partial(anext, aiter(upstream))
        while True:
            try:
                part = await self._io.by(self._deadlines.due, step)
            except StopAsyncIteration:
                return
            except LateError:
                raise too_late(self._deadlines) from None
            yield part
            self._progress()

    def _timed_now(self, upstream: Any) -> Iterator[bytes]:
        # Looked at between two parts: blocking reads cannot be broken off.
        for part in upstream:
            late = self._deadlines.lapsed(self._io.now())
            if late is not None:
                raise late
            yield part
            self._progress()

    def _progress(self) -> None:
        self._deadlines.progress(self._io.now(), started=self._metered.handed_on)

    async def close(self) -> None:
        """Close the upstream and settle; the first call does it."""
        if self._closed:
            return
        self._closed = True
        left = self._metered.spent(self._outcome).outcome == "cancelled"
        if left and self._call.drains:
            self._io.later(self._read_on)
        else:
            await self._end()

    async def _read_on(self) -> None:
        try:
            await self._io.drain(self.parts, self.feed, self._drain_seconds)
        except Exception:  # noqa: BLE001, S110 - nobody waits for it any more
            pass
        finally:
            await self._end()

    async def _end(self) -> None:
        try:
            await self._io.close(self._response)
        finally:
            await self._io.guard(lambda: self._call.finish(self._spent()))
        headers = {"content-type": self._response.headers.get("content-type", "")}
        self._memo.keep(self._call, {**dict(self._call.headers()), **headers})

    def _spent(self) -> Spent:
        return replace(self._metered.spent(self._outcome), status=self._response.status_code)

    def abandon(self) -> None:
        """Close from the garbage collector: nobody read the stream to its end or closed it."""
        if not self._closed:
            self._io.later(self.close)


def too_late(deadlines: Deadlines) -> TimeBudgetExceededError:
    """The error for the time budget that has just lapsed."""
    late = deadlines.lapsed(deadlines.due)
    assert late is not None  # noqa: S101 - it is due
    return late


def byte_stream(body: GuardedBody, web: Any) -> Any:
    """The stream as the client's library (``httpx``, ``httpx2``) wants it."""
    if body.asynchronous:
        return _typed(_AsyncStream, web.AsyncByteStream)(body)
    return _typed(_SyncStream, web.SyncByteStream)(body)


@cache
def _typed(kind: type, base: type) -> type:
    return type(kind.__name__.lstrip("_"), (kind, base), {})


class _Stream:
    def __init__(self, body: GuardedBody) -> None:
        self._body = body

    def __del__(self) -> None:
        self._body.abandon()


class _AsyncStream(_Stream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = self._body
        try:
            with body.reading() as metered:
                async for data in body.parts:
                    if metered.wants_more(len(data)):
                        await body.more(len(data))
                    if out := body.feed(data):
                        yield out
                    elif metered.over:
                        break
        finally:
            await body.close()
        if body.last:
            yield body.last

    async def aclose(self) -> None:
        await self._body.close()


class _SyncStream(_Stream):
    def __iter__(self) -> Iterator[bytes]:
        body = self._body
        try:
            with body.reading() as metered:
                for data in body.parts:
                    if metered.wants_more(len(data)):
                        run_now(body.more(len(data)))
                    if out := body.feed(data):
                        yield out
                    elif metered.over:
                        break
        finally:
            run_now(body.close())
        if body.last:
            yield body.last

    def close(self) -> None:
        run_now(self._body.close())
