"""The SQLite store's own duties: the file, the thread, other processes' locks."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest

from streamguard.core.accounts import Demand, Grant, Window
from streamguard.errors import ConfigurationError, StoreUnavailableError
from streamguard.stores import open_store, sqlite, sqlite_file
from streamguard.stores.sqlite import SqliteStore

MINUTE = Window(60)
DAY = Window(86_400, calendar=True, timezone="Asia/Tokyo")


def demand(account="a", capacity=1000, window=MINUTE):
    return Demand(account, capacity, window, 10, 1)


async def reserve(store, name, *demands, want=100):
    return await store.reserve(name, demands or [demand()], want=want, least=1, ttl=30)


def with_store(store, work):
    async def go():
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(go())


def test_books_survive_a_restart(tmp_path):
    path = str(tmp_path / "b.db")

    async def first(store):
        await reserve(store, "1", demand(), demand("b", window=DAY))
        await reserve(store, "2")
        await store.settle("2", [50])

    async def second(store):
        assert await store.renew("1", ttl=30)
        assert (await store.extend("1", want=5, least=5, ttl=30)).output == 5
        return [(b.used, b.held) for b in await store.settle("1", [7, 8])]

    with_store(SqliteStore(path), first)
    assert with_store(SqliteStore(path), second) == [(57, 0), (8, 0)]


def test_rows_of_what_is_over_are_deleted(tmp_path):
    now = [1_700_000_000.0]
    path = str(tmp_path / "b.db")

    async def work(store):
        for number in range(10):
            await reserve(store, f"r{number}", demand(f"tenant{number}"))
            await store.settle(f"r{number}", [5])
        now[0] += 200
        await store.balances([demand()])

    with_store(SqliteStore(path, clock=lambda: now[0]), work)
    with sqlite3.connect(path) as file:
        counts = [
            file.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in ("accounts", "holds")
        ]
    file.close()
    assert counts == [0, 0]


def test_calls_that_wait_share_a_transaction(tmp_path, monkeypatch):
    sizes = []
    run = sqlite_file.File.run
    monkeypatch.setattr(
        sqlite_file.File,
        "run",
        lambda self, ops, clock: sizes.append(len(ops)) or run(self, ops, clock),
    )
    monkeypatch.setattr(sqlite, "TOGETHER", 16)

    async def work(store):
        decisions = await asyncio.gather(*(reserve(store, str(n), demand()) for n in range(100)))
        return sum(decision.output for decision in decisions if isinstance(decision, Grant))

    assert with_store(SqliteStore(str(tmp_path / "b.db")), work) == 900
    assert max(sizes) <= 16
    assert len(sizes) < 100


def test_mistakes_come_back_to_their_caller_only(tmp_path):
    async def work(store):
        good, bad, wrong = await asyncio.gather(
            reserve(store, "1"),
            reserve(store, "2", demand("x"), demand("x")),
            store.settle("1", [1, 2]),
            return_exceptions=True,
        )
        assert isinstance(good, Grant)
        assert isinstance(bad, ConfigurationError)
        assert isinstance(wrong, ValueError)

    with_store(SqliteStore(str(tmp_path / "b.db")), work)


def test_locked_file_is_unavailable_and_the_reserve_is_undone(tmp_path):
    path = str(tmp_path / "b.db")

    async def work(store):
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match=r"did not answer|locked"):
            await reserve(store, "1")
        other.execute("ROLLBACK")
        other.close()
        return (await store.balances([demand()]))[0].held

    assert with_store(SqliteStore(path, timeout=0.3), work) == 0


def test_locked_file_answers_by_itself_when_sqlite_waits_less(tmp_path):
    path = str(tmp_path / "b.db")

    async def work(store):
        store.timeout = 20
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            await store.release("1")
        other.close()

    with_store(SqliteStore(path, timeout=0.1), work)


def test_cancelled_reserve_is_undone(tmp_path):
    async def work(store):
        tasks = [asyncio.create_task(reserve(store, str(n))) for n in range(5)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return (await store.balances([demand()]))[0].held

    assert with_store(SqliteStore(str(tmp_path / "b.db")), work) == 0


def test_failed_transaction_changes_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise sqlite3.OperationalError("disk I/O error")

    async def work(store):
        with monkeypatch.context() as patched:
            patched.setattr(sqlite_file.File, "_save_holds", fail)
            with pytest.raises(StoreUnavailableError, match="disk I/O error"):
                await reserve(store, "1")
        return (await store.balances([demand()]))[0].held

    assert with_store(SqliteStore(str(tmp_path / "b.db")), work) == 0


def test_path_that_cannot_be_opened_is_unavailable(tmp_path):
    async def go():
        store = SqliteStore(str(tmp_path / "none" / "b.db"))
        with pytest.raises(StoreUnavailableError, match="unable to open"):
            await store.open()
        await store.close()

    asyncio.run(go())


def test_file_that_is_no_database_is_unavailable(tmp_path):
    (tmp_path / "b.db").write_bytes(b"not a database at all" * 100)

    async def go():
        store = SqliteStore(str(tmp_path / "b.db"))
        with pytest.raises(StoreUnavailableError, match="not a database"):
            await store.open()
        await store.close()

    asyncio.run(go())


def test_opening_waits_for_another_process(tmp_path):
    path = str(tmp_path / "b.db")
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    timer = threading.Timer(0.2, lambda: other.execute("ROLLBACK"))
    timer.start()
    with_store(SqliteStore(path, timeout=20), lambda store: store.release("x"))
    timer.join()
    other.close()


class Contended(sqlite3.Connection):
    """Two processes that switch to WAL at once: one is told that the file is locked."""

    refusals = 0

    def execute(self, sql, *words):
        if "WAL" in sql and Contended.refusals > 0:
            Contended.refusals -= 1
            error = sqlite3.OperationalError("database is locked")
            error.sqlite_errorcode = sqlite3.SQLITE_BUSY
            raise error
        return super().execute(sql, *words)


@pytest.mark.parametrize(("refusals", "opens"), [(2, True), (10**6, False)])
def test_race_for_the_first_opening(tmp_path, monkeypatch, refusals, opens):
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite_file.sqlite3, "connect", lambda *w, **n: connect(*w, **n, factory=Contended)
    )
    monkeypatch.setattr(Contended, "refusals", refusals)

    path = str(tmp_path / "b.db")
    if opens:
        sqlite_file.File(path, 5.0).connection.close()
    else:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            sqlite_file.File(path, 0.05)


def test_store_that_is_not_open_or_closed_is_unavailable(tmp_path):
    async def go():
        store = SqliteStore(str(tmp_path / "b.db"))
        await store.close()
        with pytest.raises(StoreUnavailableError, match="not open"):
            await store.release("x")
        await store.open()
        await store.open()
        await store.close()

    asyncio.run(go())


def test_close_finishes_what_is_queued(tmp_path):
    async def go():
        store = SqliteStore(str(tmp_path / "b.db"))
        await store.open()
        waiting = [asyncio.create_task(reserve(store, str(n))) for n in range(3)]
        await asyncio.sleep(0)
        await store.close()
        return await asyncio.gather(*waiting)

    assert [decision.output for decision in asyncio.run(go())] == [100] * 3


def test_urls():
    store = open_store("sqlite:///budgets%20x.db?timeout=2")
    assert (store.path, store.timeout) == ("budgets x.db", 2.0)
    assert open_store("sqlite:////var/b.db").path == "/var/b.db"


@pytest.mark.parametrize(
    ("url", "match"),
    [
        ("sqlite://", "names no file"),
        ("sqlite://host/x", "names no file"),
        ("sqlite:///b?timeout=x", "seconds"),
    ],
)
def test_wrong_urls(url, match):
    with pytest.raises(ConfigurationError, match=match):
        open_store(url)
