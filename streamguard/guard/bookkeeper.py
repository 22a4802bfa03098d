"""Asks the store: with a time-out, shielded where a lost answer would lose money."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import anyio

from streamguard.core.accounts import Balance, Decision, Demand, Grant, Window
from streamguard.core.admission import Terms
from streamguard.errors import StoreUnavailableError
from streamguard.guard.settings import Settings
from streamguard.stores.base import Store
from streamguard.stores.loops import ended
from streamguard.stores.notes import note, noted

T = TypeVar("T")
OnError = Callable[[str, StoreUnavailableError], None]

SETTLE_ATTEMPTS = 8


class Bookkeeper:
    """Reserve, settle and release on one store, on every path exactly once."""

    def __init__(self, store: Store, settings: Settings, on_error: OnError) -> None:
        """``on_error`` is told the reservation id and the error of each failed store call."""
        self._store = store
        self._settings = settings
        self._on_error = on_error
        self.loop: asyncio.AbstractEventLoop | None = None
        self._opened = False
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Open the store, on whose loop it is from now on; the guard does so once."""
        await self._store.open()
        self.loop = asyncio.get_running_loop()
        self._opened = True

    async def close(self) -> None:
        """Wait for what runs in the background, then close the store."""
        await ended(self._tasks)
        if self._opened:
            await self._store.close()
            self._opened = False

    @property
    def owes(self) -> bool:
        """Whether something spent while the store was away is not yet charged."""
        return bool(getattr(self._store, "owes", False))

    async def reserve(self, reservation: str, terms: Terms) -> Decision:
        """Hold what the terms demand. No window limits: granted without asking the store.

        A reserve that failed or was cancelled has an unknown outcome: it is released by id.

        Raises:
            StoreUnavailableError: the store is out of reach.
        """
        if not terms.demands:
            return Grant(terms.want, ())
        try:
            return await self._timed(
                self._store.reserve(
                    reservation,
                    terms.demands,
                    want=terms.want,
                    least=terms.least,
                    ttl=self._settings.hold_ttl,
                )
            )
        except StoreUnavailableError as error:
            self._on_error(reservation, error)
            self.in_background(self._release_later(reservation))
            raise
        except BaseException:
            self.in_background(self._release_later(reservation))
            raise

    async def extend(self, reservation: str, want: int) -> int:
        """Hold up to ``want`` more output tokens; 0 when refused or out of reach."""
        try:
            decision = await self._timed(
                self._store.extend(reservation, want=want, least=1, ttl=self._settings.hold_ttl)
            )
        except StoreUnavailableError as error:
            self._on_error(reservation, error)
            return 0
        return decision.output if isinstance(decision, Grant) else 0

    async def settle(self, reservation: str, amounts: Sequence[int]) -> None:
        """Charge what was used; when the store is out of reach, again later."""
        await self._once(reservation, lambda: self._store.settle(reservation, amounts))

    async def release(self, reservation: str) -> None:
        """Give the hold back; when the store is out of reach, again later."""
        await self._once(reservation, lambda: self._store.release(reservation))

    async def balances(self, demands: Sequence[Demand]) -> Sequence[Balance]:
        """The accounts as they stand."""
        return await self._timed(self._store.balances(demands)) if demands else ()

    async def note(self, name: str, value: bytes) -> None:
        """Keep a note in the store; where that fails it is told, and lost."""
        try:
            await self._timed(note(self._store, name, value))
        except StoreUnavailableError as error:
            self._on_error(name, error)

    async def noted(self, name: str) -> bytes:
        """A note of the store; empty when there is none or it cannot be read."""
        try:
            return await self._timed(noted(self._store, name)) or b""
        except StoreUnavailableError as error:
            self._on_error(name, error)
            return b""

    async def reachable(self) -> bool:
        """Whether the store answers."""
        probe = Demand("probe", 1, Window(60), 0, 0)
        try:
            await self._timed(self._store.balances([probe]))
        except StoreUnavailableError:
            return False
        return True

    def renew(self, reservation: str) -> None:
        """Keep a hold alive, in the background."""
        self.in_background(self._renew(reservation))

    async def _once(self, reservation: str, ask: Callable[[], Awaitable[Any]]) -> None:
        try:
            await self._timed(ask())
        except StoreUnavailableError as error:
            self._on_error(reservation, error)
            self.in_background(self._again(reservation, ask))

    async def _again(self, reservation: str, ask: Callable[[], Awaitable[Any]]) -> None:
        for attempt in range(SETTLE_ATTEMPTS):
            await anyio.sleep(min(10.0, 0.1 * 2**attempt))
            try:
                await self._timed(ask())
            except StoreUnavailableError as error:
                self._on_error(reservation, error)
            else:
                return

    async def _release_later(self, reservation: str) -> None:
        try:
            await self._timed(self._store.release(reservation))
        except StoreUnavailableError as error:
            # Nothing more to do: the hold, if there is one, expires by itself.
            self._on_error(reservation, error)

    async def _renew(self, reservation: str) -> None:
        try:
            await self._timed(self._store.renew(reservation, ttl=self._settings.hold_ttl))
        except StoreUnavailableError as error:
            self._on_error(reservation, error)

    async def _timed(self, answer: Awaitable[T]) -> T:
        try:
            # asyncio's own: three a call, and anyio's costs several times as much.
            async with asyncio.timeout(self._settings.store_timeout):
                return await answer
        except TimeoutError as error:
            message = (
                f"the budget store did not answer within {self._settings.store_timeout} s; "
                "the call is refused because the policy is to fail closed"
            )
            raise StoreUnavailableError(message) from error

    def in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run on, whatever happens to the request; ``close`` waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
