"""One connection to a Redis server that all calls share.

Commands are written as they come and replies are matched in order, so waiting calls cost no
connection each, and a cancelled call neither breaks the connection nor leaves its reply to
another (what CVE-2023-28858 was): its place in the queue stays until its reply has come.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

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


class RedisPipe:
    """Commands to the server that ``find`` names; connects when needed, and again when lost.

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
        self._wire: _Wire | None = None
        self._lock = asyncio.Lock()

    async def execute_command(self, *words: Any, asking: bool = False) -> Any:
        """The reply to a command; ``asking`` for a slot that is being moved here.

        Raises:
            RedisError: the server's error, or the connection was lost twice.
            OSError: the server cannot be reached; ``TimeoutError``: it did not answer in time.
        """
        since = asyncio.get_running_loop().time()
        try:
            return await self._once(words, asking, since)
        except RedisConnectionError:
            return await self._once(words, asking, since)

    async def info(self, section: str) -> Mapping[str, Any]:
        """A section of INFO."""
        text = (await self.execute_command("INFO", section)).decode()
        pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
        return {key: int(value) if value.isdigit() else value for key, value in pairs}

    async def aclose(self) -> None:
        """Close the connection."""
        if self._wire is not None:
            self._wire.abort()
            self._wire = None
            await asyncio.sleep(0)

    async def _once(self, words: tuple[Any, ...], asking: bool, since: float) -> Any:
        wire = self._wire
        if wire is None or wire.transport is None:
            async with asyncio.timeout_at(since + self._patience):
                wire = await self._connect()
        try:
            if asking:
                wire.ask(("ASKING",), since)
            return await wire.ask(words, since)
        except ReadOnlyError:
            # The master became a replica: look for the new one next time.
            wire.abort()
            raise

    async def _connect(self) -> _Wire:
        async with self._lock:
            if self._wire is not None and self._wire.transport is not None:
                return self._wire
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
            self._wire = wire
            return wire

    async def _greet(self, wire: _Wire, now: float) -> None:
        if self._login:
            await wire.ask(("AUTH", *self._login), now)
        if self._db:
            await wire.ask(("SELECT", self._db), now)
