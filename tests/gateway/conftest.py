from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from support.providers import Providers
from support.servers import serve

from streamguard.gateway.app import Gateway
from streamguard.gateway.config import read_gateway
from streamguard.gateway.keys import KeyRing
from streamguard.identity import Identity
from streamguard.sinks.memory import ListSink

SECRET = "sk-upstream-secret"


class Running(NamedTuple):
    """A gateway that serves, and what a test needs of it."""

    url: str
    key: str
    gateway: Gateway
    sink: ListSink
    file: Path

    def client(self, **options: Any) -> httpx2.Client:
        headers = {"authorization": f"Bearer {self.key or 'none'}"}
        return httpx2.Client(base_url=self.url, headers=headers, **options)


@pytest.fixture(scope="module")
def _providers() -> Iterator[tuple[Providers, str]]:
    app = Providers()
    with serve(app) as url:
        yield app, url


@pytest.fixture
def providers(_providers) -> Providers:
    _providers[0].seen.clear()
    return _providers[0]


@pytest.fixture
def upstream_url(providers, _providers) -> str:
    return _providers[1]


@pytest.fixture
def config_file(tmp_path, upstream_url, monkeypatch) -> Callable[..., Path]:
    """Writes a config with an upstream of every family, keys, and what is given."""
    monkeypatch.setenv("UPSTREAM_KEY", SECRET)

    def write(more: str = "", top: str = "", families=("openai", "anthropic", "google", "ollama")):
        parts = [f'store = "sqlite:///{tmp_path}/budgets.db"']
        if "keys =" not in top:
            parts.append(f'keys = "sqlite:///{tmp_path}/keys.db"')
        parts.append(textwrap.dedent(top))
        parts += [
            f'[[upstreams]]\nurl = "{upstream_url}"\nfamily = "{family}"\n'
            f'key_env = "UPSTREAM_KEY"\nname = "the {family} one"\n'
            for family in families
        ]
        path = tmp_path / "gateway.toml"
        path.write_text("\n".join([*parts, textwrap.dedent(more)]))
        return path

    return write


@pytest.fixture
def run(config_file, tmp_path) -> Iterator[Callable[..., Running]]:
    """Starts a gateway in this process."""
    with ExitStack() as stack:

        def start(more: str = "", **options: Any) -> Running:
            path = config_file(more, **options)
            config = read_gateway(path)
            key = ""
            if config.keys:
                ring = KeyRing(config.keys)
                key = ring.create(Identity("acme", "ann"))
                ring.close()
            sink = ListSink()
            gateway = Gateway(config, path=path, sinks=[sink])
            return Running(stack.enter_context(serve(gateway)), key, gateway, sink, path)

        yield start


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
