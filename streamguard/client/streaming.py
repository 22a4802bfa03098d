"""The response stream of a guarded client: metered, cut, and settled exactly once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cache
from typing import Any

from streamguard.client.io import Io, run_now
from streamguard.guard.call import Call
from streamguard.guard.metered import MeteredStream


class Ending:
    """How one guarded stream ends: its upstream is closed, then its call is settled. Once.

    Attributes:
        outcome: how it ends where neither its bytes nor the allowance say.
    """

    def __init__(self, call: Call, metered: MeteredStream, response: Any, io: Io) -> None:
        self.metered = metered
        self.upstream = response.stream
        self.outcome = "cancelled"
        self._call = call
        self._response = response
        self._io = io
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
        try:
            await self._io.close(self._response)
        finally:
            await self._io.guard(lambda: self._call.finish(self.metered.spent(self.outcome)))

    async def more(self, size: int) -> None:
        """Hold more output before the next ``size`` bytes, where the budgets have it."""
        await self._io.guard(lambda: self.metered.more(size))

    def abandon(self) -> None:
        """Close from the garbage collector: nobody read the stream to its end or closed it."""
        if not self._closed:
            self._io.later(self.close)


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
        ending, metered = self._ending, self._ending.metered
        out = b""
        try:
            async for data in ending.upstream:
                if metered.wants_more(len(data)):
                    await ending.more(len(data))
                out = metered.feed(data)
                if metered.over:
                    break
                if out:
                    yield out
            else:
                ending.outcome = "completed"
                out = metered.finish()
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
        ending, metered = self._ending, self._ending.metered
        out = b""
        try:
            for data in ending.upstream:
                if metered.wants_more(len(data)):
                    run_now(ending.more(len(data)))
                out = metered.feed(data)
                if metered.over:
                    break
                if out:
                    yield out
            else:
                ending.outcome = "completed"
                out = metered.finish()
        except Exception:
            ending.outcome = "upstream_error"
            raise
        finally:
            run_now(ending.close())
        if out:
            yield out

    def close(self) -> None:
        run_now(self._ending.close())
