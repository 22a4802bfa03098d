"""Sinks from a config file's ``[tell]`` table."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
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


def sinks_from(given: Any, where: str) -> list[Sink]:
    """What a ``[tell]`` table says; the log is always told. ``where`` begins the errors.

    ::

        [tell]
        ledger = "sqlite:///usage.db"

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
    table = _table(given, where, {"ledger", "spool", "alerts"})
    told: list[Sink] = [StructlogSink()]
    if "ledger" in table:
        try:
            from streamguard.sinks.ledger import LedgerSink
        except ImportError as error:
            message = f"{where}.ledger needs pip install 'streamguard[sql]'"
            raise ConfigurationError(message) from error

        url, spool = (_read(table.get(key), f"{where}.{key}") for key in ("ledger", "spool"))
        told.append(LedgerSink(url, spool=spool))
    if "alerts" in table:
        told.append(_alerts(table["alerts"], f"{where}.alerts"))
    return told


def _alerts(given: Any, where: str) -> AlertSink:
    table = dict(_table(given, where, {*_RULES, "webhooks", "per_hour"}))
    hooks = table.pop("webhooks", [])
    if not isinstance(hooks, list):
        raise ConfigurationError(f"{where}.webhooks must be a list, written [[{where}.webhooks]]")
    channels = [_webhook(one, f"{where}.webhooks[{at}]") for at, one in enumerate(hooks)]
    per_hour = table.pop("per_hour", 60)
    rules = [
        _rule(name, table.get(name, name not in _ON_REQUEST), f"{where}.{name}")
        for name in _RULES
        if table.get(name, name not in _ON_REQUEST) is not False
    ]
    return AlertSink(rules, channels, per_hour=per_hour)


def _rule(name: str, figure: Any, where: str) -> Rule:
    try:
        return _RULES[name]() if figure is True else _RULES[name](figure)
    except (ConfigurationError, TypeError) as error:
        raise ConfigurationError(f"{where}={figure!r}: {error}") from error


def _webhook(given: Any, where: str) -> Webhook:
    known = {"url", "secrets", "format", "allow_private", "dead_letters", "attempts", "timeout"}
    table = _table(given, where, known)
    if "url" not in table:
        raise ConfigurationError(f"{where}.url is missing")
    return Webhook(**{key: _read(value, f"{where}.{key}") for key, value in table.items()})


def _table(given: Any, where: str, known: set[str]) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise ConfigurationError(f"{where} must be a table, written [{where}]")
    if unknown := sorted(set(given) - known):
        raise ConfigurationError(f"{where}: unknown keys {unknown}; known: {sorted(known)}")
    return given


def _read(value: Any, where: str) -> Any:
    """The value, from the environment where it says so."""
    if isinstance(value, list):
        return [_read(one, where) for one in value]
    if not isinstance(value, str) or not value.startswith(_ENVIRONMENT):
        return value
    name = value.removeprefix(_ENVIRONMENT)
    if not os.environ.get(name):
        raise ConfigurationError(f"{where}={value!r}: that environment variable is not set")
    return os.environ[name]
