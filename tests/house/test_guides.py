"""Functions that a guide leaves to its reader to call are called, with real clients and servers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from anthropic import AsyncAnthropic
from fastapi import FastAPI
from openai import AsyncOpenAI
from starlette.authentication import AuthCredentials, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from support.providers import TEXT, Providers
from support.redis_server import RedisServer, needs_redis
from support.repo import ROOT, blocks
from support.servers import serve, wait_until

from streamguard import Guard
from streamguard.cli.upstream import REPLY, DemoUpstream
from streamguard.guard.context import current_identity

NOTED = "Noted. Checking the next batch."
pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.fixture(autouse=True)
def keys(monkeypatch):
    """Clients want one."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
        monkeypatch.setenv(name, "none")


@pytest.fixture
def model(monkeypatch):
    """The demo's model server, which the clients of the guides are led to."""
    upstream = DemoUpstream(context_window=128_000, pace=0)
    with serve(upstream.app) as url:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
        yield upstream


@asynccontextmanager
async def guide(name: str) -> AsyncIterator[dict[str, Any]]:
    """The names that a guide's code makes; some of it runs an event loop of its own."""
    names = await asyncio.to_thread(_guide, name)
    try:
        yield names
    finally:
        for made in names.values():
            if isinstance(made, AsyncOpenAI | Guard):
                await made.close()


def _guide(name: str) -> dict[str, Any]:
    return made(ROOT / "docs" / "how-to" / f"{name}.md")


def made(page: Path, **changes: str) -> dict[str, Any]:
    """The names that a page's code makes, with some figures changed."""
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(page):
        if block.language == "python":
            code = block.code
            for name, figure in changes.items():
                code = re.sub(rf"\b{name}=\d+", f"{name}={figure}", code)
            exec(compile(code, str(block), "exec"), names)
    return names


@contextmanager
def serving(app: FastAPI, client: AsyncOpenAI) -> Iterator[str]:
    """Serve an app; its client is closed on the loop that it was used on."""

    @asynccontextmanager
    async def lifespan(_app):
        yield
        await client.close()

    app.router.lifespan_context = lifespan
    with serve(app) as url:
        yield url


async def test_the_readmes_app(model):
    names = made(ROOT / "README.md", output_tokens="3")
    with serving(names["app"], names["model"]) as url:
        async with httpx.AsyncClient(timeout=20) as client:
            answer = await client.get(f"{url}/ask", params={"question": "Hello"})
    assert (answer.status_code, answer.json()) == (200, "Noted.")


async def test_a_guarded_client(model):
    async with guide("guard-a-client") as page, httpx.AsyncClient(timeout=20) as client:
        assert await page["ask"]("Hello") == NOTED
        with serving(page["app"], page["model"]) as url:
            sent = {"params": {"question": "Hello"}, "headers": {"x-tenant": "acme"}}
            answer = await client.post(f"{url}/ask", **sent)
            assert (answer.status_code, answer.json()) == (200, NOTED)
            sent["params"] = {"question": "word " * 13_000}
            answers = [await client.post(f"{url}/ask", **sent) for _ in range(16)]
    assert {answer.status_code for answer in answers} == {200, 429}
    assert answers[-1].json()["code"] == "budget_exceeded"
    assert "retry-after" in answers[-1].headers


async def test_work_that_outlives_a_request(model):
    async with guide("guard-a-client") as page, httpx.AsyncClient(timeout=20) as client:
        app = page["chats"]

        @app.post("/identities")
        async def identities():
            mine, workers = await current_identity(), await page["start"](current_identity())
            return [mine.tenant, workers.tenant]

        with serving(app, page["model"]) as url:
            essay = [{"role": "user", "content": "Write an essay."}]
            body = {"model": "gpt-4o", "messages": essay, "stream": True}
            answer = await client.post(f"{url}/v1/chat/completions", json=body)
            tenants = (await client.post(f"{url}/identities")).json()
            await asyncio.to_thread(wait_until, lambda: page["saved"], "nothing was saved")
    assert '"length"' in answer.text
    assert len(page["saved"][0].split()) >= 10
    assert tenants == ["acme", None]


async def test_the_tests_of_a_guarded_app():
    async with guide("test-your-app") as page:
        tests = [made for name, made in page.items() if name.startswith("test_")]
        assert len(tests) == 3
        for test in tests:
            await asyncio.to_thread(test)


async def test_a_retry_loop(model):
    async with guide("retry-safely") as page:
        assert await page["ask"]("Hello") == NOTED
    assert len(model.books) == 1


async def test_a_stream_of_an_sdk(model, capsys):
    async with guide("guard-any-stream") as page, AsyncOpenAI() as client:
        text = await page["ask"](client, "Hello")
    assert text
    assert REPLY.startswith(text)
    assert capsys.readouterr().out.endswith(" True\n")  # it was cut


async def test_a_batch_job(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with guide("batch-jobs") as page, page["guard"], AsyncOpenAI() as client:
        done = await page["run"](client, [f"Row {number}" for number in range(9)])
    assert done == dict.fromkeys(range(9), NOTED)


async def test_anthropics_client():
    provider = Providers()
    with serve(provider) as url:
        async with (
            guide("anthropic") as page,
            AsyncAnthropic(api_key="none", base_url=url) as client,
        ):
            page["client"] = page["guard"].wrap(client, identity=page["Identity"](feature="drafts"))
            drafted = await page["draft"]("otters")
    assert drafted == f"end_turn: {TEXT}"
    assert provider.last.body["max_tokens"] == 4_000


@pytest.mark.parametrize("store", ["memory", pytest.param("redis", marks=needs_redis)])
async def test_many_tenants(store):
    class User(SimpleUser):
        def __init__(self, sent: str) -> None:
            super().__init__(sent)
            self.tenant, self.id = sent.split(":")

    class Proof:
        async def authenticate(self, conn):
            sent = conn.headers["authorization"]
            return (AuthCredentials(), User(sent)) if sent else None

    async def whole(request):
        return PlainTextResponse("never asked")

    async with guide("multi-tenant") as page:
        make = page["app"]
        for token, tenant in (("a-token-of-ann", "acme"), ("another", None)):
            sent = {"type": "http", "headers": [(b"authorization", f"Bearer {token}".encode())]}
            assert (await page["identify_by_token"](sent)).tenant == tenant

    def guarded(url: str):
        app = make(url)
        app.add_middleware(AuthenticationMiddleware, backend=Proof())
        app.routes.append(Route("/v1/chat/completions", whole, methods=["POST"]))
        return app

    server = RedisServer() if store == "redis" else None
    url = server.url if server else "memory://"
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "x"}], "max_tokens": 9}
    long = {**body, "messages": [{"role": "user", "content": "word " * 60_000}]}
    try:
        if server:
            server.start()
        with serve(guarded(url)) as address:
            path = f"{address}/v1/chat/completions"
            async with httpx.AsyncClient(timeout=30) as client:

                async def statuses(who: str) -> list[int]:
                    headers = {"authorization": who}
                    answers = [await client.post(path, json=one, headers=headers)
                               for one in (long, body)]  # fmt: skip
                    return [answer.status_code for answer in answers]

                assert await statuses("") == [200, 200]  # nobody's plan is the free one
                pro, free = await statuses("acme:ann"), await statuses("bolt:bob")
    finally:
        if server:
            server.close()
    assert pro == [429, 200]  # a user's minute of a plan has 50,000 tokens
    assert free == [200, 200]  # the other plan has dollars only
