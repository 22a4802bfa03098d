"""A guard's or a gateway's TOML file, as the commands read it."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from streamguard.catalog import Catalog
from streamguard.errors import ConfigurationError
from streamguard.guard.config import read_config
from streamguard.guard.settings import Cache, Queue, Settings, as_option
from streamguard.guard.store_policies import with_policies
from streamguard.limits import Limit
from streamguard.planner.fitting import as_fit
from streamguard.stores.memory import MemoryStore

_GATEWAY = {"upstreams", "keys", "ledger", "plans", "tenants", "live_page", "host", "port"}


@dataclass(frozen=True)
class Loaded:
    """What a file puts in force.

    Attributes:
        limits: everybody's budgets.
        plans: further budgets by plan (a gateway's).
        limits_for: the budgets of a tenant.
        store: the budget store's URL.
        upstreams: the hosts a gateway forwards to.
    """

    settings: Settings
    catalog: Catalog
    store: str
    limits: Sequence[Limit]
    limits_for: Callable[[str], Sequence[Limit]]
    plans: Mapping[str, Sequence[Limit]] = field(default_factory=dict)
    tenants: Mapping[str, str] = field(default_factory=dict)
    upstreams: Sequence[str] = ()


def load(path: Path) -> Loaded:
    """Read and check a file; a gateway's is told by its keys.

    Raises:
        ConfigurationError: with the file and the key that is wrong.
    """
    if _is_gateway(path):
        from streamguard.gateway.config import read_gateway

        given = read_gateway(path)
        return _loaded(
            given.guard,
            given.limits,
            given.limits_for,
            plans=given.plans,
            tenants=given.tenants,
            upstreams=[each.url for each in given.upstreams],
        )
    guard = read_config(path)
    limits = guard.pop("limits")
    guard.pop("sinks", None)
    try:
        return _loaded(guard, limits, lambda _tenant: limits)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error.message}") from error


def _is_gateway(path: Path) -> bool:
    try:
        return bool(_GATEWAY & set(tomllib.loads(path.read_text("utf-8"))))
    except (OSError, ValueError):
        return False  # the guard's reader says what is wrong


def _loaded(
    guard: Mapping[str, Any],
    limits: Sequence[Limit],
    limits_for: Callable[[str], Sequence[Limit]],
    **more: Any,
) -> Loaded:
    rest = dict(guard)
    catalog, store = rest.pop("catalog", None) or Catalog(), rest.pop("store", "memory://")
    rest["fit"] = as_fit(rest.get("fit"))
    rest["queue"] = as_option(Queue, rest.get("queue"))
    rest["cache"] = as_option(Cache, rest.get("cache"))
    settings = Settings(limits=tuple(limits), **rest)
    with_policies(MemoryStore(), settings, lambda _name, _error: None)  # refuses what is none
    return Loaded(settings, catalog, store, limits, limits_for, **more)
