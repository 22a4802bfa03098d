"""Calls that wait for a budget: admitted in turn, refused at their deadline."""

from __future__ import annotations

import asyncio
import random
import socket
from typing import Any

import httpx2
import pytest
from support.proxy import proxy
from support.servers import SERVERS, serve, wait_until
from support.upstream import Plan, Upstream

from streamguard import (
    ConfigurationError,
    Guard,
    Identity,
    Limit,
    StreamGuardMiddleware,
    Usage,
    WindowBudgetExceededError,
)
from streamguard.asgi.body import ClientGone
from streamguard.asgi.patience import unless_gone
from streamguard.core.billing import Spent
from streamguard.guard import waiting
from streamguard.guard.settings import Queue
from streamguard.sinks.memory import ListSink

pytestmark = pytest.mark.anyio

PATH = "/v1/chat/completions"
ONE = Limit(concurrency=1, name="one at a time")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def guarded(*limits: Limit, **settings: Any) -> tuple[Guard, ListSink]:
    sink = ListSink()
    options = {"queue": Queue(max_wait=10.0), "reserve_output": 100, **settings}
    return Guard(limits or (ONE,), sinks=[sink], **options), sink


async def begin(guard: Guard, tenant: str = "a", **more: Any) -> Any:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], **more}
    return await guard.begin(await guard.subject(body, path=PATH, identity=Identity(tenant)))


async def done(call: Any, tokens: int = 10) -> None:
    await call.finish(Spent("completed", reported=Usage(8, tokens)))


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_call_waits_for_its_turn_and_says_how_long():
    guard, sink = guarded()
    async with guard:
        first = await begin(guard)
        second = asyncio.create_task(begin(guard))
        await until(lambda: guard.waiting)
        (waiter,) = guard.waiting
        assert (waiter.tenant, waiter.limit, waiter.position) == ("a", "one at a time", 1)
        assert waiter.seconds >= 0
        assert sink.named("queued")[0].position == 1
        await done(first)
        call = await second
        assert float(dict(call.headers())["x-streamguard-queued"]) > 0
        assert dict(call.headers())["x-streamguard-queue-position"] == "1"
        assert guard.waiting == []
        assert not sink.named("refused")
        await done(call)
        assert "x-streamguard-queued" not in dict((await begin(guard)).headers())


async def test_tenants_take_turns_and_nobody_overtakes():
    guard, sink = guarded()
    async with guard:
        running = [await begin(guard, "big")]
        order = []

        async def one(tenant):
            call = await begin(guard, tenant)
            order.append(tenant)
            running.append(call)

        tasks = []
        for tenant in ("big", "big", "big", "small"):
            tasks.append(asyncio.create_task(one(tenant)))
            await until(lambda: len(guard.waiting) == len(tasks))
        assert [w.tenant for w in guard.waiting] == ["big", "small", "big", "big"]
        assert [event.position for event in sink.named("queued")] == [1, 2, 3, 2]
        for admitted in range(1, 5):
            await done(running.pop())
            if admitted == 1:
                tasks.append(asyncio.create_task(one("big")))
            await until(lambda admitted=admitted: len(order) >= admitted)
        await done(running.pop())
        await until(lambda: len(order) == 5)
        assert order == ["big", "small", "big", "big", "big"]
        await asyncio.gather(*tasks)


async def test_priority_goes_first():
    guard, _ = guarded(queue=Queue(priority=lambda identity: identity.tenant == "vip"))
    async with guard:
        first = await begin(guard)
        plain = asyncio.create_task(begin(guard, "plain"))
        await until(lambda: len(guard.waiting) == 1)
        vip = asyncio.create_task(begin(guard, "vip"))
        await until(lambda: len(guard.waiting) == 2)
        assert [w.tenant for w in guard.waiting] == ["vip", "plain"]
        await done(first)
        await done(await vip)
        await done(await plain)


async def test_a_full_line_refuses():
    guard, sink = guarded(queue=Queue(capacity=1))
    async with guard:
        first = await begin(guard)
        second = asyncio.create_task(begin(guard))
        await until(lambda: guard.waiting)
        with pytest.raises(WindowBudgetExceededError, match="full: 1 calls wait already"):
            await begin(guard)
        assert len(sink.named("refused")) == 1
        await done(first)
        await done(await second)


async def test_a_deadline_refuses_with_the_last_figures():
    guard, sink = guarded(queue=Queue(max_wait=1.2))
    async with guard:
        first = await begin(guard)
        with pytest.raises(WindowBudgetExceededError) as caught:
            await begin(guard)
        assert caught.value.limit_name == "one at a time"
        assert caught.value.limit == 1
        assert "It waited 1.2 s" in caught.value.message
        assert [event.event for event in sink.events].count("refused") == 1
        assert guard.waiting == []
        await done(first)


async def test_what_cannot_come_in_time_is_not_waited_for():
    guard, sink = guarded(Limit(tokens=100, per="hour", name="hourly"), queue=Queue(max_wait=5))
    async with guard:
        await done(await begin(guard, max_tokens=80), 80)
        with pytest.raises(WindowBudgetExceededError):
            await begin(guard, max_tokens=80, messages=[{"role": "user", "content": "x " * 30}])
        with pytest.raises(WindowBudgetExceededError):
            await begin(guard, messages=[{"role": "user", "content": "x " * 300}])
        assert not sink.named("queued")


async def test_a_window_that_empties_is_waited_for(monkeypatch):
    monkeypatch.setattr(waiting, "POLL", 0.05)
    guard, _ = guarded(Limit(requests=1, per="second", name="rate"))
    async with guard:
        await done(await begin(guard))
        call = await begin(guard)
        assert float(dict(call.headers())["x-streamguard-queued"]) > 0
        await done(call)


async def test_lines_are_apart_and_a_cancelled_call_leaves_its_line():
    limit = Limit(concurrency=1, scope=("tenant",), name="one each")
    guard, _ = guarded(limit)
    async with guard:
        mine = await begin(guard, "a")
        waits = asyncio.create_task(begin(guard, "a"))
        await until(lambda: guard.waiting)
        await done(await begin(guard, "b"))
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert guard.waiting == []
        await done(mine)
        await done(await begin(guard, "a"))


async def test_other_refusals_while_waiting_are_raised():
    found = [ONE]
    guard, _ = guarded()
    guard = Guard(lambda identity, model: found, sinks=[], queue=Queue(), reserve_output=10)
    async with guard:
        first = await begin(guard)
        second = asyncio.create_task(begin(guard))
        await until(lambda: guard.waiting)
        found.append(Limit(tokens=5, per="hour", name="tiny"))
        await done(first)
        with pytest.raises(WindowBudgetExceededError, match="tiny"):
            await second


@pytest.mark.parametrize("server", SERVERS)
async def test_a_client_that_leaves_gives_its_place_up(server):
    guard, _ = guarded()
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with Upstream() as upstream:
        app = StreamGuardMiddleware(proxy(upstream.base_url), guard=guard)
        with serve(app, server) as url:
            upstream.queue(Plan(fault="hang_midway"))
            async with httpx2.AsyncClient() as client:
                async with client.stream("POST", f"{url}{PATH}", json=body) as first:
                    chunks = first.aiter_raw()
                    await anext(chunks)
                    gone = raw_request(url, body)
                    await until(lambda: len(guard.waiting) == 1)
                    gone.close()
                    await until(lambda: not guard.waiting)
                upstream.queue(Plan(text="Good morning"))
                answer = await client.post(f"{url}{PATH}", json=body, timeout=20)
        assert answer.status_code == 200
        assert len(upstream.calls) == 2
    wait_until(lambda: not guard.waiting, "somebody still waits")


def raw_request(url: str, body: dict[str, Any]) -> socket.socket:
    request = httpx2.Request("POST", f"{url}{PATH}", json=body)
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += f"content-length: {len(request.content)}\r\n\r\n"
    host, port = request.url.host, request.url.port
    connection = socket.create_connection((host, port))
    connection.sendall(head.encode() + request.content)
    return connection


async def test_a_call_admitted_just_as_the_client_leaves_is_released():
    guard, sink = guarded()
    async with guard:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
        subject = await guard.subject(body, path=PATH)
        left = asyncio.Event()
        begun = guard.begin

        async def late(subject):
            call = await begun(subject)
            left.set()
            return call

        heard = iter([{"type": "http.request", "body": b""}, {"type": "http.disconnect"}])

        async def receive():
            await left.wait()
            return next(heard)

        guard.begin = late
        outcome = asyncio.create_task(unless_gone(guard, subject, receive))
        with pytest.raises(ClientGone):
            await outcome
        await done(await begun(await guard.subject(body, path=PATH)))
        assert sink.named("released")


async def test_the_middleware_refuses_as_ever_when_there_is_no_place():
    guard, _ = guarded(queue=Queue(capacity=1))
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    with Upstream(default=Plan(fault="hang_midway")) as upstream:
        app = StreamGuardMiddleware(proxy(upstream.base_url), guard=guard)
        with serve(app, "uvicorn") as url:
            first = raw_request(url, body)
            await until(lambda: upstream.calls)
            second = raw_request(url, body)
            await until(lambda: len(guard.waiting) == 1)
            async with httpx2.AsyncClient() as client:
                third = await client.post(f"{url}{PATH}", json=body)
            second.close()
            first.close()
    assert third.status_code == 429
    assert third.json()["error"]["code"] == "budget_exceeded"


async def test_a_place_at_the_deadline_is_lost_even_if_not_the_first():
    guard, _ = guarded(queue=Queue(max_wait=1.1))
    async with guard:
        first = await begin(guard)
        results = await asyncio.gather(begin(guard), begin(guard), return_exceptions=True)
        assert [type(each) for each in results] == [WindowBudgetExceededError] * 2
        await done(first)


@pytest.mark.parametrize(
    "queue", [{"capacity": 0}, {"max_wait": 0}, {"length": 3}, {"capacity": True, "max_wait": -1}]
)
def test_figures_that_cannot_be(queue):
    with pytest.raises(ConfigurationError, match="queue"):
        Guard(queue=queue)


def test_a_queue_from_a_config_file():
    assert Guard(queue={"capacity": 3}).settings.queue == Queue(capacity=3)
    assert Guard(queue=None).settings.queue is None


async def test_a_crowd_is_served_without_overshoot_and_leaves_nothing_behind():
    limit = Limit(concurrency=4, name="four")
    guard, sink = guarded(limit, queue=Queue(capacity=100, max_wait=60))
    dice = random.Random(7)
    active, most, served = 0, 0, []

    async def one(number):
        nonlocal active, most
        call = await begin(guard, "abc"[number % 3])
        active += 1
        most = max(most, active)
        await asyncio.sleep(dice.random() * 0.01)
        active -= 1
        await done(call)
        served.append(number)

    async with guard:
        tasks = [asyncio.create_task(one(number)) for number in range(80)]
        await until(lambda: len(guard.waiting) > 60)
        for number in dice.sample(range(20, 80), 25):
            tasks[number].cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert most == 4
        assert guard.waiting == []
        gone = [each for each in ended if isinstance(each, asyncio.CancelledError)]
        assert len(served) + len(gone) == 80
        assert len(served) >= 55
        assert not sink.named("refused")
        subject = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
        assert (await guard.preflight(subject)).balances["four"].held == 0
