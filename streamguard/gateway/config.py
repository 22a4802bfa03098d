"""The gateway's configuration: one TOML file, checked whole, read again when it changes."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from streamguard.errors import ConfigurationError
from streamguard.facade import Guard
from streamguard.gateway.places import line_of
from streamguard.gateway.telling import told_by
from streamguard.gateway.upstreams import Upstream
from streamguard.guard.config import parse_config
from streamguard.guard.settings import Settings
from streamguard.limits import Limit
from streamguard.live.door import Door
from streamguard.sinks.configured import from_environment, placed

DEFAULT_STORE = "sqlite:///streamguard-budgets.db"
"""Budgets survive a restart."""

_TABLES = {"upstreams", "plans", "tenants", "tell"}
_ALSO_IN_TELL = {"ledger": "ledger", "ledger_spool": "spool"}
_KINDS = {str: "a string", int: "a whole number"}
_SETTINGS: dict[str, tuple[type, ...]] = {
    "keys": (str,),
    "ledger": (str,),
    "ledger_spool": (str,),
    "live_page": (str,),
    "host": (str,),
    "port": (int,),
    "shutdown_seconds": (int, float),
}
_KNOWN = {*_SETTINGS, *_TABLES, *(one.name for one in fields(Settings)), "store", "models"}
_UPSTREAM_KEYS = {one.name for one in fields(Upstream)} - {"key"}


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """What one file says.

    Attributes:
        upstreams: the providers, in the order they are tried.
        limits: budgets of everybody.
        plans: further budgets by plan.
        tenants: the plan of each tenant; ``*`` is the plan of all others.
        keys: SQL URL of the virtual keys; empty lets callers' own keys through.
        ledger: SQL URL of the usage ledger; empty writes none.
        ledger_spool: the folder where rows wait for a database that is away.
        live_page: password of the live page; empty serves none.
        tell: who else is told, as the file says it; the ledger in it is ``ledger``.
        host: address to listen on.
        port: port to listen on.
        shutdown_seconds: how long running streams may go on after SIGTERM.
        guard: keyword arguments of the guard.
    """

    upstreams: tuple[Upstream, ...]
    limits: tuple[Limit, ...] = ()
    plans: Mapping[str, tuple[Limit, ...]] = field(default_factory=dict)
    tenants: Mapping[str, str] = field(default_factory=dict)
    keys: str = ""
    ledger: str = ""
    ledger_spool: str = ""
    live_page: str = field(default="", repr=False)
    tell: Mapping[str, Any] = field(default_factory=dict, repr=False)
    host: str = "127.0.0.1"
    port: int = 8383
    shutdown_seconds: float = 30.0
    guard: Mapping[str, Any] = field(default_factory=lambda: {"store": DEFAULT_STORE})

    def limits_for(self, tenant: str | None) -> Sequence[Limit]:
        """Everybody's budgets and those of the tenant's plan."""
        plan = self.tenants.get(tenant or "", self.tenants.get("*", ""))
        return (*self.limits, *self.plans.get(plan, ()))

    def needs_restart(self, other: GatewayConfig) -> list[str]:
        """The settings that differ and that a running gateway cannot take up."""
        names = [
            name for name in (*_SETTINGS, "tell") if getattr(self, name) != getattr(other, name)
        ]
        mine, theirs = ({k: v for k, v in one.guard.items() if k != "catalog"}
                        for one in (self, other))  # fmt: skip
        changed = {key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}
        return [*names, *sorted(changed)]


def read_gateway(path: Path) -> GatewayConfig:
    """The file's configuration.

    Raises:
        ConfigurationError: with the file, the line and the key that is wrong.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8: {error.reason}") from error
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from error
    try:
        return parse_gateway(given)
    except ConfigurationError as error:
        place = f"{path}:{line_of(text, error.message)}"
        raise ConfigurationError(f"{place}: {error.message}") from error


def parse_gateway(given: Mapping[str, Any]) -> GatewayConfig:
    """The configuration that a TOML document says.

    Raises:
        ConfigurationError: naming the key.
    """
    own = {key: given[key] for key in given if key in _SETTINGS or key in _TABLES}
    _check_keys(given, _KNOWN, "config: ")
    guard = _guard({key: value for key, value in given.items() if key not in own})
    upstreams = tuple(
        _upstream(one, f"upstreams[{at}]") for at, one in enumerate(_tables(own, "upstreams"))
    )
    if not upstreams:
        raise ConfigurationError("upstreams: there is none; add [[upstreams]] with its url")
    plans = {name: _plan(name, plan) for name, plan in _table(own, "plans").items()}
    tenants = _tenants(_table(own, "tenants"), plans)
    tell = _tell(own)
    settings = {key: _setting(key, own[key]) for key in _SETTINGS if key in own}
    _check_settings(settings)
    limits = tuple(guard.pop("limits"))
    for name, plan in plans.items():
        _check_names(f"plans.{name}", (*limits, *plan))
    return GatewayConfig(upstreams, limits, plans, tenants, tell=tell, guard=guard, **settings)


def _guard(given: Mapping[str, Any]) -> dict[str, Any]:
    """The guard's keyword arguments; trying them finds wrong values before the start."""
    found = parse_config(given, "config")
    found["store"] = from_environment(found.get("store", DEFAULT_STORE), "store")
    try:
        Guard(**found, sinks=[])
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"config: a setting of the wrong kind: {error}") from error
    return found


def _tell(own: dict[str, Any]) -> dict[str, Any]:
    """Who else is told; the ledger that ``[tell]`` names becomes the gateway's."""
    tell = _table(own, "tell")
    told_by(tell)
    for key, there in _ALSO_IN_TELL.items():
        if there in tell and key in own:
            raise ConfigurationError(f"tell.{there} and {key}= are one setting; keep one of them")
        if there in tell:
            own[key] = tell.pop(there)
    return tell


def _plan(name: str, given: Any) -> tuple[Limit, ...]:
    where = f"plans.{name}"
    if not isinstance(given, dict) or set(given) - {"limits"}:
        message = f"{where}: a plan holds limits only, written [[{where}.limits]]"
        raise ConfigurationError(message)
    if not isinstance(given.get("limits", []), list):
        raise ConfigurationError(f"{where}: limits must be tables, written [[{where}.limits]]")
    return tuple(parse_config(given, where)["limits"])


def _tenants(given: Mapping[str, Any], plans: Mapping[str, Any]) -> dict[str, str]:
    for tenant, plan in given.items():
        if not isinstance(plan, str) or plan not in plans:
            message = f"tenants.{tenant}: {plan!r} is no plan; plans are {sorted(plans)}"
            raise ConfigurationError(message)
    return dict(given)


def _check_names(where: str, limits: Sequence[Limit]) -> None:
    names = [limit.name for limit in limits]
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        message = f"{where}: limits share the names {double}; give each its own name="
        raise ConfigurationError(message)


def _upstream(given: Any, where: str) -> Upstream:
    if not isinstance(given, dict):
        raise ConfigurationError(f"{where}: must be a table, written [[upstreams]]")
    _check_keys(given, _UPSTREAM_KEYS, f"{where}: ")
    if "url" not in given:
        raise ConfigurationError(f"{where}: needs a url")
    values = {**given, "models": given.get("models", ["*"])}
    for key, value in values.items():
        if not (_strings(value) if key == "models" else isinstance(value, str)):
            kind = "a list of strings" if key == "models" else "a string"
            raise ConfigurationError(f"{where}: {key}={value!r} must be {kind}")
    try:
        return Upstream(**{**values, "models": tuple(values["models"])})
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error.message}") from error


def _check_keys(given: Iterable[str], known: set[str], where: str) -> None:
    """Refuse unknown keys; say what they look like."""
    unknown = sorted(set(given) - known)
    near = [get_close_matches(key, known, 1) for key in unknown]
    meant = " and ".join(f"{one[0]!r}" for one in near if one)
    asked = f", did you mean {meant}?" if meant else ""
    if unknown:
        message = f"{where}unknown keys {unknown}{asked}; known: {sorted(known)}"
        raise ConfigurationError(message)


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _tables(given: Mapping[str, Any], key: str) -> list[Any]:
    value = given.get(key, [])
    if not isinstance(value, list):
        raise ConfigurationError(f"{key} must be a list of tables, written [[{key}]]")
    return value


def _table(given: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = given.get(key, {})
    if not isinstance(value, dict):
        raise ConfigurationError(f"{key} must be a table, written [{key}]")
    return dict(value)


def _setting(key: str, value: Any) -> Any:
    kinds = _SETTINGS[key]
    if type(value) not in kinds:
        words = "a number" if len(kinds) > 1 else _KINDS[kinds[0]]
        raise ConfigurationError(f"{key}={value!r} must be {words}")
    if not isinstance(value, str) and not 0 <= value <= 65_535:  # noqa: PLR2004
        raise ConfigurationError(f"{key}={value!r} must be between 0 and 65535")
    return from_environment(value, key)


def _check_settings(given: Mapping[str, Any]) -> None:
    """What opening them would find wrong; without the extra they need, the start tells of that."""
    if given.get("live_page"):
        with placed("live_page"):
            Door(given["live_page"])
    with suppress(ImportError):
        from streamguard.gateway.keys import checked_url
        from streamguard.sinks.ledger import LedgerSink

        if given.get("keys"):
            checked_url(given["keys"])
        if given.get("ledger"):
            with placed("ledger"):
                LedgerSink(given["ledger"], spool=given.get("ledger_spool") or None)
