"""Where budgets are kept: one file a store, one line in ``STORES``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from urllib.parse import urlsplit

from streamguard.errors import ConfigurationError
from streamguard.stores.base import Store

STORES: Mapping[str, tuple[str, str]] = {
    "memory": ("streamguard.stores.memory", "from_url"),
    "sqlite": ("streamguard.stores.sqlite", "from_url"),
    "redis": ("streamguard.stores.redis_urls", "from_url"),
    "rediss": ("streamguard.stores.redis_urls", "from_url"),
    "valkey": ("streamguard.stores.redis_urls", "from_url"),
    "redis+cluster": ("streamguard.stores.redis_urls", "from_url"),
    "rediss+cluster": ("streamguard.stores.redis_urls", "from_url"),
    "redis+sentinel": ("streamguard.stores.redis_urls", "from_url"),
}
"""URL scheme → the module and the function in it that makes the store of a URL."""


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

    Nothing is connected yet: the guard calls ``open``.

    Raises:
        ConfigurationError: no store has this scheme, or the URL is not what it needs.
    """
    if store is None:
        store = "memory://"
    if not isinstance(store, str):
        return store
    scheme = urlsplit(store).scheme.lower()
    if scheme not in STORES:
        message = f"no store for {scheme or 'no scheme'!r}; use one of {', '.join(STORES)}"
        raise ConfigurationError(message)
    module, function = STORES[scheme]
    try:
        make: Callable[[str], Store] = getattr(import_module(module), function)
    except ImportError as error:
        message = f"{scheme}:// needs a package that is missing: pip install 'streamguard[redis]'"
        raise ConfigurationError(message) from error
    return make(store)
