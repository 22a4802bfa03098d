"""The usage ledger's database: connects, and puts batches of rows in, each row once.

A batch travels as one JSON text that the database itself unpacks, so a row costs next to no
time under Python's interpreter lock, which the event loop needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Engine,
    Executable,
    bindparam,
    column,
    create_engine,
    event,
    func,
    select,
    true,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.types import Text

from streamguard.errors import ConfigurationError
from streamguard.sinks.ledger_table import USAGE, database_url

_TIMEOUT = 5  # seconds to connect, and to wait for another writer of a SQLite file


def connect(url: str) -> Engine:
    """An engine for the ledger at ``url``; nothing is opened yet.

    Raises:
        ConfigurationError: a wrong URL, or a driver that is not installed.
    """
    full = database_url(url)
    try:
        if full.startswith("sqlite"):
            return _sqlite(full)
        return create_engine(
            full,
            pool_size=1,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"connect_timeout": _TIMEOUT, "tcp_user_timeout": _TIMEOUT * 1000},
        )
    except (ArgumentError, ImportError, NoSuchModuleError) as error:
        raise ConfigurationError(
            f"the usage ledger cannot be opened ({type(error).__name__}); a PostgreSQL one needs "
            "pip install 'streamguard[postgres]'"
        ) from error


def _sqlite(full: str) -> Engine:
    engine = create_engine(full, hide_parameters=True, connect_args={"timeout": _TIMEOUT})

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _record: object) -> None:
        # Without the driver's own transactions, BEGIN IMMEDIATE works; FULL makes a commit last.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA cache_size=-65536")  # KiB: the indexes' random pages
        connection.execute("PRAGMA wal_autocheckpoint=10000")

    return engine


def file_of(url: str) -> Path | None:
    """The file of a SQLite ledger."""
    full = database_url(url)
    name = full.removeprefix("sqlite:///")
    return Path(name) if full.startswith("sqlite:///") and name else None


class Inserter:
    """Inserts lines of ``ledger_row``; a row that is there already is left as it is."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._statement = _STATEMENTS[engine.dialect.name]()

    def insert(self, lines: Sequence[bytes]) -> None:
        """Commit all of the lines, or none.

        Raises:
            SQLAlchemyError: the database is out of reach, or does not take a value.
        """
        rows = (b"[" + b",".join(lines) + b"]").decode()
        with self._engine.begin() as connection:
            if self._engine.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.execute(self._statement, {"rows": rows})


def _sqlite_statement() -> Executable:
    each = func.json_each(bindparam("rows", type_=Text)).table_valued("value")
    values = [func.json_extract(each.c.value, f"$.{name}") for name in USAGE.c.keys()]  # noqa: SIM118
    chosen = select(*values).select_from(each).where(true())
    names = list(USAGE.c.keys())
    return sqlite.insert(USAGE).from_select(names, chosen).on_conflict_do_nothing()


def _postgresql_statement() -> Executable:
    rows = bindparam("rows", type_=Text)
    each = (
        func.jsonb_to_recordset(func.cast(rows, postgresql.JSONB))
        .table_valued(*(column(one.name, one.type) for one in USAGE.c), name="r")
        .render_derived(with_types=True)
    )
    names = list(USAGE.c.keys())
    chosen = select(*(each.c[name] for name in names))
    return postgresql.insert(USAGE).from_select(names, chosen).on_conflict_do_nothing()


_STATEMENTS = {"sqlite": _sqlite_statement, "postgresql": _postgresql_statement}
