"""A Redis Cluster: a shared connection to each master, commands sent by their key's slot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from streamguard.stores.loops import PerLoop
from streamguard.stores.redis_pipe import Address, RedisPipe

ATTEMPTS = 8
"""Most places one command is sent to while the cluster moves slots or fails over."""

PAUSE = 0.05
"""Seconds to wait where the cluster asks for patience, or a node is gone."""


class ClusterPipe:
    """Commands to the master that has their key's slot; follows moves and failovers.

    ``seeds`` are any nodes; ``make`` makes the connection to a node.
    """

    def __init__(self, seeds: Sequence[Address], make: Callable[[Address], RedisPipe]) -> None:
        self._seeds = list(seeds)
        self._make = make
        self._pipes: dict[Address, RedisPipe] = {}
        self._ranges: list[tuple[int, int, Address]] = []
        self._locks = PerLoop(asyncio.Lock)

    async def execute_command(self, *words: Any) -> Any:
        """The reply to ``GET key`` or ``EVAL(SHA) script count key …``.

        Raises:
            RedisError: the node's error.
            RedisConnectionError: the slot's master could not be found.
        """
        slot = key_slot(str(words[3] if str(words[0]).startswith("EVAL") else words[1]).encode())
        place, asking = await self._master(slot), False
        for _ in range(ATTEMPTS):
            try:
                return await self._pipe(place).execute_command(*words, asking=asking)
            except ResponseError as error:
                place, asking = await self._redirect(error, slot, place)
            except (RedisConnectionError, OSError):
                await asyncio.sleep(PAUSE)
                await self._learn()
                place, asking = await self._master(slot), False
        message = f"slot {slot} has no master that answers"
        raise RedisConnectionError(message)

    async def info(self, section: str) -> Mapping[str, Any]:
        """A section of INFO of each master."""
        await self._learn()
        masters = {place for _, _, place in self._ranges}
        return {str(place): await self._pipe(place).info(section) for place in masters}

    async def aclose(self) -> None:
        """Close all connections."""
        pipes, self._pipes = self._pipes, {}
        for pipe in pipes.values():
            await pipe.aclose()

    async def _redirect(
        self, error: ResponseError, slot: int, place: Address
    ) -> tuple[Address, bool]:
        """Where to go on, by what the node said."""
        kind, *rest = str(error).split(" ")
        if kind == "MOVED":
            await self._learn()
            return _address(rest[1], place), False
        if kind == "ASK":
            return _address(rest[1], place), True
        if kind in {"TRYAGAIN", "CLUSTERDOWN"}:
            await asyncio.sleep(PAUSE)
            return await self._master(slot), False
        raise error

    async def _master(self, slot: int) -> Address:
        if not self._ranges:
            await self._learn()
        for first, last, place in self._ranges:
            if first <= slot <= last:
                return place
        message = f"slot {slot} has no master"
        raise RedisConnectionError(message)

    async def _learn(self) -> None:
        """Ask a node that answers who has which slots."""
        async with self._locks.here():
            failed: Exception | None = None
            for place in [*self._pipes, *self._seeds]:
                try:
                    rows = await self._pipe(place).execute_command("CLUSTER", "SLOTS")
                except (RedisError, OSError) as error:
                    failed = error
                    continue
                self._ranges = [
                    (first, last, (master[0].decode() or place[0], master[1]))
                    for first, last, master, *_ in rows
                ]
                return
        message = f"no node of the cluster answers: {failed}"
        raise RedisConnectionError(message)

    def _pipe(self, place: Address) -> RedisPipe:
        found = self._pipes.get(place)
        return found or self._pipes.setdefault(place, self._make(place))


def _address(text: str, place: Address) -> Address:
    """``host:port`` of a redirection; no host means the node that said it."""
    host, _, port = text.rpartition(":")
    return host or place[0], int(port)
