"""The gateway's configuration: one TOML file, checked whole, read again when it changes."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from streamguard.errors import ConfigurationError
from streamguard.gateway.upstreams import Upstream
from streamguard.guard.config import parse_config
from streamguard.limits import Limit

_OWN = {"upstreams", "keys", "ledger", "plans", "tenants", "live_page", "host", "port"}
_UPSTREAM_KEYS = {one.name for one in fields(Upstream)} - {"key"}


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """What one file says.

    Attributes:
        upstreams: the providers, in the order they are tried.
        limits: budgets of everybody.
        plans: further budgets by plan.
        tenants: the plan of each tenant.
        keys: SQL URL of the virtual keys; empty lets callers' own keys through.
        ledger: SQL URL of the usage ledger; empty writes none.
        live_page: password of the live page; empty serves none.
        guard: keyword arguments of the guard.
    """

    upstreams: tuple[Upstream, ...]
    limits: tuple[Limit, ...] = ()
    plans: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict)
    tenants: Mapping[str, str] = field(default_factory=dict)
    keys: str = ""
    ledger: str = ""
    live_page: str = ""
    host: str = "127.0.0.1"
    port: int = 8383
    guard: Mapping[str, Any] = field(default_factory=dict)

    def limits_for(self, tenant: str | None) -> Sequence[Limit]:
        """Everybody's budgets and those of the tenant's plan."""
        plan = self.tenants.get(tenant or "", self.tenants.get("*", ""))
        return (*self.limits, *self.plans.get(plan, ()))


def read_gateway(path: Path) -> GatewayConfig:
    """The file's configuration.

    Raises:
        ConfigurationError: with the file, the line and the key that is wrong.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from error
    try:
        return _parse(given)
    except ConfigurationError as error:
        raise ConfigurationError(f"{_place(path, text, error.message)}: {error.message}") from error


def _parse(given: Mapping[str, Any]) -> GatewayConfig:
    own = {key: given[key] for key in _OWN & set(given)}
    guard = parse_config({k: v for k, v in given.items() if k not in _OWN}, "config")
    upstreams = tuple(
        _upstream(one, f"upstreams[{at}]") for at, one in enumerate(_tables(own, "upstreams"))
    )
    plans = {
        name: tuple(parse_config({"limits": _tables(plan, "limits")}, f"plans.{name}")["limits"])
        for name, plan in _table(own, "plans").items()
    }
    tenants = _table(own, "tenants")
    lost = sorted({plan for plan in tenants.values() if plan not in plans})
    if lost:
        raise ConfigurationError(f"tenants: no such plans {lost}; plans are {sorted(plans)}")
    settings = {
        key: _typed(own, key, kind)
        for key, kind in (("keys", str), ("ledger", str), ("live_page", str), ("host", str),
                          ("port", int))
        if key in own
    }  # fmt: skip
    limits = tuple(guard.pop("limits"))
    return GatewayConfig(upstreams, limits, plans, tenants, guard=guard, **settings)


def _upstream(given: Any, where: str) -> Upstream:
    if not isinstance(given, dict) or "url" not in given:
        raise ConfigurationError(f"{where}: needs a url")
    unknown = set(given) - _UPSTREAM_KEYS
    if unknown:
        message = f"{where}: unknown keys {sorted(unknown)}; known: {sorted(_UPSTREAM_KEYS)}"
        raise ConfigurationError(message)
    values = {**given, "models": tuple(given.get("models", ("*",)))}
    try:
        return Upstream(**values)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error.message}") from error


def _tables(given: Mapping[str, Any], key: str) -> list[Any]:
    value = given.get(key, [])
    if not isinstance(value, list):
        raise ConfigurationError(f"{key} must be a list of tables, written [[{key}]]")
    return value


def _table(given: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = given.get(key, {})
    if not isinstance(value, dict):
        raise ConfigurationError(f"{key} must be a table, written [{key}]")
    return value


def _typed(given: Mapping[str, Any], key: str, kind: type) -> Any:
    if type(given[key]) is not kind:
        raise ConfigurationError(f"{key}={given[key]!r} must be a {kind.__name__}")
    return given[key]


_INDEX = re.compile(r"\b([\w.]+)\[(\d+)\]")
_NAME = re.compile(r"'([\w-]+)'|\b([a-z_]+)=")


def _place(path: Path, text: str, message: str) -> str:
    """``file:line`` of the key that a message names, as near as the text tells."""
    lines = text.splitlines()
    start = 0
    index = _INDEX.search(message)
    if index is not None:
        heads = [at for at, line in enumerate(lines) if f"[[{index[1].split('.')[-1]}]]" in line]
        start = heads[int(index[2])] if int(index[2]) < len(heads) else 0
    for found in _NAME.finditer(message):
        name = found[1] or found[2]
        for at in range(start, len(lines)):
            if re.match(rf"\s*\[*\s*\"?{re.escape(name)}\"?\s*[\]=.]", lines[at]):
                return f"{path}:{at + 1}"
    return f"{path}:{start + 1}"
