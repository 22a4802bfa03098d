"""Who watches is sent what changed; who is slow, less of it."""

from __future__ import annotations

import json
import signal

import anyio
import anyio.lowlevel
import pytest

from streamguard.live import feed as live_feed
from streamguard.live.feed import PING, Feed, Viewer, event, server_stopping


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(live_feed, "SAMPLE_SECONDS", 0)


class Source:
    """Sections whose figures the test sets; counts the samples."""

    def __init__(self, **sections):
        self.sections = sections
        self.samples = 0

    async def __call__(self):
        self.samples += 1
        for name, figures in self.sections.items():
            yield name, figures


def feed(source, most=3, stopping=lambda: False):
    return Feed(source, most=most, stopping=stopping)


def parsed(data):
    found = {}
    for block in data.decode().split("\n\n")[:-1]:
        name, line = block.split("\n")
        found[name.removeprefix("event: ")] = json.loads(line.removeprefix("data: "))
    return found


async def rounds(source, count):
    until = source.samples + count
    while source.samples < until:
        await anyio.lowlevel.checkpoint()


def test_an_event_is_one_line_whatever_is_in_it():
    assert event("x", {"a": "l1\nl2\r\u2028\ud800"}).count(b"\n") == 3
    assert parsed(event("x", {"a": 1})) == {"x": {"a": 1}}


def test_only_what_changed_is_sent():
    async def scene():
        source = Source(a={"n": 1}, b={"n": 1})
        one = feed(source)
        with one.watching() as viewer:
            await rounds(source, 2)
            first = await viewer.take()
            source.sections["b"] = {"n": 2}
            second = await viewer.take()
        return parsed(first), parsed(second)

    first, second = anyio.run(scene)
    assert first == {"a": {"n": 1}, "b": {"n": 1}}
    assert second == {"b": {"n": 2}}


def test_a_slow_viewer_is_sent_the_latest_only():
    async def scene():
        source = Source(a={"n": 0})
        with feed(source).watching() as viewer:
            for number in range(1_000):
                source.sections["a"] = {"n": number}
                await rounds(source, 1)
            return await viewer.take()

    assert parsed(anyio.run(scene)) == {"a": {"n": 999}}


def test_a_second_viewer_is_sent_the_whole_page():
    async def scene():
        source = Source(a={"n": 1})
        one = feed(source)
        with one.watching() as first:
            await first.take()
            with one.watching() as second:
                return len(one), parsed(await second.take())

    assert anyio.run(scene) == (2, {"a": {"n": 1}})


def test_nothing_is_sampled_while_nobody_watches():
    async def scene():
        source = Source(a={"n": 1})
        one = feed(source)
        assert source.samples == 0
        for _ in range(2):  # and it begins anew for the next viewer
            with one.watching() as viewer:
                await viewer.take()
            await one._task
            before = source.samples
            await anyio.sleep(0.01)
            assert source.samples == before
        return one._state

    anyio.run(scene)


def test_a_quiet_page_is_kept_open_by_comments(monkeypatch):
    monkeypatch.setattr(live_feed, "PING_SECONDS", 0)

    async def scene():
        return await Viewer({}).take()

    assert anyio.run(scene) == PING
    assert PING.startswith(b":")


def test_a_full_or_closed_feed_says_so_and_closing_ends_every_viewer():
    async def scene():
        source = Source()
        one = feed(source, most=2)
        with one.watching() as first, one.watching() as second:
            assert one.full
            assert not one.closed
            waiting = [first, second]
            async with anyio.create_task_group() as tasks:
                for viewer in waiting:
                    tasks.start_soon(viewer.take)
                await rounds(source, 1)
                one.close()
            assert [viewer.closed for viewer in waiting] == [True, True]
        assert not one.full
        await anyio.wait_all_tasks_blocked()
        return one._task.cancelled()

    assert anyio.run(scene)
    closed = feed(Source())
    closed.close()
    assert closed.closed


def test_it_closes_by_itself_when_the_server_wants_to_end():
    async def scene():
        stop = []
        source = Source()
        one = feed(source, stopping=lambda: bool(stop))
        with one.watching() as viewer:
            await rounds(source, 2)
            assert not viewer.closed
            stop.append(1)
            await viewer.take()
            return viewer.closed, one.closed

    assert anyio.run(scene) == (True, True)


def test_viewers_that_come_while_it_closes_are_not_sampled_for():
    async def scene():
        source = Source()
        one = feed(source)
        one.closed = True
        with one.watching():
            await one._task
        return source.samples

    assert anyio.run(scene) == 0


class Server:
    def __init__(self):
        self.should_exit = False

    def handle(self, *_):
        self.should_exit = True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_was_told_to_stop_is_noticed(number):
    server = Server()
    before = signal.signal(number, server.handle)
    try:
        assert not server_stopping()
        signal.raise_signal(number)
        assert server_stopping()
    finally:
        signal.signal(number, before)
    assert not server_stopping()
