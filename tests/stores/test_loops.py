"""Turns, values and tasks of several event loops; a pipe's connections there."""

from __future__ import annotations

import asyncio
import gc

import pytest
from support.fake_redis import answer, command, echo, listen, stop
from support.loops import another_loop, in_threads, run_in
from support.servers import wait_until

from streamguard.stores import loops
from streamguard.stores.loops import PerLoop, Turn, cancelled, ended, run_on
from streamguard.stores.redis_cluster import ClusterPipe
from streamguard.stores.redis_pipe import RedisPipe


def test_turns_are_taken_one_by_one_in_all_loops():
    turn, inside, most = Turn(), [], []

    async def work(number):
        for _ in range(20):
            async with turn:
                inside.append(number)
                most.append(len(inside))
                await asyncio.sleep(0)
                inside.remove(number)

    in_threads(4, work)
    assert most == [1] * 80


def test_who_gives_up_waiting_for_a_turn_does_not_have_it():
    async def go():
        turn = Turn()
        async with turn:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(turn.__aenter__(), 0.01)
        async with asyncio.timeout(10), turn:
            return "mine"

    assert asyncio.run(go()) == "mine"


def test_a_value_for_each_loop_until_it_is_closed():
    values = PerLoop(object)

    async def value():
        return values.here()

    with another_loop() as loop:
        first = run_in(loop, value())
        assert asyncio.run(value()) is not first
        assert asyncio.run(value()) is not first
        assert run_in(loop, value()) is first
        assert len(values._values) == 2
        assert (loop, first) in values.take()
        assert run_in(loop, value()) is not first
        assert [known for known, _ in values.take()] == [loop]


def test_tasks_are_waited_for_where_they_run():
    steps = []

    async def slow():
        await asyncio.sleep(0.05)
        steps.append("slow")

    async def begin():
        return asyncio.create_task(slow())

    async def go(theirs):
        tasks = {theirs, await begin()}
        await ended(tasks)
        return tasks, len(steps)

    with another_loop() as loop:
        assert asyncio.run(go(run_in(loop, begin()))) == (set(), 2)


async def forever():
    await asyncio.Event().wait()


async def begin_forever():
    return asyncio.create_task(forever())


def test_a_loop_that_does_not_come_to_its_end_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(loops, "ELSEWHERE", 0.02)
    with another_loop() as loop:
        task = run_in(loop, begin_forever())
        asyncio.run(ended({task}))
        assert not task.done()
        asyncio.run(cancelled({task}))
        assert task.cancelled()


def test_a_loop_that_has_stopped_is_not_waited_for():
    loop = asyncio.new_event_loop()
    task = loop.run_until_complete(begin_forever())
    asyncio.run(cancelled({task}))
    assert not task.done()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()
    assert task.cancelled()
    run_on(loop, task.cancel)  # and one that is closed does nothing any more


class Node:
    """A server in a loop of its own, which outlives the loops that ask it."""

    def __init__(self, handle):
        self.handle = handle

    def __enter__(self):
        self._thread = another_loop()
        self._loop = self._thread.__enter__()
        self._server, self.handlers = run_in(self._loop, listen(self.handle))
        self.place = self._server.sockets[0].getsockname()
        return self

    def __exit__(self, *error):
        run_in(self._loop, stop(self._server, self.handlers))
        self._thread.__exit__(*error)

    def pipe(self, _place=None):
        async def find():
            return self.place

        return RedisPipe(find, patience=10)

    @property
    def connected(self):
        return sum(not handler.done() for handler in self.handlers)


def test_a_loops_connection_ends_with_it():
    with Node(echo) as node:
        pipe = node.pipe()

        async def work(number):
            calls = (pipe.execute_command("ECHO", f"{number}.{n}") for n in range(9))
            return await asyncio.gather(*calls)

        for number in range(3):
            assert asyncio.run(work(number)) == [b"%d.%d" % (number, n) for n in range(9)]
            wait_until(lambda: node.connected == 0, "connections are left")
        assert len(node.handlers) == 3


def test_closing_reaches_the_connections_of_other_loops():
    with Node(echo) as node, another_loop() as loop:
        pipe = node.pipe()
        run_in(loop, pipe.execute_command("ECHO", "x"))
        assert node.connected == 1
        asyncio.run(pipe.aclose())
        wait_until(lambda: node.connected == 0, "connections are left")


def test_a_call_that_closing_overtakes_is_answered_and_leaves_no_connection():
    connections, asked = [], []

    async def handle(reader, writer):
        connections.append(writer)
        if len(connections) > 1:
            await echo(reader, writer)
        else:
            asked.append(await command(reader))
            await reader.read()

    with Node(handle) as node, another_loop() as loop:
        pipe = node.pipe()
        call = asyncio.run_coroutine_threadsafe(pipe.execute_command("ECHO", "x"), loop)
        wait_until(lambda: asked, "nothing was asked")
        asyncio.run(pipe.aclose())
        assert call.result(10) == b"x"
        del call
        gc.collect()
        wait_until(lambda: node.connected == 0, "connections are left")
    assert len(connections) == 2


def test_a_cluster_is_learnt_in_several_loops_at_once():
    async def slow(reader, writer):
        while await command(reader):
            await asyncio.sleep(0.01)
            await answer(writer, b"*0\r\n")

    with Node(slow) as node:
        pipe = ClusterPipe([node.place], node.pipe)

        async def work(_number):  # at once, since an asyncio.Lock that waits is its loop's
            return await asyncio.gather(*(pipe._learn() for _ in range(3)))

        assert in_threads(3, work) == [[None] * 3] * 3
        asyncio.run(pipe.aclose())
