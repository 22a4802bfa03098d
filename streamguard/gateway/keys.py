"""Virtual keys: clients present them, the gateway knows only their hashes."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

import anyio
import anyio.to_thread
from sqlalchemy import Column, Float, MetaData, String, Table, create_engine, select, update
from sqlalchemy.engine import Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from streamguard.errors import ConfigurationError, StoreUnavailableError
from streamguard.identity import Identity

PREFIX = "sg-"
KNOWN_SECONDS = 5.0
"""How long an answer is believed: a revoked key works this long at most."""

ANSWER_SECONDS = 5.0
"""How long the database may take to answer."""

_CACHED = 50_000

_KEYS = Table(
    "streamguard_keys",
    MetaData(),
    Column("hash", String(64), primary_key=True),
    Column("hint", String(16), nullable=False),
    Column("tenant", String(200)),
    Column("user", String(200)),
    Column("feature", String(200)),
    Column("created", Float, nullable=False),
    Column("revoked", Float),
)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as it is listed: never the key itself."""

    hint: str
    identity: Identity
    created: float
    revoked: float | None


class _Known(NamedTuple):
    identity: Identity | None
    until: float


def hashed(key: str) -> str:
    """What is stored of a key. Keys are random, so a plain hash cannot be searched."""
    return sha256(key.encode("utf-8", "replace")).hexdigest()


class KeyRing:
    """Creates, lists, revokes and looks up virtual keys in an SQL database."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        """Open the table at a SQLAlchemy URL, ``sqlite:///keys.db``; it is made when missing.

        Raises:
            ConfigurationError: no database can be reached there.
        """
        self._engine = _connect(url)
        self._clock = clock
        self._known: dict[str, _Known] = {}

    def create(self, identity: Identity) -> str:
        """A new key for an identity; it cannot be shown again."""
        key = PREFIX + secrets.token_urlsafe(30)
        row = {
            "hash": hashed(key),
            "hint": f"{key[:7]}…{key[-4:]}",
            "tenant": identity.tenant,
            "user": identity.user,
            "feature": identity.feature,
            "created": time.time(),
        }
        with _told(), self._engine.begin() as connection:
            connection.execute(_KEYS.insert().values(row))
        return key

    def list(self) -> list[KeyRecord]:
        """All keys, oldest first."""
        with _told(), self._engine.connect() as connection:
            rows = connection.execute(select(_KEYS).order_by(_KEYS.c.created)).all()
        return [
            KeyRecord(
                row.hint, Identity(row.tenant, row.user, row.feature), row.created, row.revoked
            )
            for row in rows
        ]

    def revoke(self, hint: str) -> int:
        """Revoke the keys shown as ``hint``; how many there were."""
        change = update(_KEYS).where(_KEYS.c.hint == hint, _KEYS.c.revoked.is_(None))
        with _told(), self._engine.begin() as connection:
            return connection.execute(change.values(revoked=time.time())).rowcount

    async def identity(self, key: str) -> Identity | None:
        """Who a key belongs to; ``None`` for unknown and revoked ones.

        Raises:
            StoreUnavailableError: the database is out of reach.
        """
        digest = hashed(key)
        known = self._known.get(digest)
        if known is not None and known.until > self._clock():
            return known.identity
        found = await self._ask(digest)
        if len(self._known) >= _CACHED:
            self._known.clear()
        self._known[digest] = _Known(found, self._clock() + KNOWN_SECONDS)
        return found

    async def reachable(self) -> bool:
        """Whether the database answers."""
        try:
            await self._ask("")
        except StoreUnavailableError:
            return False
        return True

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    async def _ask(self, digest: str) -> Identity | None:
        try:
            with anyio.fail_after(ANSWER_SECONDS):
                return await anyio.to_thread.run_sync(self._find, digest, abandon_on_cancel=True)
        except TimeoutError as error:
            raise _out_of_reach(error) from error

    def _find(self, digest: str) -> Identity | None:
        query = select(_KEYS).where(_KEYS.c.hash == digest, _KEYS.c.revoked.is_(None))
        with _told(), self._engine.connect() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Identity(row.tenant, row.user, row.feature)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Database errors as ours: the driver's own text may hold the URL and the statement."""
    try:
        yield
    except SQLAlchemyError as error:
        raise _out_of_reach(error) from error


def _out_of_reach(error: Exception) -> StoreUnavailableError:
    return StoreUnavailableError(
        f"the key database is out of reach ({type(error).__name__}); try again"
    )


def checked_url(url: str) -> str:
    """The URL, if a key database can be at one like it.

    Raises:
        ConfigurationError: no URL, another kind of database, or one that is lost at the end. The
            message does not show it: it may hold a password.
    """
    scheme, _, rest = url.partition("://")
    if scheme.partition("+")[0] not in ("sqlite", "postgresql") or not rest:
        raise ConfigurationError("keys= must be sqlite:///FILE or postgresql://USER@HOST/NAME")
    file = rest.partition("?")[0].strip("/")
    if scheme.startswith("sqlite") and file in ("", ":memory:"):
        raise ConfigurationError("keys= in memory would be lost; use sqlite:///FILE")
    return url


def _connect(url: str) -> Engine:
    full = checked_url(url).replace("postgresql://", "postgresql+psycopg://")
    # A connection to a file costs nothing to make, and is closed where it was used.
    pooled: dict[str, Any] = (
        {"poolclass": NullPool} if full.startswith("sqlite") else {"pool_pre_ping": True}
    )
    try:
        engine = create_engine(full, **pooled)
        _create(engine)
    except ImportError as error:
        message = f"the key database needs {error.name}; pip install 'streamguard[postgres]'"
        raise ConfigurationError(message) from error
    except (SQLAlchemyError, ValueError) as error:  # a port that is no number is the latter
        kind = "file and its folder" if full.startswith("sqlite") else "server and the URL"
        message = f"the key database cannot be opened ({type(error).__name__}); check the {kind}"
        raise ConfigurationError(message) from error
    return engine


def _create(engine: Engine) -> None:
    try:
        _KEYS.metadata.create_all(engine)
    except SQLAlchemyError:  # another worker made the table just now, or it fails again
        _KEYS.metadata.create_all(engine)
