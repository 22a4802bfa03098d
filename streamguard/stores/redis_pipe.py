"""One connection to a Redis server that all calls of an event loop share.

Commands are written as they come and replies are matched in order, so waiting calls cost no
connection each, and a cancelled call neither breaks the connection nor leaves its reply to
another (what CVE-2023-28858 was): its place in the queue stays until its reply has come.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

from streamguard.stores.loops import PerLoop, run_on
from streamguard.stores.resp import Replies, encode

Address = tuple[str, int]


class _Wire(asyncio.Protocol):
    """A connection: futures in the order of their commands, and one timer for the oldest."""

    def __init__(self, patience: float) -> None:
        self.waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self.transport: asyncio.Transport | None = None
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._replies = Replies()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Hand each reply to the command it belongs to."""
        for reply in self._replies.feed(data):
            future, _ = self.waiting.popleft()
            if future.done():
                continue
            if isinstance(reply, Exception):
                future.set_exception(reply)
            else:
                future.set_result(reply)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing that waits will be answered."""
        self.transport = None
        if self._timer is not None:
            self._timer.cancel()
        for future, _ in self.waiting:
            if not future.done():
                future.set_exception(RedisConnectionError(f"connection lost: {exc or 'closed'}"))
        self.waiting.clear()

    def ask(self, words: tuple[Any, ...], since: float) -> asyncio.Future[Any]:
        """Send a command; the future of its reply, which may take until patience after
        ``since`` ends.
        """
        if self.transport is None:
            message = "connection lost"
            raise RedisConnectionError(message)
        future: asyncio.Future[Any] = self._loop.create_future()
        self.transport.write(encode(words))
        self.waiting.append((future, since))
        if self._timer is None:
            self._timer = self._loop.call_at(since + self._patience, self._look)
        return future

    def _look(self) -> None:
        """One timer for all: calls that waited too long fail, and the connection with them."""
        self._timer = None
        if not self.waiting:
            return
        late = self._loop.time() - self._patience
        if self.waiting[0][1] > late:
            self._timer = self._loop.call_at(self.waiting[0][1] + self._patience, self._look)
            return
        for future, since in self.waiting:
            if since <= late and not future.done():
                future.set_exception(TimeoutError())
        self.abort()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self.transport is not None:
            self.transport.abort()


class _Line:
    """What a pipe has in one event loop: the wire, and a lock so that it is connected once."""

    def __init__(self) -> None:
        self.wire: _Wire | None = None
        self.lock = asyncio.Lock()
        self._end = self._at_the_end()

    def abort(self) -> None:
        """Drop the connection at once."""
        if self.wire is not None:
            self.wire.abort()

    async def end_with_the_loop(self) -> None:
        """From now on ``asyncio.run`` and its likes drop the connection before they close the
        loop: they end the asynchronous generators that are left.
        """
        await anext(self._end)

    async def _at_the_end(self) -> AsyncGenerator[None, None]:
        try:
            while True:
                yield
        finally:
            self.abort()


class RedisPipe:
    """Commands to the server that ``find`` names; connects when needed, and again when lost.
    Each event loop that sends commands has a connection of its own, for as long as it runs.

    Every operation of the store may safely be sent twice, so one that a lost connection left
    unanswered is. A call takes ``patience`` seconds at most; a server that is silent for so long
    is reconnected to.
    """

    def __init__(
        self,
        find: Callable[[], Awaitable[Address]],
        *,
        username: str | None = None,
        password: str | None = None,
        db: int = 0,
        tls: ssl.SSLContext | None = None,
        patience: float = 1.0,
    ) -> None:
        self._find = find
        self._login = [word for word in (username, password) if word is not None]
        self._db = db
        self._tls = tls
        self._patience = patience
        self._lines = PerLoop(_Line)

    async def execute_command(self, *words: Any, asking: bool = False) -> Any:
        """The reply to a command; ``asking`` for a slot that is being moved here.

        Raises:
            RedisError: the server's error, or the connection was lost twice.
            OSError: the server cannot be reached; ``TimeoutError``: it did not answer in time.
        """
        line, since = self._lines.here(), asyncio.get_running_loop().time()
        try:
            return await self._once(line, words, asking, since)
        except RedisConnectionError:
            return await self._once(line, words, asking, since)

    async def info(self, section: str) -> Mapping[str, Any]:
        """A section of INFO."""
        text = (await self.execute_command("INFO", section)).decode()
        pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
        return {key: int(value) if value.isdigit() else value for key, value in pairs}

    async def aclose(self) -> None:
        """Close the connections; another loop closes its own when its turn comes."""
        for loop, line in self._lines.take():
            run_on(loop, line.abort)
        for _ in range(2):  # rounds of the loop: it aborts, and it has lost the connection
            await asyncio.sleep(0)

    async def _once(self, line: _Line, words: tuple[Any, ...], asking: bool, since: float) -> Any:
        wire = line.wire
        if wire is None or wire.transport is None:
            async with asyncio.timeout_at(since + self._patience):
                wire = await self._connect(line)
        try:
            if asking:
                wire.ask(("ASKING",), since)
            return await wire.ask(words, since)
        except ReadOnlyError:
            # The master became a replica: look for the new one next time.
            wire.abort()
            raise

    async def _connect(self, line: _Line) -> _Wire:
        async with line.lock:
            if line.wire is not None and line.wire.transport is not None:
                return line.wire
            await line.end_with_the_loop()
            host, port = await self._find()
            loop = asyncio.get_running_loop()
            _, wire = await loop.create_connection(
                lambda: _Wire(self._patience), host, port, ssl=self._tls
            )
            try:
                await self._greet(wire, loop.time())
            except BaseException:
                wire.abort()
                raise
            line.wire = wire
            return wire

    async def _greet(self, wire: _Wire, now: float) -> None:
        if self._login:
            await wire.ask(("AUTH", *self._login), now)
        if self._db:
            await wire.ask(("SELECT", self._db), now)
