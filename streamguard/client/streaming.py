"""The response stream of a guarded client: metered, cut, and settled exactly once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import Any

from streamguard.client.io import Io, LateError, run_now
from streamguard.client.memo import Memo
from streamguard.core.billing import Spent
from streamguard.guard.call import Call
from streamguard.guard.deadlines import Deadlines, TimeBudgetExceededError
from streamguard.guard.metered import MeteredStream


class Ending:
    """How one guarded stream ends: its upstream is closed, then its call is settled. Once.

    Where the provider bills on after a close, and by the guard's settings, a stream that its caller
    left is read on in the background, so that the bill is known.

    Attributes:
        outcome: how it ends where neither its bytes nor the allowance say.
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
        self.memo = memo
        self.metered = MeteredStream(call)
        self.deadlines = deadlines
        self.outcome = "cancelled"
        self._call = call
        self._response = response
        self._io = io
        self._drain_seconds = drain_seconds
        self._parts: Any = None
        self._closed = False

    @property
    def asynchronous(self) -> bool:
        """Whether the stream is to be iterated asynchronously."""
        return self._io.asynchronous

    async def close(self) -> None:
        """Close the upstream and settle; the first call does it."""
        if self._closed:
            return
        self._closed = True
        left = self.metered.spent(self.outcome).outcome == "cancelled"
        if left and self._call.drains:
            self._io.later(self._read_on)
        else:
            await self._end()

    async def _read_on(self) -> None:
        parts = self.parts if self._parts is None else self._parts
        try:
            await self._io.drain(parts, self._note, self._drain_seconds)
        except Exception:  # noqa: BLE001, S110 - nobody waits for it any more
            pass
        finally:
            await self._end()

    def _note(self, part: bytes) -> None:
        self.memo.add(self.metered.feed(part))

    async def _end(self) -> None:
        try:
            await self._io.close(self._response)
        finally:
            await self._io.guard(lambda: self._call.finish(self._spent()))
        headers = {"content-type": self._response.headers.get("content-type", "")}
        self.memo.keep(self._call, {**dict(self._call.headers()), **headers})

    async def more(self, size: int) -> None:
        """Hold more output before the next ``size`` bytes, where the budgets have it."""
        await self._io.guard(lambda: self.metered.more(size))

    @property
    def parts(self) -> Any:
        """What the upstream sends, an iterator of the client's kind.

        Raises ``TimeBudgetExceededError`` while iterating, where the provider takes too long.
        """
        upstream = self._response.stream
        if self.deadlines.active:
            timed = self._timed if self.asynchronous else self._timed_now
            self._parts = timed(upstream)
        else:
            self._parts = aiter(upstream) if self.asynchronous else iter(upstream)
        return self._parts

    async def _timed(self, upstream: Any) -> AsyncIterator[bytes]:
        step = partial(anext, aiter(upstream))
        while True:
            try:
                part = await self._io.by(self.deadlines.due, step)
            except StopAsyncIteration:
                return
            except LateError:
                raise too_late(self.deadlines) from None
            yield part
            self._progress()

    def _timed_now(self, upstream: Any) -> Iterator[bytes]:
        # Looked at between two parts: blocking reads cannot be broken off.
        for part in upstream:
            late = self.deadlines.lapsed(self._io.now())
            if late is not None:
                raise late
            yield part
            self._progress()

    def _progress(self) -> None:
        self.deadlines.progress(self._io.now(), started=self.metered.handed_on)

    def _spent(self) -> Spent:
        return replace(self.metered.spent(self.outcome), status=self._response.status_code)

    def abandon(self) -> None:
        """Close from the garbage collector: nobody read the stream to its end or closed it."""
        if not self._closed:
            self._io.later(self.close)


def too_late(deadlines: Deadlines) -> TimeBudgetExceededError:
    """The error for the time budget that has just lapsed."""
    late = deadlines.lapsed(deadlines.due)
    assert late is not None  # noqa: S101 - it is due
    return late


def byte_stream(ending: Ending, web: Any) -> Any:
    """The stream as the client's library (``httpx``, ``httpx2``) wants it."""
    if ending.asynchronous:
        return _typed(_AsyncStream, web.AsyncByteStream)(ending)
    return _typed(_SyncStream, web.SyncByteStream)(ending)


@cache
def _typed(kind: type, base: type) -> type:
    return type(kind.__name__.lstrip("_"), (kind, base), {})


class _Stream:
    def __init__(self, ending: Ending) -> None:
        self._ending = ending

    def __del__(self) -> None:
        self._ending.abandon()


class _AsyncStream(_Stream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        ending, metered, memo = self._ending, self._ending.metered, self._ending.memo
        out = b""
        try:
            async for data in ending.parts:
                if metered.wants_more(len(data)):
                    await ending.more(len(data))
                out = metered.feed(data)
                if metered.over:
                    break
                if out:
                    if memo.wanted:
                        memo.add(out)
                    yield out
            else:
                ending.outcome = "completed"
                out = metered.finish()
                memo.add(out)
        except TimeBudgetExceededError as error:
            out = metered.time_out(error)
        except Exception:
            ending.outcome = "upstream_error"
            raise
        finally:
            await ending.close()
        if out:
            yield out

    async def aclose(self) -> None:
        await self._ending.close()


class _SyncStream(_Stream):
    def __iter__(self) -> Iterator[bytes]:
        ending, metered, memo = self._ending, self._ending.metered, self._ending.memo
        out = b""
        try:
            for data in ending.parts:
                if metered.wants_more(len(data)):
                    run_now(ending.more(len(data)))
                out = metered.feed(data)
                if metered.over:
                    break
                if out:
                    if memo.wanted:
                        memo.add(out)
                    yield out
            else:
                ending.outcome = "completed"
                out = metered.finish()
                memo.add(out)
        except TimeBudgetExceededError as error:
            out = metered.time_out(error)
        except Exception:
            ending.outcome = "upstream_error"
            raise
        finally:
            run_now(ending.close())
        if out:
            yield out

    def close(self) -> None:
        run_now(self._ending.close())
