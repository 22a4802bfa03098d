"""Redis stores from URLs."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import Sentinel

from streamguard.errors import ConfigurationError
from streamguard.stores.redis import RedisStore
from streamguard.stores.redis_cluster import ClusterPipe
from streamguard.stores.redis_pipe import Address, RedisPipe

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


def _known(url: str) -> Mapping[str, Any]:
    try:
        return parse_url(url)
    except ValueError as error:
        message = f"the Redis URL is not one redis-py reads: {error}"
        raise ConfigurationError(message) from error


def _maker(known: Mapping[str, Any], timeout: float) -> Callable[[Address], RedisPipe]:
    """How to connect to a node as a URL says."""
    tls = _tls(known) if known.get("connection_class") is not None else None

    def make(place: Address) -> RedisPipe:
        async def find() -> Address:
            return place

        return RedisPipe(
            find,
            username=known.get("username"),
            password=known.get("password"),
            db=int(known.get("db", 0)),
            tls=tls,
            patience=timeout,
        )

    return make


def _single(url: str, timeout: float) -> Callable[[], Any]:
    known = _known(url)
    return lambda: _maker(known, timeout)(_place(known))


def _cluster(url: str, timeout: float) -> Callable[[], Any]:
    known = _known(url)
    return lambda: ClusterPipe([_place(known)], _maker(known, timeout))


def _place(known: Mapping[str, Any]) -> Address:
    return known.get("host", "localhost"), known.get("port", 6379)


def _tls(known: Mapping[str, Any]) -> ssl.SSLContext:
    """The context of ``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile``, ``ssl_cert_reqs``."""
    context = ssl.create_default_context(cafile=known.get("ssl_ca_certs"))
    if known.get("ssl_certfile"):
        context.load_cert_chain(known["ssl_certfile"], known.get("ssl_keyfile"))
    if known.get("ssl_cert_reqs") == "none":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _sentinel(url: str, timeout: float) -> Callable[[], Any]:
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not service or not hosts:
        message = "a Sentinel URL needs the service: redis+sentinel://host:26379/mymaster"
        raise ConfigurationError(message)
    username, _, password = login.partition(":")
    places = [_host(host) for host in hosts.split(",")]

    async def find() -> tuple[str, int]:
        watch: Callable[..., Any] = Sentinel
        sentinel = watch(places, socket_timeout=timeout, socket_connect_timeout=timeout)
        try:
            host, port = await sentinel.discover_master(service)
            return host, int(port)
        finally:
            for client in sentinel.sentinels:
                await client.aclose()

    return lambda: RedisPipe(
        find,
        username=username or None,
        password=password or None,
        db=int(database or 0),
        patience=timeout,
    )


def _host(text: str) -> tuple[str, int]:
    host, _, port = text.partition(":")
    return host, int(port or SENTINEL_PORT)
