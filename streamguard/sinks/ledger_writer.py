"""Moves rows from the spool into the ledger's database, in a thread of its own."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from sqlalchemy import Engine
from sqlalchemy.exc import DataError

from streamguard.errors import ConfigurationError
from streamguard.sinks.ledger_database import Inserter, connect
from streamguard.sinks.ledger_row import decode
from streamguard.sinks.ledger_table import migrate
from streamguard.sinks.report import Complaints
from streamguard.sinks.spool import Spool

UNREACHABLE = "usage_ledger_unreachable"
DROPPED = "usage_ledger_rows_dropped"
REJECTED = "rejected.jsonl"
_ADOPT_SECONDS = 10.0
_LONGEST_PAUSE = 5.0
BATCH_BYTES = 2**19
"""What one transaction takes: about 1,300 rows."""


class LedgerWriter:
    """Drains a spool into a database. Rows leave the spool only when they are committed.

    While the database is out of reach they stay, on the disk itself. A row that the database
    does not take goes to ``rejected.jsonl`` beside the spool, so that it blocks no other.
    """

    def __init__(
        self,
        url: str,
        spool: Spool,
        folder: Path,
        complaints: Complaints,
        *,
        flush_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine: Engine = connect(url)
        self._inserter = Inserter(self._engine)
        self._spool = spool
        self._folder = folder
        self._complaints = complaints
        self._flush_seconds = flush_seconds
        self._clock = clock
        self._ready = False
        self._adopted_at: float | None = None
        self._told_dropped = 0
        self._stopping = threading.Event()
        self._draining = threading.Lock()
        self._ending = threading.Lock()
        self._finished = True
        self._abandoned = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to write in the background."""
        self._finished = False
        self._thread = threading.Thread(target=self._run, name="streamguard-ledger", daemon=True)
        self._thread.start()

    def prepare(self) -> None:
        """Create or update the tables.

        Raises:
            ConfigurationError: the database is of a newer streamguard.
            SQLAlchemyError: the database is out of reach.
        """
        if self._ready:
            return
        try:
            migrate(self._engine)
        except ConfigurationError:
            self._engine.dispose()
            raise
        self._ready = True

    def drain(self, deadline: float = float("inf")) -> bool:
        """Write what is spooled; False when the database is out of reach or time is up.

        ``deadline`` is on the writer's clock.
        """
        patience = -1.0 if deadline == float("inf") else max(0.0, deadline - self._clock())
        if not self._draining.acquire(timeout=patience):
            return False
        try:
            return self._drain(deadline)
        finally:
            self._draining.release()

    def stop(self, deadline: float) -> bool:
        """End the thread, write the rest and let go; False when rows stay spooled.

        A thread that hangs in the database lets go by itself when it comes back.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(max(0.0, deadline - self._clock()))
        with self._ending:
            self._abandoned = not self._finished
        done = not self._abandoned and self.drain(deadline)
        self._complaints.over(DROPPED)
        self._tell_dropped()
        if not done:
            left = self._spool.pending_bytes
            self._complaints.say("usage_ledger_rows_left", spooled_bytes=left)
        if not self._abandoned:
            self._let_go()
        return done

    def forked(self) -> None:
        """In a child process: leave the connections to the parent."""
        self._engine.dispose(close=False)

    def _run(self) -> None:
        pause = self._flush_seconds
        while not self._stopping.wait(pause):
            try:
                reached = self.drain()
            except OSError as error:  # the spool's disk; what is on it is tried again
                reached = False
                self._complaints.say("usage_ledger_spool_failed", error=type(error).__name__)
            pause = self._flush_seconds if reached else min(_LONGEST_PAUSE, pause * 2)
            self._tell_dropped()
        with self._ending:
            self._finished = True
            if self._abandoned:
                self._let_go()

    def _let_go(self) -> None:
        self._engine.dispose()
        self._spool.close()

    def _drain(self, deadline: float) -> bool:
        self._adopt()
        while self._clock() < deadline:
            lines, mark = self._spool.read(BATCH_BYTES)
            if not mark:
                return True
            if not self._commit(lines):
                return False
            self._spool.done(mark)
        return False

    def _adopt(self) -> None:
        now = self._clock()
        if self._adopted_at is None or now - self._adopted_at >= _ADOPT_SECONDS:
            self._adopted_at = now
            self._spool.adopt()

    def _tell_dropped(self) -> None:
        dropped = self._spool.dropped
        if dropped > self._told_dropped and self._complaints.say(DROPPED, rows=dropped):
            self._told_dropped = dropped

    def _commit(self, lines: Sequence[bytes]) -> bool:
        try:
            self.prepare()
            self._insert([line for line in lines if self._readable(line)])
        except Exception as error:  # noqa: BLE001 - whatever it is, the rows are safe and stay
            self._ready = False
            self._complaints.say(
                UNREACHABLE, error=type(error).__name__, spooled_bytes=self._spool.pending_bytes
            )
            self._spool.sync()
            return False
        self._complaints.over(UNREACHABLE)
        return True

    def _insert(self, lines: Sequence[bytes]) -> None:
        try:
            if lines:
                self._inserter.insert(lines)
        except DataError as error:
            if len(lines) == 1:
                self._reject(lines[0], type(error.orig).__name__)
                return
            middle = len(lines) // 2
            self._insert(lines[:middle])
            self._insert(lines[middle:])

    def _readable(self, line: bytes) -> bool:
        try:
            decode(line)
        except msgspec.DecodeError:
            self._reject(line, "torn")
            return False
        return True

    def _reject(self, line: bytes, error: str) -> None:
        flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
        with os.fdopen(os.open(self._folder / REJECTED, flags, 0o600), "ab") as file:
            file.write(line + b"\n")
        self._complaints.say("usage_ledger_row_rejected", error=error)
