"""Commands find their slot's master, through moves and failovers."""

from __future__ import annotations

import asyncio

import pytest
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from support.fake_redis import answer, command, listen, stop

from streamguard.stores import redis_cluster
from streamguard.stores.redis_cluster import ClusterPipe
from streamguard.stores.redis_pipe import RedisPipe

KEY = "sg1:{acme}:x"
SLOT = key_slot(KEY.encode())


class Node:
    """A node that answers CLUSTER SLOTS with ``ranges`` and all else by ``script``, then by
    its name; it remembers what it was asked.
    """

    def __init__(self, name, *script):
        self.name, self.script, self.asked = name, list(script), []
        self.ranges = []

    async def start(self):
        self.server, self.handlers = await listen(self.handle)
        self.port = self.server.sockets[0].getsockname()[1]

    async def handle(self, reader, writer):
        while words := await command(reader):
            if words[0] == b"CLUSTER":
                await answer(writer, self.slots())
                continue
            self.asked.append(words[0])
            if words[0] == b"ASKING":
                await answer(writer, b"+OK\r\n")
            else:
                reply = self.script.pop(0) if self.script else f"+{self.name}"
                await answer(writer, f"{reply}\r\n".encode())

    def slots(self):
        rows = [
            f"*3\r\n:{first}\r\n:{last}\r\n*2\r\n$0\r\n\r\n:{node.port}\r\n"
            for first, last, node in self.ranges
        ]
        return f"*{len(rows)}\r\n{''.join(rows)}".encode()


def run(nodes, work):
    async def go():
        for node in nodes:
            await node.start()

        def make(place):
            async def find():
                return place

            return RedisPipe(find)

        pipe = ClusterPipe([("127.0.0.1", node.port) for node in nodes], make)
        try:
            return await work(pipe)
        finally:
            await pipe.aclose()
            for node in nodes:
                await stop(node.server, node.handlers)

    return asyncio.run(go())


def pair(*script):
    """Two nodes: the first has all slots."""
    first, second = Node("first", *script), Node("second")
    first.ranges = second.ranges = [(0, 16_383, first)]
    return first, second


def test_keys_go_to_their_masters():
    low, high = Node("low"), Node("high")
    low.ranges = high.ranges = [(0, SLOT - 1, low), (SLOT, 16_383, high)]

    async def work(pipe):
        return (
            await pipe.execute_command("GET", KEY),
            await pipe.execute_command("EVALSHA", "sha", 1, KEY, b"argument"),
            await pipe.execute_command("GET", _key_below()),
        )

    assert run([low, high], work) == (b"high", b"high", b"low")


def _key_below():
    return next(f"k{n}" for n in range(10**6) if key_slot(f"k{n}".encode()) < SLOT)


def test_moved_slot_is_followed_and_learnt():
    first, second = pair()

    async def work(pipe):
        await pipe.execute_command("GET", KEY)
        first.script = [f"-MOVED {SLOT} 127.0.0.1:{second.port}"]
        first.ranges = second.ranges = [(0, 16_383, second)]
        return [await pipe.execute_command("GET", KEY) for _ in range(2)], first.asked

    replies, asked = run([first, second], work)
    assert replies == [b"second", b"second"]
    assert len(asked) == 2


def test_slot_on_the_move_is_asked_for_once():
    first, second = pair()

    async def work(pipe):
        first.script = [f"-ASK {SLOT} :{second.port}"]
        replies = [await pipe.execute_command("GET", KEY) for _ in range(2)]
        return replies, second.asked

    assert run([first, second], work) == ([b"second", b"first"], [b"ASKING", b"GET"])


def test_cluster_that_asks_for_patience_gets_it(monkeypatch):
    monkeypatch.setattr(redis_cluster, "PAUSE", 0.001)
    first, second = pair("-TRYAGAIN later", "-CLUSTERDOWN later")
    assert run([first, second], lambda pipe: pipe.execute_command("GET", KEY)) == b"first"


def test_patience_ends(monkeypatch):
    monkeypatch.setattr(redis_cluster, "PAUSE", 0.001)
    first, second = pair(*["-CLUSTERDOWN later"] * redis_cluster.ATTEMPTS)

    async def work(pipe):
        with pytest.raises(RedisConnectionError, match="no master that answers"):
            await pipe.execute_command("GET", KEY)

    run([first, second], work)


def test_other_errors_are_raised():
    first, second = pair("-ERR no")

    async def work(pipe):
        with pytest.raises(ResponseError, match="ERR no"):
            await pipe.execute_command("GET", KEY)

    run([first, second], work)


def test_dead_master_is_replaced_by_what_another_node_says(monkeypatch):
    monkeypatch.setattr(redis_cluster, "PAUSE", 0.001)
    first, second = pair()

    async def work(pipe):
        before = await pipe.execute_command("GET", KEY)
        second.ranges = [(0, 16_383, second)]
        await pipe._pipe(("127.0.0.1", first.port)).aclose()
        await stop(first.server, first.handlers)
        return before, await pipe.execute_command("GET", KEY)

    assert run([first, second], work) == (b"first", b"second")


def test_slot_without_a_master():
    node = Node("half")
    node.ranges = [(0, SLOT - 1, node)]

    async def work(pipe):
        with pytest.raises(RedisConnectionError, match=f"slot {SLOT} has no master"):
            await pipe.execute_command("GET", KEY)

    run([node], work)


def test_no_node_answers():
    node = Node("gone")

    async def work(pipe):
        await stop(node.server, node.handlers)
        with pytest.raises(RedisConnectionError, match="no node of the cluster answers"):
            await pipe.info("memory")

    run([node], work)
