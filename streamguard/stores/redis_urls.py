"""Redis stores from URLs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from streamguard.errors import ConfigurationError
from streamguard.stores.redis import RedisStore

SENTINEL_PORT = 26_379


def from_url(url: str) -> RedisStore:
    """The store of a Redis URL; ``?timeout=`` is seconds for each call.

    ``redis://``, ``rediss://`` and ``valkey://`` as redis-py reads them;
    ``redis+cluster://host:port``; ``redis+sentinel://host:port,host:port/service/db``.

    Raises:
        ConfigurationError: the URL is not what its scheme needs.
    """
    parts = urlsplit(url)
    timeout = _number(parse_qs(parts.query).get("timeout", ["1"])[0])
    bare = urlunsplit(parts._replace(query=_without_timeout(parts.query)))
    scheme, _, kind = parts.scheme.partition("+")
    if kind == "cluster":
        target = "redis" + bare.removeprefix(parts.scheme)
        return RedisStore(_cluster(target, timeout), cluster=True, timeout=timeout)
    if kind == "sentinel":
        return RedisStore(_sentinel(bare, timeout), timeout=timeout)
    if scheme == "valkey":
        bare = "redis" + bare.removeprefix(scheme)
    return RedisStore(_single(bare, timeout), timeout=timeout)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        message = f"timeout={text!r} is not a number of seconds"
        raise ConfigurationError(message) from error


def _without_timeout(query: str) -> str:
    return "&".join(part for part in query.split("&") if not part.startswith("timeout="))


def _options(timeout: float) -> dict[str, Any]:
    """One more attempt on a broken connection: every operation is idempotent. The store bounds
    the whole call's time; the socket's own limit only ends a connection attempt.
    """
    return {
        "retry": Retry(NoBackoff(), 1),
        "socket_timeout": None,
        "socket_connect_timeout": timeout,
    }


def _single(url: str, timeout: float) -> Callable[[], Any]:
    return lambda: Redis.from_url(url, **_options(timeout))


def _cluster(url: str, timeout: float) -> Callable[[], Any]:
    return lambda: RedisCluster.from_url(url, **_options(timeout))


def _sentinel(url: str, timeout: float) -> Callable[[], Any]:
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not hosts:
        message = "a Sentinel URL needs the service: redis+sentinel://host:26379/mymaster"
        raise ConfigurationError(message)
    username, _, password = login.partition(":")
    options = {
        **_options(timeout),
        "db": int(database or 0),
        "username": username or None,
        "password": password or None,
    }
    places = [_host(host) for host in hosts.split(",")]
    sentinel: Callable[..., Any] = Sentinel
    return lambda: sentinel(places, **_options(timeout)).master_for(service, **options)


def _host(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    return host, int(port or SENTINEL_PORT)
