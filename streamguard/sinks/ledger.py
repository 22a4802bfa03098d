"""The usage ledger: one row a call, in SQL."""

from __future__ import annotations

import os
import time
from pathlib import Path

import anyio.to_thread
from sqlalchemy.exc import SQLAlchemyError

from streamguard.errors import ConfigurationError
from streamguard.sinks.ledger_database import file_of
from streamguard.sinks.ledger_row import TERMINAL, encode
from streamguard.sinks.ledger_writer import UNREACHABLE, LedgerWriter
from streamguard.sinks.report import Complaints, Report, log_error
from streamguard.sinks.spool import Spool, WhenFull
from streamguard.usage import UsageEvent


class LedgerSink:
    """Writes every ended call to SQLite or PostgreSQL, off the hot path.

    ::

        Guard(limits, sinks=[LedgerSink("sqlite:///usage.db")])

    ``emit`` appends a line to a spool file, which survives the process; a thread moves the
    lines into the database in batches. Killed processes and database outages lose no row: what
    is spooled is written by the next process, each row once. A power cut can lose the last
    ``flush_seconds``, for that is how often rows are committed; while the database is away, the
    last five seconds, for that is how often the spool is synced to the disk.

    Args:
        url: ``sqlite:///FILE`` or ``postgresql://USER@HOST/NAME``.
        spool: a folder of one database's own, on a local disk. SQLite: ``FILE-spool``.
        max_spool_bytes: bound for this process; about 400 bytes are one row.
        when_full: which rows to drop, and report, when the spool is full.
        flush_seconds: how often rows are committed.
        close_seconds: how long ``close`` tries to write the rest; then it stays spooled.
        report: told of trouble, ``report(event, **figures)``; by default a log entry.

    Raises:
        ConfigurationError: a URL that is none, or no ``spool`` for PostgreSQL.
    """

    def __init__(
        self,
        url: str,
        *,
        spool: str | Path | None = None,
        max_spool_bytes: int = 2**28,
        when_full: WhenFull = "drop_newest",
        flush_seconds: float = 0.5,
        close_seconds: float = 5.0,
        report: Report = log_error,
    ) -> None:
        self._folder = _folder(url, spool)
        self._url = url
        self._flush_seconds = flush_seconds
        self._close_seconds = close_seconds
        self._complaints = Complaints(report, time.monotonic)
        self._max_spool_bytes = max_spool_bytes
        self._when_full: WhenFull = when_full
        self._spool = self._new_spool()
        self._writer = self._new_writer()
        self._pid: int | None = None
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Rows that were lost because the spool was full or its disk was."""
        return self._dropped + self._spool.dropped

    @property
    def pending_bytes(self) -> int:
        """Bytes spooled and not yet in the database."""
        return self._spool.pending_bytes

    def emit(self, event: UsageEvent) -> None:
        """Spool the event if it ends a call. Takes microseconds; waits for no database."""
        if event.event in TERMINAL:
            if self._pid != os.getpid():
                self._start()
            self._spool.append(encode(event))

    async def open(self) -> None:
        """Create or update the tables and write what earlier processes left.

        A database out of reach is reported, not raised: rows are spooled until it is back.

        Raises:
            ConfigurationError: the database is of a newer streamguard.
        """
        try:
            await anyio.to_thread.run_sync(self._writer.prepare)
        except SQLAlchemyError as error:
            self._complaints.say(UNREACHABLE, error=type(error).__name__, spooled_bytes=0)
        if self._pid != os.getpid():
            self._start()

    async def flush(self) -> bool:
        """Write everything emitted so far; False when the database is out of reach."""
        return await anyio.to_thread.run_sync(self._writer.drain)

    async def close(self) -> None:
        """Write the rest. What cannot be written in time stays spooled for the next process."""
        deadline = time.monotonic() + self._close_seconds
        await anyio.to_thread.run_sync(self._writer.stop, deadline)
        self._dropped += self._spool.dropped
        self._spool = self._new_spool()
        self._writer, self._pid = self._new_writer(), None

    def _new_spool(self) -> Spool:
        return Spool(self._folder, max_bytes=self._max_spool_bytes, when_full=self._when_full)

    def _new_writer(self) -> LedgerWriter:
        return LedgerWriter(
            self._url,
            self._spool,
            self._folder,
            self._complaints,
            flush_seconds=self._flush_seconds,
        )

    def _start(self) -> None:
        """First use, or first use after a fork: threads and connections stay with the parent."""
        if self._pid is not None:
            self._spool.forked()
            self._writer.forked()
            self._writer = self._new_writer()
        self._pid = os.getpid()
        self._writer.start()


def _folder(url: str, spool: str | Path | None) -> Path:
    if spool is not None:
        return Path(spool)
    file = file_of(url)
    if file is None:
        raise ConfigurationError("spool= must name a folder on a local disk, one a database")
    return file.with_name(f"{file.name}-spool")
