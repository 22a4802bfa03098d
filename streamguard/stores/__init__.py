"""Where budgets are kept: one file a store, one line in ``STORES``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from urllib.parse import parse_qsl, urlencode, urlsplit

from streamguard.core.alone import FailPolicy
from streamguard.errors import ConfigurationError
from streamguard.stores.base import Store

_TLS = ("ca_certs", "certfile", "keyfile", "cert_reqs")
_WRAPPERS = ("fail", "batch")
_REDIS = ("timeout", "db", "username", "password", *(f"ssl_{name}" for name in _TLS))

STORES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "memory": ("streamguard.stores.memory", ()),
    "sqlite": ("streamguard.stores.sqlite", ("timeout",)),
    "redis": ("streamguard.stores.redis_urls", _REDIS),
    "rediss": ("streamguard.stores.redis_urls", _REDIS),
    "valkey": ("streamguard.stores.redis_urls", _REDIS),
    "redis+cluster": ("streamguard.stores.redis_urls", _REDIS),
    "rediss+cluster": ("streamguard.stores.redis_urls", _REDIS),
    "redis+sentinel": ("streamguard.stores.redis_urls", _REDIS),
}
"""URL scheme → the module whose ``from_url`` makes its store, and the options it takes."""


def open_store(store: str | Store | None = None) -> Store:
    """The store of a URL, or the store object itself; ``None`` is a new memory store.

    ======================================  ================================================
    ``memory://``                           one process
    ``sqlite:///path``                      several processes of one machine, persistent
    ``redis://host:port/db``, ``rediss:``   any number of machines
    ``valkey://host:port/db``               the same, Valkey
    ``redis+cluster://host:port``           Redis Cluster, from any of its nodes
    ``redis+sentinel://h:p,h:p/service``    the master that the Sentinels name
    ======================================  ================================================

    Every URL takes ``?fail=`` closed, open, or this worker's share (``policy.PolicyStore``), and
    ``?batch=`` seconds (``batching.BatchingStore``). Nothing is connected yet: the guard calls
    ``open``.

    Raises:
        ConfigurationError: no store has this scheme, or the URL is not what it needs; an option
            that is none is refused, since a policy that is not read would not be missed.
    """
    if store is None:
        store = "memory://"
    if not isinstance(store, str):
        return store
    url, wrappers = _split(store)
    scheme = urlsplit(url).scheme.lower()
    if scheme not in STORES:
        told = repr(scheme) if scheme else "a URL without a scheme"
        message = f"no store for {told}; use one of {', '.join(STORES)}"
        raise ConfigurationError(message)
    module, options = STORES[scheme]
    _check_options(url, options)
    try:
        make: Callable[[str], Store] = import_module(module).from_url
    except ImportError as error:
        message = f"{scheme}:// needs a package that is missing: pip install 'streamguard[redis]'"
        raise ConfigurationError(message) from error
    return _wrap(make(url), wrappers)


def _check_options(url: str, options: Sequence[str]) -> None:
    given = [key for key, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True)]
    unknown = [key for key in given if key not in options]
    if unknown:
        known = ", ".join((*_WRAPPERS, *options))
        message = f"unknown ?{unknown[0]}= in the store's URL; it takes {known}"
        raise ConfigurationError(message)


def _split(url: str) -> tuple[str, dict[str, str]]:
    """A URL without ``fail`` and ``batch``, and these."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    wrappers = {key: value for key, value in pairs if key in _WRAPPERS}
    if not wrappers:
        return url, {}
    query = urlencode([(key, value) for key, value in pairs if key not in wrappers])
    # Cut, not put together again: urlunsplit loses slashes of sqlite:///path and sqlite:////path.
    bare = url.partition("?")[0]
    return f"{bare}?{query}" if query else bare, wrappers


def _wrap(store: Store, wrappers: Mapping[str, str]) -> Store:
    if "fail" in wrappers:
        from streamguard.stores.policy import PolicyStore

        fail, timeout = wrappers["fail"], 1.25 * getattr(store, "timeout", 1.0)
        named: dict[str, FailPolicy] = {"closed": "closed", "open": "open"}
        policy = named[fail] if fail in named else _number("fail", fail, "closed, open or ")
        store = PolicyStore(store, policy=policy, timeout=timeout)
    if "batch" in wrappers:
        from streamguard.stores.batching import BatchingStore

        store = BatchingStore(store, max_age=_number("batch", wrappers["batch"]))
    return store


def _number(name: str, text: str, others: str = "") -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not value > 0:
        message = f"?{name}={text!r} in the store's URL must be {others}a number over 0"
        raise ConfigurationError(message)
    return value
