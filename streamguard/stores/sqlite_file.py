"""An SQLite file as the ledger's books: rows are read when asked for, written when changed."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from streamguard.core import ledger
from streamguard.core.books import Account, Books, Hold, Key
from streamguard.errors import ConfigurationError

SCHEMA = """
CREATE TABLE IF NOT EXISTS accounts
    (name TEXT, window TEXT, empty INTEGER, state BLOB, PRIMARY KEY (name, window)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS empty_accounts ON accounts (empty);
CREATE TABLE IF NOT EXISTS holds (id TEXT PRIMARY KEY, due INTEGER, state BLOB) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS due_holds ON holds (due);
CREATE TABLE IF NOT EXISTS notes (name TEXT PRIMARY KEY, value BLOB) WITHOUT ROWID;
PRAGMA user_version = 1;
"""

T = TypeVar("T")
K = TypeVar("K")
Operation = Callable[..., Any]


class Rows(dict[K, T]):
    """Rows of one table, read when first asked for."""

    def __init__(self, read: Callable[[K], bytes | None], kind: type[T]) -> None:
        self._read = read
        self._decode: Callable[[bytes], T] = msgspec.msgpack.Decoder(kind).decode
        self.before: dict[K, bytes] = {}

    def get(self, key: K, default: Any = None) -> Any:
        """The row of ``key``, from the file when it was not read yet."""
        if key not in self:
            blob = self._read(key)
            if blob is None:
                return default
            self.before[key] = blob
            self[key] = self._decode(blob)
        return self[key]

    def changed(self) -> list[tuple[K, T, bytes]]:
        """What differs from the file."""
        rows = [(key, row, msgspec.msgpack.encode(row)) for key, row in self.items()]
        return [(key, row, blob) for key, row, blob in rows if self.before.get(key) != blob]

    def gone(self) -> list[K]:
        """What was in the file and is not any more."""
        return [key for key in self.before if key not in self]


class FileBooks(Books):
    """The books in the file; ``connection`` is inside the transaction."""

    __slots__ = ("connection",)

    def __init__(
        self,
        connection: sqlite3.Connection,
        accounts: dict[Key, Account],
        holds: dict[str, Hold],
    ) -> None:
        super().__init__(accounts=accounts, holds=holds)
        self.connection = connection


def write_note(books: FileBooks, *, name: str, value: bytes, now: float) -> None:  # noqa: ARG001
    """Keep a note."""
    books.connection.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (name, value))


def read_note(books: FileBooks, *, name: str, now: float) -> bytes | None:  # noqa: ARG001
    """What is kept under a name."""
    query = "SELECT value FROM notes WHERE name = ?"
    row = books.connection.execute(query, (name,)).fetchone()
    return None if row is None else row[0]


class File:
    """The connection: runs operations of the ledger in one transaction."""

    def __init__(self, path: str, timeout: float) -> None:
        self.connection = sqlite3.connect(path, timeout=timeout, isolation_level=None)
        try:
            self._prepare(time.monotonic() + timeout)
        except BaseException:
            self.connection.close()
            raise

    def _prepare(self, deadline: float) -> None:
        """Switch to WAL, which does not wait for other processes by itself."""
        while True:
            try:
                self.connection.execute("PRAGMA journal_mode = WAL")
                self.connection.execute("PRAGMA synchronous = NORMAL")
                self.connection.executescript(SCHEMA)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def run(self, operations: Sequence[Operation], clock: Callable[[], float]) -> list[Any]:
        """Each operation's result, or the error it raised."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            now = clock()
            accounts, holds = Rows(self._account, Account), Rows(self._hold, Hold)
            books = FileBooks(self.connection, accounts, holds)
            due = "SELECT due, id FROM holds WHERE due <= ? ORDER BY due"
            books.due = self.connection.execute(due, (ledger.milliseconds(now),)).fetchall()
            results = [_attempt(operation, books, now) for operation in operations]
            self._save_accounts(accounts, ledger.milliseconds(now))
            self._save_holds(holds)
            self.connection.execute("COMMIT")
        except BaseException:
            self.connection.rollback()
            raise
        return results

    def _account(self, key: Key) -> bytes | None:
        query = "SELECT state FROM accounts WHERE name = ? AND window = ?"
        row = self.connection.execute(query, (key[0], _span(key))).fetchone()
        return None if row is None else row[0]

    def _hold(self, reservation: str) -> bytes | None:
        query = "SELECT state FROM holds WHERE id = ?"
        row = self.connection.execute(query, (reservation,)).fetchone()
        return None if row is None else row[0]

    def _save_accounts(self, accounts: Rows[Key, Account], at: int) -> None:
        self.connection.executemany(
            "INSERT OR REPLACE INTO accounts VALUES (?, ?, ?, ?)",
            [(k[0], _span(k), account.empty_at(), blob) for k, account, blob in accounts.changed()],
        )
        self.connection.execute("DELETE FROM accounts WHERE empty <= ?", (at,))

    def _save_holds(self, holds: Rows[str, Hold]) -> None:
        self.connection.executemany(
            "INSERT OR REPLACE INTO holds VALUES (?, ?, ?)",
            [(name, hold.due, blob) for name, hold, blob in holds.changed()],
        )
        self.connection.executemany(
            "DELETE FROM holds WHERE id = ?", [(name,) for name in holds.gone()]
        )


def _attempt(operation: Operation, books: Books, now: float) -> Any:
    try:
        return operation(books, now=now)
    except (ConfigurationError, ValueError) as error:
        return error


def _span(key: Key) -> str:
    window = key[1]
    if window.leak:
        return f"{window.seconds}~{window.leak}"
    return f"{window.seconds}/{window.timezone}" if window.calendar else str(window.seconds)
