"""A guard's settings from a TOML file; errors name the key that is wrong."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from streamguard.catalog import Catalog
from streamguard.errors import ConfigurationError
from streamguard.guard.settings import Settings
from streamguard.limits import Limit

_LIMIT_KEYS = {field.name for field in fields(Limit) if field.init}
_SETTING_KEYS = {field.name for field in fields(Settings)} - {"limits"}


def read_config(path: Path) -> dict[str, Any]:
    """The keyword arguments of ``Guard`` that the file says.

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
    """Check a config's keys and build its values; ``where`` begins the error messages."""
    unknown = set(given) - _SETTING_KEYS - {"limits", "store", "models"}
    if unknown:
        known = sorted(_SETTING_KEYS | {"limits", "store", "models"})
        raise ConfigurationError(f"{where}: unknown keys {sorted(unknown)}; known: {known}")
    result: dict[str, Any] = {key: given[key] for key in _SETTING_KEYS & set(given)}
    if "store" in given:
        result["store"] = given["store"]
    if "models" in given:
        result["catalog"] = Catalog(given["models"])
    limits = given.get("limits", [])
    if not isinstance(limits, list):
        raise ConfigurationError(f"{where}: limits must be a list, written [[limits]]")
    result["limits"] = [_limit(one, f"{where}: limits[{at}]") for at, one in enumerate(limits)]
    return result


def _limit(given: Any, where: str) -> Limit:
    if not isinstance(given, dict):
        raise ConfigurationError(f"{where} must be a table, written [[limits]]")
    unknown = set(given) - _LIMIT_KEYS
    if unknown:
        raise ConfigurationError(f"{where}: unknown keys {sorted(unknown)}")
    try:
        return Limit(**{**given, "scope": tuple(given.get("scope", ()))})
    except (ConfigurationError, TypeError) as error:
        raise ConfigurationError(f"{where}: {error}") from error
