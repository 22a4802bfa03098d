"""``streamguard serve``: the gateway."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from streamguard.cli.usage_errors import bad_usage
from streamguard.errors import ConfigurationError

if TYPE_CHECKING:
    from streamguard.gateway.config import GatewayConfig

KEYS_FILE = "streamguard-keys.db"
LEDGER = "sqlite:///streamguard-usage.db"
_LOOPBACK = ("127.", "localhost", "::1")


@click.command()
@click.option(
    "--upstream",
    help="An OpenAI-compatible provider's root URL, for a start without a file; it gets the key in "
    "OPENAI_API_KEY where that is set.",
)
@click.option("--config", type=click.Path(path_type=Path), help="The gateway's TOML file.")
@click.option("--host", help="Address to listen on. Default 127.0.0.1.")
@click.option("--port", type=click.IntRange(0, 65_535), help="Port to listen on. Default 8383.")
@click.option("--store", help="Budget store: memory://, sqlite:///budgets.db, redis://….")
@click.option("--keys", help="Database of the virtual keys, sqlite:///… or postgresql://….")
@click.option("--workers", type=click.IntRange(1, 256), default=1, help="Processes. Default 1.")
@click.option("--json", "as_json", is_flag=True, help="Log JSON lines.")
def serve(
    upstream: str | None,
    config: Path | None,
    host: str | None,
    port: int | None,
    store: str | None,
    keys: str | None,
    workers: int,
    as_json: bool,
) -> None:
    """Guard every call of clients that point their base_url here."""
    try:
        from streamguard.gateway import logs, serving
        from streamguard.gateway.app import Gateway
    except ImportError as error:
        message = f"the gateway needs {error.name}; pip install 'streamguard[gateway]'"
        raise ConfigurationError(message) from error
    found = _configured(upstream, config)
    _check_options(store, keys)
    changes: dict[str, Any] = {"host": host, "port": port, "keys": keys}
    found = replace(found, **{key: value for key, value in changes.items() if value is not None})
    if store:
        found = replace(found, guard={**found.guard, "store": store})
    _check(found, workers)
    log_config = logs.configure(as_json=as_json)
    listener = serving.listen(found.host, found.port)
    if workers > 1 and not os.environ.get(serving.WORKER_FD):
        command = [sys.executable, "-m", "streamguard", *sys.argv[1:]]
        with serving.shared_metrics(found):
            sys.exit(serving.Workers(command, workers, listener).run())
    sinks: list[Any] | None = [logs.JSONLines()] if as_json else None
    # uvicorn raises it again when all calls have ended
    with listener, suppress(KeyboardInterrupt):
        serving.serve(Gateway(found, path=config, sinks=sinks), listener, log_config)


def _configured(upstream: str | None, config: Path | None) -> GatewayConfig:
    """The file's configuration, or the embedded default: SQLite files in the working directory."""
    from streamguard.gateway.config import GatewayConfig, read_gateway
    from streamguard.gateway.upstreams import Upstream

    if config is not None and upstream:
        raise click.UsageError("--upstream goes without --config: the file lists the upstreams")
    if config is not None:
        return read_gateway(config)
    if not upstream:
        raise click.UsageError("say where to forward to: --upstream URL or --config FILE")
    key_env = "OPENAI_API_KEY" if os.environ.get("OPENAI_API_KEY", "").strip() else ""
    keys = f"sqlite:///{KEYS_FILE}" if Path(KEYS_FILE).exists() else ""
    with bad_usage("--upstream", "url="):
        one = Upstream(url=upstream, key_env=key_env)
    return GatewayConfig((one,), keys=keys, ledger=LEDGER)


def _check_options(store: str | None, keys: str | None) -> None:
    from streamguard.gateway.keys import checked_url
    from streamguard.stores import open_store

    with bad_usage("--store"):
        open_store(store or "memory://")
    if keys:
        with bad_usage("--keys", "keys="):
            checked_url(keys)


def _check(found: GatewayConfig, workers: int) -> None:
    """Refuse what would cost somebody money.

    Raises:
        ConfigurationError: budgets that workers would not share, or a key lent to everybody.
    """
    if workers > 1 and str(found.guard.get("store", "")).startswith("memory:"):
        message = (
            "store='memory://' is one process's own: with --workers each would spend the whole "
            "budget; use sqlite:///FILE or redis://HOST"
        )
        raise ConfigurationError(message)
    lent = [one.name for one in found.upstreams if one.key]
    if lent and not found.keys and not found.host.startswith(_LOOPBACK):
        message = (
            f"host={found.host!r} would lend the gateway's key for {', '.join(lent)} to everybody: "
            "set keys= and make virtual keys with 'streamguard keys create'"
        )
        raise ConfigurationError(message)
