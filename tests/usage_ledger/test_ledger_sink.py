from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import structlog
from sqlalchemy import inspect, text
from support.databases import POSTGRES, Proxy, postgres_schema
from support.events import refused, settled

from streamguard import Guard, Limit, Usage
from streamguard.errors import ConfigurationError
from streamguard.sinks.ledger import LedgerSink
from streamguard.sinks.ledger_database import connect
from streamguard.sinks.ledger_queries import Ledger
from streamguard.sinks.ledger_table import METADATA, USAGE, VERSION, migrate, shown_url
from streamguard.sinks.ledger_writer import REJECTED
from streamguard.sinks.report import Complaints

ROOT = Path(__file__).parents[2]


class Reports(list):
    """Collects what a sink reports."""

    def __call__(self, event, **figures):
        self.append((event, figures))

    @property
    def names(self):
        return [event for event, _figures in self]


@pytest.fixture
def reports():
    return Reports()


@pytest.fixture
def new_sink(database, tmp_path, reports):
    def build(**given):
        settings = {"spool": tmp_path / "spool", "flush_seconds": 0.02, "report": reports}
        return LedgerSink(given.pop("url", database), **(settings | given))

    return build


def ids(url):
    engine = connect(url)
    with engine.connect() as connection:
        found = sorted(row[0] for row in connection.execute(USAGE.select().with_only_columns(
            USAGE.c.request_id)))  # fmt: skip
    engine.dispose()
    return found


def run(sink, *events):
    async def go():
        await sink.open()
        for event in events:
            sink.emit(event)
        await sink.close()

    asyncio.run(go())
    for thread in threading.enumerate():  # one that had no time to end lets go soon
        if thread.name == "streamguard-ledger":
            thread.join(20)


def test_each_ended_call_is_one_row_however_often_it_is_told(new_sink, database, reports):
    import dataclasses

    others = [
        dataclasses.replace(settled(9), event=name) for name in ("preflight", "cut", "started")
    ]
    run(new_sink(), settled(1), *others, refused(2), settled(1))
    cached = dataclasses.replace(settled(4), event="cached", charged=None)
    run(new_sink(), settled(1), settled(3), cached)
    assert ids(database) == ["sg-1", "sg-2", "sg-3", "sg-4"]
    assert reports == []


def test_rows_come_in_while_it_runs_and_flush_waits_for_them(new_sink, database):
    async def go():
        sink = new_sink(flush_seconds=60)
        await sink.open()
        sink.emit(settled(1))
        assert sink.pending_bytes > 0
        assert await sink.flush()
        found = ids(database)
        await sink.close()
        return found

    assert asyncio.run(go()) == ["sg-1"]


def test_the_thread_writes_by_itself(new_sink, database):
    async def go():
        sink = new_sink()
        sink.emit(settled(1))  # without open: a guard's first calls may come before it
        deadline = time.monotonic() + 10
        while sink.pending_bytes and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        found = ids(database)
        await sink.close()
        return found

    assert asyncio.run(go()) == ["sg-1"]


def test_a_sink_can_be_opened_again(new_sink, database):
    sink = new_sink()
    run(sink, settled(1))
    run(sink, settled(2))
    assert ids(database) == ["sg-1", "sg-2"]


def test_a_guard_opens_feeds_and_closes_it(new_sink, database):
    async def go():
        guard = Guard([Limit(requests=1, per="day")], sinks=[new_sink()])
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}

        async def words():
            yield "hello there"

        async with guard:
            async with guard.stream(words(), model="gpt-4o", messages=body["messages"]) as stream:
                assert [word async for word in stream] == ["hello there"]
            with pytest.raises(Exception, match="exhausted"):
                async with guard.stream(words(), model="gpt-4o", messages=body["messages"]):
                    pass

    asyncio.run(go())
    engine = connect(database)
    totals = Ledger(engine).totals()
    engine.dispose()
    assert (totals["calls"], totals["settled"], totals["refused"]) == (2, 1, 1)
    assert totals["output_tokens"] == 2


def test_a_child_process_after_a_fork_writes_its_own_rows(new_sink, database, tmp_path):
    code = f"""
import asyncio, os, sys
from support.events import settled
from streamguard.sinks.ledger import LedgerSink

async def child(sink):
    sink.emit(settled(2))
    await sink.close()

async def go():
    sink = LedgerSink({database!r}, spool={str(tmp_path / "spool")!r}, flush_seconds=0.02)
    await sink.open()
    sink.emit(settled(1))
    return sink

sink = asyncio.run(go())
pid = os.fork()
if pid == 0:
    asyncio.run(child(sink))
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
async def end():
    sink.emit(settled(3))
    await sink.close()
asyncio.run(end())
"""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": path})
    assert ids(database) == ["sg-1", "sg-2", "sg-3"]


def test_a_killed_process_loses_no_row(database, tmp_path, new_sink):
    sent = set()
    for prefix in ("a", "b"):
        sent |= {
            f"{prefix}-{number}" for number in range(kill_under_load(database, tmp_path, prefix))
        }
    assert len(sent) > 100
    run(new_sink())
    assert sent <= set(ids(database))
    assert list((tmp_path / "spool").iterdir()) == []


def kill_under_load(url, tmp_path, prefix, least=500):
    """Run the load until it has settled so many calls; kill -9; how many emits had returned."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    command = [sys.executable, "-m", "support.ledger_load", url, str(tmp_path / "spool"), prefix]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        done = 0
        for line in process.stdout:
            done += 1
            assert int(line) == done - 1
            if done == least:
                process.kill()
        process.wait()
    return done


def test_an_outage_of_postgresql_loses_no_row(tmp_path, reports):
    with postgres_schema() as url, Proxy("127.0.0.1", 5432) as proxy:
        behind = url.replace(":5432", f":{proxy.port}")
        assert behind != url, POSTGRES

        async def go():
            sink = LedgerSink(behind, spool=tmp_path / "spool", flush_seconds=0.02, report=reports)
            await sink.open()
            for number in range(900):
                if number == 300:
                    proxy.down()
                if number == 600:
                    proxy.up()
                sink.emit(settled(number))
                await asyncio.sleep(0.0005)
            while not await sink.flush():
                await asyncio.sleep(0.02)
            await sink.close()

        asyncio.run(go())
        assert len(ids(url)) == 900
    assert reports.names == ["usage_ledger_unreachable"]
    assert reports[0][1]["error"] == "OperationalError"


def test_a_database_that_comes_late_gets_everything(tmp_path, reports):
    url = f"sqlite:///{tmp_path}/later/usage.db"

    async def go():
        sink = LedgerSink(url, spool=tmp_path / "spool", flush_seconds=0.02, report=reports)
        await sink.open()
        sink.emit(settled(1))
        assert not await sink.flush()
        (tmp_path / "later").mkdir()
        sink.emit(settled(2))
        assert await sink.flush()
        await sink.close()

    asyncio.run(go())
    assert ids(url) == ["sg-1", "sg-2"]
    assert set(reports.names) == {"usage_ledger_unreachable"}


def test_what_close_cannot_write_is_left_for_the_next_process(tmp_path, reports):
    url = f"sqlite:///{tmp_path}/later/usage.db"
    settings = {"spool": tmp_path / "spool", "flush_seconds": 0.02, "report": reports}
    run(LedgerSink(url, close_seconds=0.05, **settings), settled(1))
    assert reports.names == ["usage_ledger_unreachable", "usage_ledger_rows_left"]
    (tmp_path / "later").mkdir()
    run(LedgerSink(url, **settings))
    assert ids(url) == ["sg-1"]


def test_a_database_that_hangs_does_not_hold_up_close(tmp_path, reports, monkeypatch):
    url = f"sqlite:///{tmp_path}/usage.db"
    settings = {"spool": tmp_path / "spool", "flush_seconds": 0.02, "report": reports}
    let_go = threading.Event()

    async def go():
        sink = LedgerSink(url, close_seconds=0.05, **settings)
        await sink.open()
        hung = threading.Event()

        def hang(*_lines):
            hung.set()
            let_go.wait(20)

        monkeypatch.setattr(sink._writer._inserter, "insert", hang)
        sink.emit(settled(1))
        assert await asyncio.to_thread(hung.wait, 20)
        thread = sink._writer._thread
        await sink.close()
        assert thread.is_alive()
        let_go.set()
        await asyncio.to_thread(thread.join)

    asyncio.run(go())
    assert reports.names == ["usage_ledger_rows_left"]


def test_a_row_the_database_refuses_blocks_no_other(tmp_path, reports):
    with postgres_schema() as url:
        too_big = 2**63  # fits JSON and not a bigint
        events = [settled(number) for number in range(20)]
        events[7] = settled(7, cost_nano_usd=too_big)
        settings = {"spool": tmp_path / "spool", "flush_seconds": 60, "report": reports}
        run(LedgerSink(url, **settings), *events)
        assert len(ids(url)) == 19
    rejected = tmp_path / "spool" / REJECTED
    assert rejected.read_text().count("\n") == 1
    assert str(too_big) in rejected.read_text()
    assert rejected.stat().st_mode & 0o77 == 0
    assert reports == [("usage_ledger_row_rejected", {"error": "NumericValueOutOfRange"})]


def test_a_torn_line_is_put_aside(tmp_path, reports):
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "1.spool").write_bytes(b'{"at":1,"request_id":"sg-')
    url = f"sqlite:///{tmp_path}/usage.db"
    run(LedgerSink(url, spool=tmp_path / "spool", report=reports))
    assert ids(url) == []
    assert reports == [("usage_ledger_row_rejected", {"error": "torn"})]


def test_a_full_spool_is_reported(tmp_path, reports):
    url = f"sqlite:///{tmp_path}/missing/usage.db"
    settings = {"spool": tmp_path / "spool", "max_spool_bytes": 2**16, "close_seconds": 0.05}
    sink = LedgerSink(url, flush_seconds=0.02, report=reports, **settings)
    run(sink, *(settled(number) for number in range(1_000)))
    assert sink.dropped > 0
    assert ("usage_ledger_rows_dropped", {"rows": sink.dropped}) in reports


def test_trouble_is_an_error_in_the_log(tmp_path):
    with structlog.testing.capture_logs() as entries:
        url = f"sqlite:///{tmp_path}/missing/usage.db"
        run(LedgerSink(url, spool=tmp_path / "spool", close_seconds=0.01), settled(1))
    assert {entry["log_level"] for entry in entries} == {"error"}
    assert "usage_ledger_unreachable" in {entry["event"] for entry in entries}


def test_the_same_complaint_comes_once_a_minute_until_it_is_over(reports):
    now = [0.0]
    complaints = Complaints(reports, lambda: now[0])
    for seconds in (0, 30, 59, 60, 61, 121):
        now[0] = float(seconds)
        complaints.say("trouble", at=seconds)
    assert [figures["at"] for _event, figures in reports] == [0, 60, 121]
    assert complaints.over("trouble")
    assert not complaints.over("trouble")
    complaints.say("trouble", at=122)
    assert len(reports) == 4


def test_the_spool_of_a_sqlite_file_lies_beside_it(tmp_path):
    run(LedgerSink(f"sqlite:///{tmp_path}/usage.db"), settled(1))
    assert (tmp_path / "usage.db-spool").is_dir()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:x/", "postgresql://h/d"])
def test_a_database_without_a_file_needs_a_spool_by_name(url):
    if url == "sqlite:///:memory:x/":
        LedgerSink(url)
        return
    with pytest.raises(ConfigurationError, match="spool="):
        LedgerSink(url)


@pytest.mark.parametrize("url", ["mysql://h/d", "usage.db", "postgresql+asyncpg://h/d"])
def test_other_databases_are_refused(url, tmp_path):
    with pytest.raises(ConfigurationError, match="sqlite:///FILE or postgresql"):
        LedgerSink(url, spool=tmp_path)


def test_a_missing_driver_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigurationError, match=r"streamguard\[postgres\]"):
        LedgerSink("postgresql://h/d", spool=tmp_path)


def test_a_password_is_not_shown():
    assert shown_url("postgresql://u:secret@h/d") == "postgresql+psycopg://u:***@h/d"


def test_an_older_database_is_brought_up_to_date_once(database):
    engine = connect(database)
    assert migrate(engine) == 0
    assert migrate(engine) == VERSION
    steps = {
        VERSION + at: lambda connection, name=name: connection.execute(
            text(f"ALTER TABLE {USAGE.name} ADD COLUMN {name} TEXT")
        )
        for at, name in ((1, "one"), (2, "two"))
    }
    assert migrate(engine, version=VERSION + 2, steps=steps) == VERSION
    assert migrate(engine, version=VERSION + 2, steps=steps) == VERSION + 2
    with engine.connect() as connection:
        connection.execute(text(f"SELECT one, two FROM {USAGE.name}"))
    engine.dispose()


def first_version(engine):
    """The ledger as its first version was, with a row of that time."""
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX ix_streamguard_usage_period"))
        for name in ("reported_cache_write", "charged_cache_write"):
            connection.execute(text(f"ALTER TABLE {USAGE.name} DROP COLUMN {name}"))
        connection.execute(text("UPDATE streamguard_usage_version SET version = 1"))
        row = "(at, request_id, event, charged_input) VALUES (5, 'sg-old', 'settled', 7)"
        connection.execute(text(f"INSERT INTO {USAGE.name} {row}"))
        connection.execute(text(f"CREATE INDEX ix_streamguard_usage_period ON {USAGE.name} (at)"))


@pytest.mark.parametrize("known", [False, True])
def test_a_ledger_without_cache_writes_gets_them(database, new_sink, known):
    engine = connect(database)
    first_version(engine)
    if known:  # somebody added one by hand
        with engine.begin() as connection:
            column = "charged_cache_write BIGINT"
            connection.execute(text(f"ALTER TABLE {USAGE.name} ADD COLUMN {column}"))
    written = Usage(100, 5, None, 20, 60)
    run(new_sink(), settled(reported=written, charged=written))
    totals = Ledger(engine).totals()
    assert (totals["calls"], totals["input_tokens"]) == (2, 107)
    assert (totals["cached_tokens"], totals["cache_write_tokens"]) == (20, 60)
    assert migrate(engine) == VERSION
    with engine.connect() as connection:
        indexes = {one["name"]: one for one in inspect(connection).get_indexes(USAGE.name)}
    assert "charged_cache_write" in indexes["ix_streamguard_usage_period"]["column_names"]
    engine.dispose()


def test_a_step_that_fails_changes_nothing(database):
    engine = connect(database)
    migrate(engine)

    def step(connection):
        connection.execute(text(f"ALTER TABLE {USAGE.name} ADD COLUMN two TEXT"))
        raise RuntimeError

    with pytest.raises(RuntimeError):
        migrate(engine, version=VERSION + 1, steps={VERSION + 1: step})
    assert migrate(engine) == VERSION
    with engine.connect() as connection, pytest.raises(Exception, match="two"):
        connection.execute(text(f"SELECT two FROM {USAGE.name}"))
    engine.dispose()


def test_a_newer_database_is_refused(database, new_sink):
    engine = connect(database)
    migrate(engine)
    migrate(engine, version=VERSION + 1, steps={VERSION + 1: lambda _connection: None})
    engine.dispose()
    with pytest.raises(ConfigurationError, match="version 3, this streamguard knows 2"):
        run(new_sink())


def test_processes_that_start_at_once_create_it_once(database):
    found = []

    def start():
        engine = connect(database)
        found.append(migrate(engine))
        engine.dispose()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [0, VERSION, VERSION, VERSION]


def test_postgresql_can_partition_the_table_by_time():
    with postgres_schema() as url:
        engine = connect(url)
        migrate(engine)
        with engine.begin() as connection:
            connection.execute(
                text(
                    f"CREATE TABLE parts (LIKE {USAGE.name} INCLUDING ALL) PARTITION BY RANGE (at)"
                )
            )
            connection.execute(
                text("CREATE TABLE part_1 PARTITION OF parts FOR VALUES FROM (0) TO (2000000)")
            )
            connection.execute(
                text("INSERT INTO parts (at, request_id, event) VALUES (1, 'sg-1', 'settled')")
            )
        engine.dispose()
    assert USAGE.name in METADATA.tables


def test_no_time_to_close_leaves_the_rows_to_the_next(new_sink, database, reports):
    run(new_sink(close_seconds=0, flush_seconds=60), settled(1))
    assert reports.names == ["usage_ledger_rows_left"]
    assert ids(database) == []
    run(new_sink())
    assert ids(database) == ["sg-1"]


def test_emitting_before_open_and_closing_unopened_are_fine(new_sink, database):
    async def go():
        sink = new_sink()
        sink.emit(settled(1))
        await sink.open()
        await sink.close()
        await new_sink().close()

    asyncio.run(go())
    assert ids(database) == ["sg-1"]


# A child must not close its parent's connection; here nobody else does, and Python says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")
def test_after_a_fork_spool_thread_and_connections_are_new(new_sink, tmp_path, monkeypatch):
    """The same as the real fork above, seen from inside."""
    url = f"sqlite:///{tmp_path}/usage.db"

    async def go():
        sink = new_sink(url=url, flush_seconds=60)
        await sink.open()
        sink.emit(settled(1))
        parents = sink._writer
        with monkeypatch.context() as child:
            child.setattr(os, "getpid", lambda: -1)
            sink.emit(settled(2))
            assert sink._writer is not parents
            await sink.close()
        parents._stopping.set()
        await asyncio.to_thread(parents._thread.join)

    asyncio.run(go())
    assert ids(url) == ["sg-1", "sg-2"]
    gc.collect()


def test_close_while_a_flush_hangs_leaves_the_rows(tmp_path, reports, monkeypatch):
    url = f"sqlite:///{tmp_path}/usage.db"
    hung, let_go = threading.Event(), threading.Event()

    async def go():
        settings = {"flush_seconds": 60, "close_seconds": 0.2, "report": reports}
        sink = LedgerSink(url, spool=tmp_path / "spool", **settings)
        await sink.open()
        writer = sink._writer
        real = writer._inserter.insert

        def hang(lines):
            hung.set()
            let_go.wait(20)
            real(lines)

        monkeypatch.setattr(writer._inserter, "insert", hang)
        sink.emit(settled(1))
        flush = asyncio.create_task(sink.flush())
        assert await asyncio.to_thread(hung.wait, 20)
        await sink.close()
        let_go.set()
        assert await flush
        writer._engine.dispose()

    asyncio.run(go())
    assert reports.names == ["usage_ledger_rows_left"]
    run(LedgerSink(url, spool=tmp_path / "spool", report=reports))
    assert ids(url) == ["sg-1"]


def test_when_time_is_up_nothing_more_is_written(new_sink, database):
    async def go():
        sink = new_sink(flush_seconds=60)
        await sink.open()
        sink.emit(settled(1))
        assert not sink._writer.drain(time.monotonic() - 1)
        assert sink.pending_bytes > 0
        await sink.close()

    asyncio.run(go())
    assert ids(database) == ["sg-1"]


def test_a_spool_that_cannot_be_read_for_a_while_is_said_and_tried_again(
    new_sink, database, reports, monkeypatch
):
    async def go():
        sink = new_sink()
        await sink.open()
        real, failed = os.pread, threading.Event()

        def broken(*_args):
            failed.set()
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as disk:
            disk.setattr(os, "pread", broken)
            sink.emit(settled(1))
            assert await asyncio.to_thread(failed.wait, 20)
        assert os.pread is real
        await sink.close()

    asyncio.run(go())
    assert ids(database) == ["sg-1"]
    assert reports == [("usage_ledger_spool_failed", {"error": "OSError"})]
