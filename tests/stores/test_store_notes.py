"""Notes: kept by every store, passed on by what wraps one."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest
from support.redis_server import needs_redis, redis_cluster, redis_server

from streamguard.errors import StoreUnavailableError
from streamguard.stores import open_store
from streamguard.stores.batching import BatchingStore
from streamguard.stores.memory import MemoryStore
from streamguard.stores.notes import Notes, note, noted
from streamguard.stores.policy import PolicyStore

ODD = bytes(range(256)) + b"\r\n"


def exchange(*urls):
    """Write with the first store, read with the last."""

    async def go():
        stores = [open_store(url) for url in urls]
        for store in stores:
            await store.open()
            assert isinstance(store, Notes)
        before = await stores[-1].noted("odd")
        await stores[0].note("odd", b"old")
        await stores[0].note("odd", ODD)
        await stores[0].note("empty", b"")
        after = await stores[-1].noted("odd"), await stores[-1].noted("empty")
        for store in stores:
            await store.close()
        return before, *after

    return asyncio.run(go())


EXPECTED = (None, ODD, b"")


def test_memory_keeps_notes():
    assert exchange("memory://") == EXPECTED


@pytest.mark.parametrize("wrap", ["", "?fail=0.5", "?batch=0.5", "?fail=open&batch=1"])
def test_sqlite_keeps_notes_for_other_processes_through_any_wrapper(tmp_path, wrap):
    url = f"sqlite:///{tmp_path}/notes.db{wrap}"
    assert exchange(url, url) == EXPECTED
    assert exchange(url) == (ODD, ODD, b"")


def test_a_file_of_before_notes_gets_the_table(tmp_path):
    url = f"sqlite:///{tmp_path}/old.db"
    exchange(url)
    with sqlite3.connect(tmp_path / "old.db") as file:
        file.execute("DROP TABLE notes")
    file.close()
    assert exchange(url) == EXPECTED


@needs_redis
def test_redis_keeps_notes():
    with redis_server() as server:
        url = f"{server.url}?timeout=5"
        assert exchange(url, url) == EXPECTED


@needs_redis
def test_redis_cluster_keeps_notes():
    with redis_cluster() as servers:
        url = f"redis+cluster://127.0.0.1:{servers[0].port}?timeout=5"
        assert exchange(url, url) == EXPECTED


class Plain:
    """A store of somebody's own, without notes."""


@pytest.mark.parametrize("wrap", [lambda store: store, PolicyStore, BatchingStore])
def test_a_store_without_notes_forgets_them(wrap):
    async def go():
        store = wrap(Plain())
        await note(store, "n", b"1")
        return await noted(store, "n")

    assert asyncio.run(go()) is None


class Away(MemoryStore):
    async def note(self, name, value):
        raise StoreUnavailableError("away")

    async def noted(self, name):
        raise StoreUnavailableError("away")


def test_failing_notes_leave_the_breaker_alone_and_wait_while_it_is_open():
    async def go():
        store = PolicyStore(Away(), policy="open")
        for _ in range(5):
            with pytest.raises(StoreUnavailableError, match="away"):
                await store.note("n", b"1")
            with pytest.raises(StoreUnavailableError, match="away"):
                await store.noted("n")
        assert store.breaker.state == "closed"
        for _ in range(3):
            store.breaker.failed(store._clock())
        with pytest.raises(StoreUnavailableError, match="notes wait"):
            await store.note("n", b"1")
        with pytest.raises(StoreUnavailableError, match="notes wait"):
            await store.noted("n")

    asyncio.run(go())
