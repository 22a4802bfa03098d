"""``streamguard serve``: the gateway."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from streamguard.errors import ConfigurationError


@click.command()
@click.option(
    "--upstream", help="An OpenAI-compatible provider's root URL, for a start without a file."
)
@click.option("--config", type=click.Path(path_type=Path), help="The gateway's TOML file.")
@click.option("--host", help="Address to listen on. Default 127.0.0.1.")
@click.option("--port", type=int, help="Port to listen on. Default 8383.")
@click.option("--store", help="Budget store: memory://, sqlite:///budgets.db, redis://….")
@click.option("--json", "as_json", is_flag=True, help="Log JSON lines.")
def serve(
    upstream: str | None,
    config: Path | None,
    host: str | None,
    port: int | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Guard every call of clients that point their base_url here."""
    try:
        from streamguard.gateway.app import Gateway
        from streamguard.gateway.config import GatewayConfig, read_gateway
        from streamguard.gateway.upstreams import Upstream
    except ImportError as error:
        message = f"the gateway needs {error.name}; pip install 'streamguard[gateway]'"
        raise ConfigurationError(message) from error
    if config is not None:
        found = read_gateway(config)
    elif upstream:
        key_env = "OPENAI_API_KEY" if os.environ.get("OPENAI_API_KEY") else ""
        found = GatewayConfig((Upstream(url=upstream, key_env=key_env, name="upstream"),))
    else:
        raise click.UsageError("say where to forward to: --upstream URL or --config FILE")
    if store:
        found = replace(found, guard={**found.guard, "store": store})
    found = replace(found, host=host or found.host, port=port or found.port)
    _log(as_json)
    _run(Gateway(found, path=config), found.host, found.port)


def _log(as_json: bool) -> None:
    import structlog

    if as_json:
        structlog.configure(
            processors=[
                structlog.processors.TimeStamper(fmt="iso"),
                structlog.processors.add_log_level,
                structlog.processors.JSONRenderer(),
            ]
        )


def _run(app: Any, host: str, port: int) -> None:
    import uvicorn

    uvicorn.run(app, host=host, port=port, access_log=False, timeout_graceful_shutdown=30)
