"""The usage ledger's table, its indexes, and how an older database is brought up to date.

The primary key begins with the time, so TimescaleDB and PostgreSQL's own partitioning can
split the table by it. Every query's index covers it. Calls made inside another guarded call
are kept but not indexed: the outer call's figures hold theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Engine,
    Float,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    func,
    inspect,
    select,
    text,
)
from sqlalchemy.engine import make_url

from streamguard.errors import ConfigurationError
from streamguard.sinks.ledger_row import UsageRow

DIMENSIONS = {
    "tenant": "tenant",
    "user": "user_id",
    "feature": "feature",
    "model": "model",
    "endpoint": "endpoint",
}
"""How a dimension of ``Limit`` is called in the table."""

METADATA = MetaData()
_TYPES = {"int": BigInteger, "float": Float, "str": Text}
_KEY = ("at", "request_id")


def _column(name: str, annotation: str) -> Column[object]:
    kind = _TYPES[annotation.partition(" ")[0]]
    key = name in _KEY
    return Column(name, kind(), primary_key=key, autoincrement=False, nullable="None" in annotation)


USAGE = Table(
    "streamguard_usage",
    METADATA,
    *(_column(name, UsageRow.__annotations__[name]) for name in UsageRow.__struct_fields__),
)
_VERSION = Table(
    "streamguard_usage_version",
    METADATA,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("applied_at", Float, nullable=False),
)

_FIGURES = ("event", "outcome", "charged_input", "charged_output", "cost_nano_usd")
_TOP = USAGE.c.within.is_(None)
_INDEXES: dict[str, Index] = {}


def _index(name: str, *columns: str, where: object = _TOP) -> None:
    _INDEXES[name] = Index(
        f"ix_streamguard_usage_{name}",
        *(USAGE.c[column] for column in columns),
        USAGE.c.within,  # SQLite asks for it again, though the index is of those without one
        sqlite_where=where,
        postgresql_where=where,
    )


for _name, _dimension in DIMENSIONS.items():
    _index(_name, _dimension, "at", *_FIGURES)
_index("period", "at", *_FIGURES, "charged_cached", "charged_cache_write")
_index("size", "total_tokens", "at")
_index(
    "conversation",
    "conversation",
    "at",
    "counted_input",
    where=_TOP & USAGE.c.conversation.is_not(None),
)
_index(
    "drift",
    *("model", "method", "at"),
    *("counted_input", "reported_input", "counted_output", "reported_output"),
    where=_TOP & USAGE.c.reported_input.is_not(None),
)


def _add_cache_writes(connection: Connection) -> None:
    known = {column["name"] for column in inspect(connection).get_columns(USAGE.name)}
    for name in ("reported_cache_write", "charged_cache_write"):
        if name not in known:
            connection.execute(text(f"ALTER TABLE {USAGE.name} ADD COLUMN {name} BIGINT"))
    _INDEXES["period"].drop(connection, checkfirst=True)
    _INDEXES["period"].create(connection)


Step = Callable[[Connection], None]
VERSION = 2
STEPS: Mapping[int, Step] = {2: _add_cache_writes}
"""From version to version: ``STEPS[n]`` makes a database of version n-1 one of version n."""


def database_url(url: str) -> str:
    """The URL with the driver that the ledger uses.

    Raises:
        ConfigurationError: no URL of SQLite or PostgreSQL.
    """
    scheme, found, rest = url.partition("://")
    drivers = {
        "sqlite": "sqlite",
        "postgres": "postgresql+psycopg",
        "postgresql": "postgresql+psycopg",
        "postgresql+psycopg": "postgresql+psycopg",
    }
    if not found or scheme not in drivers:
        raise ConfigurationError(
            f"a ledger is sqlite:///FILE or postgresql://HOST/NAME, not {scheme!r}"
        )
    return f"{drivers[scheme]}://{rest}"


def shown_url(url: str) -> str:
    """The URL without its password."""
    return make_url(database_url(url)).render_as_string(hide_password=True)


def migrate(engine: Engine, *, version: int = VERSION, steps: Mapping[int, Step] = STEPS) -> int:
    """Create the tables, or bring older ones to ``version``, in one transaction.

    Processes that start at once wait for each other. Returns the version found, 0 for none.

    Raises:
        ConfigurationError: the database is of a newer streamguard.
        SQLAlchemyError: the database is out of reach.
    """
    with engine.begin() as connection:
        _alone(connection)
        found = _found(connection)
        if found > version:
            raise ConfigurationError(
                f"the usage ledger has schema version {found}, this streamguard knows {version}; "
                "upgrade streamguard"
            )
        if found == 0:
            METADATA.create_all(connection)
        for number in range(found + 1, version + 1) if found else ():
            steps[number](connection)
        if found < version:
            connection.execute(_VERSION.insert().values(version=version, applied_at=time.time()))
        return found


def _alone(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(731465702)"))
    else:
        connection.execute(text("BEGIN IMMEDIATE"))


def _found(connection: Connection) -> int:
    if not inspect(connection).has_table(_VERSION.name):
        return 0
    return connection.execute(select(func.max(_VERSION.c.version))).scalar() or 0
