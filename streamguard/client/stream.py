"""``guard.stream``: any async iterator of SDK chunks or of text, guarded."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

import anyio

from streamguard.client.io import CLOSE_SECONDS, AsyncIo, LateError
from streamguard.client.items import Items, items_like
from streamguard.client.streaming import too_late
from streamguard.core.billing import Spent
from streamguard.core.prompt import PromptCount
from streamguard.errors import ConfigurationError, TimeBudgetExceededError
from streamguard.guard.call import Call
from streamguard.guard.deadlines import Deadlines
from streamguard.guard.engine import CHAT, Engine
from streamguard.guard.metered import MeteredStream
from streamguard.guard.provider_errors import failed, oversized_error
from streamguard.identity import Identity
from streamguard.usage import Usage

Item = TypeVar("Item")
T = TypeVar("T")
Source = AsyncIterable[Item] | Awaitable[AsyncIterable[Item]]


class GuardedStream(Generic[Item]):
    """An async context manager and an async iterator over ``source``'s items.

    The call is preflighted and reserved on entering, or at the first item without ``async
    with``. An awaitable ``source`` (``client.chat.completions.create(…, stream=True)`` without
    its ``await``) is awaited only then: a refused request is never sent. When the allowance is
    spent the source is closed and the last item comes shortened; chunks are followed by one
    whose ``finish_reason`` is "length". Closing closes the source and settles, once, also when
    the stream is dropped, cancelled or fails.

    ::

        source = client.chat.completions.create(model=model, messages=messages, stream=True)
        async with guard.stream(source, model=model, messages=messages) as stream:
            async for chunk in stream:
                ...
    """

    def __init__(
        self,
        guard: Engine,
        source: Source[Item],
        body: Mapping[str, Any],
        identity: Identity | None = None,
    ) -> None:
        """``body`` is the request that ``source`` answers, in OpenAI's chat form."""
        self._guard = guard
        self._source: Any = source
        self._body = body
        self._identity = identity
        self._call: Call | None = None
        self._io: AsyncIo | None = None
        self._iterator: AsyncIterator[Item] | None = None
        self._items: Items | None = None
        self._metered: MeteredStream | None = None
        self._deadlines: Deadlines | None = None
        self._last: Item | None = None
        self._waiting: deque[Item] = deque()
        self._spent = Spent("cancelled")
        self._usage: Usage | None = None
        self._closed = False

    @property
    def cut(self) -> bool:
        """Whether the budget ended the stream."""
        return self._metered is not None and self._metered.cut

    @property
    def handed_on(self) -> bool:
        """Whether output was handed on: from then on a retry would repeat it."""
        return self._metered is not None and self._metered.handed_on

    @property
    def prompt(self) -> PromptCount | None:
        """The prompt's tokens; ``None`` before the call began."""
        return None if self._call is None else self._call.assessment.count

    @property
    def request_id(self) -> str | None:
        """The reservation's id, as in the events; ``None`` before the call began."""
        return None if self._call is None else self._call.request_id

    @property
    def usage(self) -> Usage:
        """What was charged once the stream is over; what was handed on until then."""
        if self._usage is not None:
            return self._usage
        given = None if self.prompt is None else self.prompt.input_tokens
        return Usage(given, None if self._metered is None else self._metered.delivered)

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        while not self._waiting:
            if self._closed:
                raise StopAsyncIteration
            await self._begin()
            await self._advance()
        return self._waiting.popleft()

    async def aclose(self) -> None:
        """Close the source and settle the call; later calls do nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            with anyio.move_on_after(CLOSE_SECONDS, shield=True):
                await _close_both(self._iterator, self._source)
        finally:
            if self._call is not None:
                self._usage = await self._call.finish(self._how_spent())

    def __del__(self) -> None:
        if self._io is not None and not self._closed:
            self._io.later(self.aclose)

    async def _begin(self) -> None:
        if self._call is not None or self._closed:
            return
        try:
            subject = await self._guard.subject(self._body, path=CHAT, identity=self._identity)
            self._call = await self._guard.begin(replace(subject, steered=False))
            self._io = AsyncIo()
            self._deadlines = Deadlines(self._guard.settings, self._io.now())
            if inspect.isawaitable(self._source):
                self._source = await self._in_time(lambda: self._source)
            _check_unguarded(self._source)
            self._iterator = self._source.__aiter__()
            self._call.started(200)
        except ConfigurationError as error:  # guarded already: its own call is charged
            await self._fail(error, Spent("refused", billed=False))
            raise
        except BaseException as error:
            await self._fail(error, failed(error))
            raise

    async def _advance(self) -> None:
        """Take one item of the source and put what is left of it in line."""
        iterator = self._iterator
        assert iterator is not None  # noqa: S101 - the call has begun
        try:
            item = await self._in_time(lambda: anext(iterator))
            self._waiting.extend(await self._meter(item))
        except StopAsyncIteration:
            self._spent = Spent("completed")
            await self.aclose()
        except TimeBudgetExceededError as error:
            self._waiting.extend(self._ending(error))
            await self._fail(error, failed(error))
            if not self._waiting:
                raise
        except BaseException as error:
            await self._fail(error, failed(error))
            raise
        else:
            if self._metered is not None and self._metered.over:
                await self.aclose()

    async def _in_time(self, work: Callable[[], Awaitable[T]]) -> T:
        assert self._io is not None  # noqa: S101 - the call has begun
        assert self._deadlines is not None  # noqa: S101 - likewise
        self._deadlines.progress(self._io.now(), started=self.handed_on)
        try:
            return await self._io.by(self._deadlines.due, work)
        except LateError:
            raise too_late(self._deadlines) from None

    def _ending(self, error: TimeBudgetExceededError) -> list[Item]:
        """The items that end a stream whose time is up; none where there are none to say so."""
        if error.lapse != "stream" or self._metered is None or self._items is None:
            return []
        return self._items.read(self._metered.time_out(error), self._last)

    async def _meter(self, item: Item) -> list[Item]:
        assert self._call is not None  # noqa: S101 - the call has begun
        if self._items is None or self._metered is None:
            self._items = items_like(item, self._call.assessment.subject.request)
            self._metered = MeteredStream(self._call, self._items.state)
        self._last = item
        written = self._items.write(item)
        if self._metered.wants_more(len(written)):
            await self._metered.more(len(written))
        data = self._metered.feed(written)
        return self._items.read(data, item) if self._metered.over else [item]

    async def _fail(self, error: BaseException, spent: Spent) -> None:
        """Close after an error of the guard, of the source, or a cancellation."""
        self._spent = spent
        refused = oversized_error(error)
        if refused is not None and self._call is not None:
            self._call.learn_oversized(refused)
        await self.aclose()

    def _how_spent(self) -> Spent:
        if self._metered is None:
            return self._spent
        return self._metered.spent(self._spent.outcome)


async def _close_both(iterator: Any, source: Any) -> None:
    try:
        if iterator is not source:
            await _close(iterator)
    finally:
        await _close(source)


async def _close(source: Any) -> None:
    close = getattr(source, "aclose", None) or getattr(source, "close", None)
    result = None if close is None else close()
    if inspect.isawaitable(result):
        await result


def _check_unguarded(source: Any) -> None:
    extensions = getattr(getattr(source, "response", None), "extensions", {})
    if "streamguard.call" in extensions:
        raise ConfigurationError(
            "the stream comes from a client that guard.wrap guards; use it as it is, or give "
            "guard.stream one of an unguarded client"
        )
