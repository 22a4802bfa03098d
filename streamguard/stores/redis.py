"""Budgets in Redis or Valkey: standalone, Sentinel and Cluster.

Each operation is one Lua script, decided by the server's clock, over keys that are all named.
On a Cluster the accounts of one call may lie in several slots: then each slot is asked at the
same time, and what one refuses or grants less of is given back in the others, so nothing is
ever over, and a refused call holds nothing when its answer arrives.

A reserve whose outcome is unknown (timeout, lost connection, cancelled caller) is released by
id in the background; a hold that even this does not reach expires.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import msgspec
from redis.exceptions import NoScriptError, RedisError

from streamguard.core.accounts import Balance, Decision, Demand, Grant, representable
from streamguard.core.ledger import NOTHING, check_apart, milliseconds
from streamguard.errors import ConfigurationError, StoreUnavailableError
from streamguard.stores.groups import Call, Group, grant, groups, merge, patience, refusal
from streamguard.stores.loops import cancelled
from streamguard.stores.scripts import Script, load, note_key, pack, record_key, whole_ttl

REMEMBERED = 1024
"""Finished reservations whose accounts this process still knows."""

UNDO_DELAYS = (0.0, 0.1, 0.5, 2.0, 10.0, 30.0)
"""Seconds between attempts to release a reservation whose outcome is unknown."""

_unpack = msgspec.msgpack.Decoder().decode
_remembered = msgspec.json.Decoder(list[Demand]).decode


class RedisStore:
    """The books in Redis; ``connect`` makes a ``RedisPipe`` or a ``ClusterPipe``.

    ``timeout`` is seconds for each call, after which ``StoreUnavailableError`` is raised.
    ``clock`` replaces the server's, for tests only.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        *,
        cluster: bool = False,
        timeout: float = 1.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.timeout = timeout
        self._connect = connect
        self._cluster = cluster
        self._clock = clock
        self._client: Any = None
        self._scripts = load()
        self._calls: dict[str, Call] = {}
        self._over: OrderedDict[str, Call] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._skew = 0

    async def open(self) -> None:
        """Connect.

        Raises:
            ConfigurationError: the server may evict keys, and budgets with them.
        """
        self._client = self._client or self._connect()
        info = await self._within(self._client.info("memory"))
        for node in info.values() if self._cluster and "maxmemory" not in info else [info]:
            policy = str(node.get("maxmemory_policy", "noeviction"))
            if node.get("maxmemory") and policy != "noeviction":
                message = f"Redis evicts keys ({policy}): set maxmemory-policy to noeviction"
                raise ConfigurationError(message)

    async def close(self) -> None:
        """Give up what is still being undone and disconnect."""
        await cancelled(self._tasks)
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def reserve(
        self, reservation: str, demands: Sequence[Demand], *, want: int, least: int, ttl: float
    ) -> Decision:
        """See ``ledger.reserve``."""
        check_apart(demands)
        least, due = min(least, want), whole_ttl(ttl)
        call = Call(groups(representable(demands), apart=self._cluster), len(demands))
        try:
            ask = (due, want, least)
            answers = await self._each("reserve", reservation, call.groups, *ask, remember=True)
            decision = await self._agree(reservation, call, answers)
        except BaseException:
            self._later(self._undo(reservation, call.groups))
            raise
        if isinstance(decision, Grant):
            self._calls[reservation] = call
        return decision

    async def extend(self, reservation: str, *, want: int, least: int, ttl: float) -> Decision:
        """See ``ledger.extend``."""
        call = await self._find(reservation)
        if call is None:
            return NOTHING
        ask = (whole_ttl(ttl), want, min(least, want), call.output)
        answers = await self._each("extend", reservation, call.groups, *ask)
        return await self._agree(reservation, call, answers, before=call.output)

    async def renew(self, reservation: str, *, ttl: float) -> bool:
        """See ``ledger.renew``."""
        call = await self._find(reservation)
        if call is None:
            return False
        answers = await self._each("renew", reservation, call.groups, whole_ttl(ttl))
        return all(answers)

    async def settle(self, reservation: str, amounts: Sequence[int]) -> Sequence[Balance]:
        """See ``ledger.settle``.

        Raises:
            ValueError: not one amount for each demand.
        """
        call = await self._find(reservation)
        if call is None:
            return ()
        if len(amounts) != call.size:
            message = f"settled {len(amounts)} amounts for {call.size} demands"
            raise ValueError(message)
        kept = [max(0, min(amount, 2**53)) for amount in amounts]
        answers = await self._all(
            self._ask("settle", reservation, part, [kept[place] for place in part.places])
            for part in call.groups
        )
        self._finish(reservation, call)
        if answers[0][0] == "unknown":
            return ()
        return merge(call, [answer[1] for answer in answers])

    async def release(self, reservation: str) -> None:
        """See ``ledger.release``."""
        call = await self._find(reservation)
        if call is None:
            call = Call(groups((), apart=self._cluster), 0)
        await self._each("release", reservation, call.groups, False)
        self._finish(reservation, call)

    async def balances(self, demands: Sequence[Demand]) -> Sequence[Balance]:
        """See ``ledger.balances``."""
        call = Call(groups(representable(demands), apart=self._cluster), len(demands))
        answers = await self._each("balances", "", call.groups)
        return merge(call, [answer[1] for answer in answers])

    async def note(self, name: str, value: bytes) -> None:
        """See ``notes.Notes``."""
        await self._within(self._command("SET", note_key(name), value))

    async def noted(self, name: str) -> bytes | None:
        """See ``notes.Notes``."""
        value: bytes | None = await self._within(self._command("GET", note_key(name)))
        return value

    async def _agree(
        self, reservation: str, call: Call, answers: list[Any], *, before: int | None = None
    ) -> Decision:
        """One decision of the groups' answers; what was granted too much is given back.

        ``before`` is the output held until now (extend), ``None`` for a new reservation.
        """
        refused = [
            refusal(part, answer)
            for part, answer in zip(call.groups, answers, strict=True)
            if answer[0] != "grant"
        ]
        agreed = -1 if refused else min(answer[1] for answer in answers)
        for place, answer in enumerate(answers):
            if answer[0] == "grant" and (refused or answer[1] > agreed):
                part = call.groups[place]
                if refused and before is None:
                    await self._ask("release", reservation, part, True)
                else:
                    keep = (before or 0) + max(agreed, 0)
                    answers[place] = await self._ask("trim", reservation, part, keep)
        if refused:
            return max(refused, key=patience)
        call.output = (before or 0) + agreed
        return grant(call, agreed, [answer[2] for answer in answers])

    async def _find(self, reservation: str) -> Call | None:
        """Where a reservation's accounts are; another process's only where one slot has all."""
        call = self._calls.get(reservation) or self._over.get(reservation)
        if call is not None or self._cluster:
            return call
        packed = await self._within(self._command("GET", record_key("", reservation)))
        if packed is None:
            return None
        _, output, _, remembered = _unpack(packed)
        demands = _remembered(remembered) if remembered else []
        return Call(groups(demands, apart=False), len(demands), output)

    def _finish(self, reservation: str, call: Call) -> None:
        self._calls.pop(reservation, None)
        self._over[reservation] = call
        if len(self._over) > REMEMBERED:
            self._over.popitem(last=False)

    async def _each(
        self, name: str, reservation: str, parts: list[Group], *rest: object, remember: bool = False
    ) -> list[Any]:
        return await self._all(
            self._ask(name, reservation, part, *rest, remember=remember) for part in parts
        )

    async def _all(self, asked: Any) -> list[Any]:
        """The answers, when all are there: one that fails leaves no other under way."""
        waiting = list(asked)
        if len(waiting) == 1:
            return [await waiting[0]]
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return answers

    async def _ask(
        self, name: str, reservation: str, part: Group, *rest: object, remember: bool = False
    ) -> Any:
        """Run one operation in one group; again where a calendar must follow the server's clock."""
        script = self._scripts[name]
        keys = [record_key(part.tag, reservation), *part.keys]
        memory = [msgspec.json.encode(part.demands)] if remember else []
        for _ in range(2):
            given, about = self._times()
            argument = pack([given, reservation, part.rows(about), *rest])
            packed = await self._within(self._run(script, keys, argument, memory))
            answer = _unpack(packed) if isinstance(packed, bytes) else packed
            if not isinstance(answer, list) or answer[0] != "clock":
                return answer
            self._skew = int(answer[1]) - milliseconds(time.time())
        message = "the Redis server's clock does not hold still"
        raise StoreUnavailableError(message)

    def _times(self) -> tuple[int | bool, int]:
        """The time to use (``False``: the server's own) and about what time it is there."""
        if self._clock is not None:
            now = milliseconds(self._clock())
            return now, now
        return False, milliseconds(time.time()) + self._skew

    async def _run(
        self, script: Script, keys: list[str], argument: bytes, memory: Sequence[bytes]
    ) -> Any:
        rest = (len(keys), *keys, argument, *memory)
        try:
            return await self._command("EVALSHA", script.sha, *rest)
        except NoScriptError:
            return await self._command("EVAL", script.source, *rest)

    def _command(self, *words: Any) -> Awaitable[Any]:
        if self._client is None:
            message = "the Redis store is not open; use 'async with guard'"
            raise StoreUnavailableError(message)
        answer: Awaitable[Any] = self._client.execute_command(*words)
        return answer

    async def _within(self, answer: Awaitable[Any]) -> Any:
        try:
            if not self._cluster:
                return await answer
            # A pipe keeps its own time; a cluster may go from node to node.
            async with asyncio.timeout(self.timeout):
                return await answer
        except TimeoutError as error:
            message = f"Redis did not answer in {self.timeout} s"
            raise StoreUnavailableError(message) from error
        except (RedisError, OSError) as error:
            message = f"Redis is out of reach: {type(error).__name__}: {error}"
            raise StoreUnavailableError(message) from error

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Run in a task of its own, which no caller's cancellation reaches."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _undo(self, reservation: str, parts: list[Group]) -> None:
        for delay in UNDO_DELAYS:
            await asyncio.sleep(delay)
            try:
                await self._each("release", reservation, parts, False)
            except StoreUnavailableError:
                continue
            return
