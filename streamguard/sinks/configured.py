"""Sinks from a config file's ``[tell]`` table."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from streamguard.core.alert_rules import (
    ContextShare,
    DailyGrowth,
    DailySpend,
    Refused,
    Runaway,
    UserBurst,
)
from streamguard.core.alerts import Rule
from streamguard.errors import ConfigurationError
from streamguard.sinks.alerts import AlertSink
from streamguard.sinks.base import Sink
from streamguard.sinks.structlog import StructlogSink
from streamguard.sinks.webhook import Webhook

_ENVIRONMENT = "env:"
_RULES: Mapping[str, Callable[..., Rule]] = {
    rule.name: rule for rule in (ContextShare, DailyGrowth, DailySpend, Refused, UserBurst, Runaway)
}
_ON_REQUEST = {DailySpend.name}


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 1


_WEBHOOK: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "url": (lambda value: isinstance(value, str), "a string"),
    "secrets": (_strings, "a list of strings"),
    "format": (lambda value: value in ("standard", "slack"), "'standard' or 'slack'"),
    "allow_private": (lambda value: isinstance(value, bool), "true or false"),
    "dead_letters": (lambda value: isinstance(value, str), "a file's name"),
    "attempts": (_whole, "a whole number of 1 or more"),
    "timeout": (lambda value: type(value) in (int, float) and value > 0, "seconds, more than 0"),
}
_SECRET = {"url", "secrets"}


def sinks_from(given: Any, where: str) -> list[Sink]:
    """What a ``[tell]`` table says; the log is always told. ``where`` begins the errors.

    ::

        [tell]
        ledger = "sqlite:///usage.db"
        otel = true

        [tell.alerts]
        daily_spend = "50.00"
        user_burst = false

        [[tell.alerts.webhooks]]
        url = "env:OPS_WEBHOOK"
        secrets = ["env:OPS_WEBHOOK_SECRET"]

    A rule takes its first figure, or ``false`` to be off. ``env:NAME`` stands for an
    environment variable.

    Raises:
        ConfigurationError: a key that is unknown or wrong.
    """
    return [StructlogSink(), *sinks_beside(given, where)]


def sinks_beside(given: Any, where: str) -> list[Sink]:
    """The same for who has a log already.

    Raises:
        ConfigurationError: a key that is unknown or wrong.
    """
    table = _table(given, where, {"ledger", "spool", "alerts", "otel"})
    told: list[Sink] = []
    if "ledger" in table:
        url, spool = (_text(table, key, where) for key in ("ledger", "spool"))
        sink = _class("ledger", "LedgerSink", f"{where}.ledger", "sql")
        with placed(f"{where}.ledger"):
            told.append(sink(url, spool=spool))
    elif "spool" in table:
        raise ConfigurationError(f"{where}.spool needs {where}.ledger: it holds the ledger's rows")
    if "alerts" in table:
        told.append(_alerts(table["alerts"], f"{where}.alerts"))
    if not isinstance(table.get("otel", False), bool):
        raise ConfigurationError(f"{where}.otel={table['otel']!r} must be true or false")
    if table.get("otel"):
        told.append(_class("otel", "OtelSink", f"{where}.otel", "otel")())
    return told


def from_environment(value: Any, where: str) -> Any:
    """The value, from the environment where it is ``env:NAME``.

    Raises:
        ConfigurationError: there is no such variable.
    """
    if isinstance(value, list):
        return [from_environment(one, where) for one in value]
    if not isinstance(value, str) or not value.startswith(_ENVIRONMENT):
        return value
    name = value.removeprefix(_ENVIRONMENT)
    if not os.environ.get(name):
        raise ConfigurationError(f"{where}={value!r}: that environment variable is not set")
    return os.environ[name]


def _class(module: str, name: str, where: str, extra: str) -> Any:
    try:
        return getattr(import_module(f"streamguard.sinks.{module}"), name)
    except ImportError as error:
        message = f"{where} needs pip install 'streamguard[{extra}]'"
        raise ConfigurationError(message) from error


def _text(table: Mapping[str, Any], key: str, where: str) -> str | None:
    value = table.get(key)
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"{where}.{key}={value!r} must be a string")
    found: str | None = from_environment(value, f"{where}.{key}")
    return found


def _alerts(given: Any, where: str) -> AlertSink:
    table = dict(_table(given, where, {*_RULES, "webhooks", "per_hour"}))
    hooks = table.pop("webhooks", [])
    if not isinstance(hooks, list):
        raise ConfigurationError(f"{where}.webhooks must be a list, written [[{where}.webhooks]]")
    channels = [_webhook(one, f"{where}.webhooks[{at}]") for at, one in enumerate(hooks)]
    per_hour = table.pop("per_hour", 60)
    if not _whole(per_hour):
        message = f"{where}.per_hour={per_hour!r} must be a whole number of 1 or more"
        raise ConfigurationError(message)
    rules = [
        _rule(name, table.get(name, name not in _ON_REQUEST), f"{where}.{name}")
        for name in _RULES
        if table.get(name, name not in _ON_REQUEST) is not False
    ]
    return AlertSink(rules, channels, per_hour=per_hour)


def _rule(name: str, figure: Any, where: str) -> Rule:
    try:
        with placed(f"{where}={figure!r}"):
            return _RULES[name]() if figure is True else _RULES[name](figure)
    except TypeError as error:
        message = f"{where}={figure!r} is no figure of this rule; give a number, true or false"
        raise ConfigurationError(message) from error


def _webhook(given: Any, where: str) -> Webhook:
    table = _table(given, where, set(_WEBHOOK))
    if "url" not in table:
        raise ConfigurationError(f"{where}.url is missing")
    values = {key: from_environment(value, f"{where}.{key}") for key, value in table.items()}
    for key, value in values.items():
        fits, words = _WEBHOOK[key]
        if not fits(value):
            shown = "" if key in _SECRET else f"={value!r}"
            raise ConfigurationError(f"{where}.{key}{shown} must be {words}")
    with placed(where):
        return Webhook(**values)


@contextmanager
def placed(where: str) -> Iterator[None]:
    """Errors in here are told with their place.

    Raises:
        ConfigurationError: what was raised in here, with ``where`` before its message.
    """
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error.message}") from error


def _table(given: Any, where: str, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise ConfigurationError(f"{where} must be a table, written [{where}]")
    if unknown := sorted(set(given) - known):
        raise ConfigurationError(f"{where}: unknown keys {unknown}; known: {sorted(known)}")
    return given
