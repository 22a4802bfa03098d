from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from openai import AsyncOpenAI
from support.upstream import Plan, Upstream

from streamguard import Guard, Limit
from streamguard.sinks.memory import ListSink


class Books:
    """A guard whose store and events a test can look into."""

    def __init__(self, *limits: Limit, **settings: Any) -> None:
        self.sink = ListSink()
        self.window = Limit(tokens=1_000_000, per="hour", scope=("tenant",))
        self.guard = Guard(limits=[self.window, *limits], sinks=[self.sink], **settings)

    @property
    def events(self) -> list[str]:
        return [event.event for event in self.sink.events]

    @property
    def settled(self) -> list[Any]:
        return [event for event in self.sink.events if event.event == "settled"]

    async def balance(self) -> Any:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
        return (await self.guard.preflight(body)).balances[self.window.name]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as running:
        yield running


@pytest.fixture(autouse=True)
def _fresh(upstream: Upstream) -> None:
    upstream.calls.clear()
    upstream.default = Plan()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def books() -> type[Books]:
    return Books


@pytest.fixture
async def connect() -> AsyncIterator[Any]:
    clients: list[AsyncOpenAI] = []

    def connect(url: str, **options: Any) -> AsyncOpenAI:
        client = AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0, **options)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        await client.close()
