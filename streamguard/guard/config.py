"""A guard's settings from a TOML file; errors name the key that is wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from streamguard.catalog import Catalog
from streamguard.errors import ConfigurationError
from streamguard.guard.settings import Cache, Queue, Settings, as_option
from streamguard.limits import Limit

_LIMIT_KEYS = {field.name for field in fields(Limit) if field.init}
_SETTING_KEYS = {field.name for field in fields(Settings)} - {"limits"}


def read_config(path: Path) -> dict[str, Any]:
    """The keyword arguments of ``Guard`` that the file says. A ``store`` or a value of ``[tell]``
    such as "env:NAME" is taken from the environment.

    ::

        store = "sqlite:///budgets.db"
        reserve_output = 2048

        [[limits]]
        tokens = 100_000
        per = "day"
        scope = ["tenant"]

        [models."my-model"]
        context_window = 32_000

        [tell]
        ledger = "sqlite:///usage.db"

    Raises:
        ConfigurationError: no such file, not TOML, or a key that is unknown or wrong.
    """
    try:
        given = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from error
    tell = given.pop("tell", None)
    result = parse_config(given, str(path))
    if tell is not None:
        from streamguard.sinks.configured import sinks_from

        result["sinks"] = sinks_from(tell, f"{path}: tell")
    return result


def parse_config(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Check a config's keys and build its values; ``where`` begins the error messages.

    Raises:
        ConfigurationError: a key that is unknown or wrong.
    """
    unknown = set(given) - _SETTING_KEYS - {"limits", "store", "models"}
    if unknown:
        known = sorted(_SETTING_KEYS | {"limits", "store", "models", "tell"})
        raise ConfigurationError(f"{where}: unknown keys {sorted(unknown)}; known: {known}")
    result: dict[str, Any] = {key: given[key] for key in _SETTING_KEYS & set(given)}
    if "store" in given:
        result["store"] = _store(given["store"], where)
    limits = given.get("limits", [])
    if not isinstance(limits, list):
        raise ConfigurationError(f"{where}: limits must be a list, written [[limits]]")
    result["limits"] = [_limit(one, f"{where}: limits[{at}]") for at, one in enumerate(limits)]
    try:
        if "models" in given:
            result["catalog"] = _catalog(given["models"])
        _check_settings(result)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error.message}") from error
    return result


def _store(given: Any, where: str) -> str:
    if not isinstance(given, str):
        raise ConfigurationError(f"{where}: store={given!r} must be a URL, such as 'memory://'")
    from streamguard.sinks.configured import from_environment

    found: str = from_environment(given, f"{where}: store")
    return found


def _catalog(given: Any) -> Catalog:
    if not isinstance(given, dict) or not all(isinstance(one, dict) for one in given.values()):
        raise ConfigurationError('models must be tables, written [models."NAME"]')
    return Catalog(given)


def _check_settings(given: Mapping[str, Any]) -> None:
    """Build the settings once, so that the error names the file."""
    as_option(Queue, given.get("queue"))
    as_option(Cache, given.get("cache"))
    names = (_SETTING_KEYS | {"limits"}) & set(given)
    Settings(**{name: given[name] for name in names - {"queue", "cache", "fit"}})


def _limit(given: Any, where: str) -> Limit:
    if not isinstance(given, dict):
        raise ConfigurationError(f"{where} must be a table, written [[limits]]")
    unknown = set(given) - _LIMIT_KEYS
    if unknown:
        known = sorted(_LIMIT_KEYS)
        raise ConfigurationError(f"{where}: unknown keys {sorted(unknown)}; known: {known}")
    try:
        return Limit(**given)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error.message}") from error
