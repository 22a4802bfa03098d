"""The shared connection: replies in order, at any split, over lost and silent connections."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import (
    AuthenticationError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from support.fake_redis import answer, command, echo, listen, stop
from support.redis_server import needs_redis, redis_server

from streamguard.stores import open_store
from streamguard.stores.redis_pipe import RedisPipe
from streamguard.stores.resp import Replies, encode

REPLIES = [
    (b"+OK\r\n", b"OK"),
    (b":-12\r\n", -12),
    (b"$-1\r\n", None),
    (b"*-1\r\n", None),
    (b"$0\r\n\r\n", b""),
    (b"$5\r\na\r\n\x00b\r\n", b"a\r\n\x00b"),
    (b"*0\r\n", []),
    (b"*3\r\n:1\r\n*1\r\n$2\r\nxy\r\n$-1\r\n", [1, [b"xy"], None]),
]


@given(
    chosen=st.lists(st.sampled_from(REPLIES), max_size=6),
    cuts=st.lists(st.integers(0, 120), max_size=8),
)
def test_replies_at_any_split(chosen, cuts):
    data = b"".join(raw for raw, _ in chosen)
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    replies, parser = [], Replies()
    for start, end in pairwise(edges):
        replies += parser.feed(data[start:end])
    assert replies == [value for _, value in chosen]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"-NOSCRIPT no", NoScriptError),
        (b"-READONLY no", ReadOnlyError),
        (b"-NOAUTH no", AuthenticationError),
        (b"-ERR \xff", ResponseError),
    ],
)
def test_errors(line, kind):
    assert [type(reply) for reply in Replies().feed(line + b"\r\n")] == [kind]


def test_encode():
    assert encode(("SET", b"\x00", 12, "ü")) == (
        b"*4\r\n$3\r\nSET\r\n$1\r\n\x00\r\n$2\r\n12\r\n$2\r\n\xc3\xbc\r\n"
    )


def with_server(handle, work, **options):
    """A pipe to a server that is only ``handle(reader, writer)``."""

    async def go():
        server, handlers = await listen(handle)
        port = server.sockets[0].getsockname()[1]

        async def find():
            return "127.0.0.1", port

        pipe = RedisPipe(find, **options)
        try:
            return await work(pipe)
        finally:
            await pipe.aclose()
            await stop(server, handlers)

    return asyncio.run(go())


def test_calls_share_the_connection_and_get_their_own_replies():
    connections = []

    async def handle(reader, writer):
        connections.append(writer)
        await echo(reader, writer)

    async def work(pipe):
        return await asyncio.gather(*(pipe.execute_command("ECHO", n) for n in range(500)))

    assert with_server(handle, work) == [str(n).encode() for n in range(500)]
    assert len(connections) == 1


def test_cancelled_call_keeps_its_place():
    async def work(pipe):
        calls = [asyncio.create_task(pipe.execute_command("ECHO", n)) for n in range(100)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for call in calls[::3]:
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        last = await pipe.execute_command("ECHO", "last")
        return [r for r in results if isinstance(r, bytes)], last

    results, last = with_server(echo, work)
    assert results == [str(n).encode() for n in range(100) if n % 3]
    assert last == b"last"


def test_lost_connection_is_made_again_once():
    connections = []

    async def handle(reader, writer):
        connections.append(writer)
        if len(connections) == 1:
            await command(reader)
        else:
            await echo(reader, writer)

    assert with_server(handle, lambda pipe: pipe.execute_command("ECHO", "x")) == b"x"
    assert len(connections) == 2


def test_connection_lost_twice_is_an_error():
    async def handle(reader, writer):
        await command(reader)

    async def work(pipe):
        with pytest.raises(RedisConnectionError):
            await pipe.execute_command("ECHO", "x")

    with_server(handle, work)


def test_silent_server_is_reconnected_to():
    connections = []

    async def handle(reader, writer):
        connections.append(writer)
        if len(connections) > 1:
            await echo(reader, writer)
        else:
            await reader.read()

    async def work(pipe):
        late = asyncio.create_task(pipe.execute_command("ECHO", "x"))
        gone = asyncio.create_task(pipe.execute_command("ECHO", "gone"))
        await asyncio.sleep(0.25)
        gone.cancel()
        young = asyncio.create_task(pipe.execute_command("ECHO", "z"))
        with pytest.raises(TimeoutError):
            await late
        return await young, await pipe.execute_command("ECHO", "y")

    assert with_server(handle, work, patience=0.4) == (b"z", b"y")


def test_busy_connection_is_not_late():
    async def work(pipe):
        for number in range(12):
            await pipe.execute_command("ECHO", number)
            await asyncio.sleep(0.04)
        slow = asyncio.create_task(pipe.execute_command("ECHO", "slow"))
        await asyncio.sleep(0)
        return await slow

    assert with_server(echo, work, patience=0.3) == b"slow"


def test_timer_waits_for_the_oldest_that_is_left():
    async def handle(reader, writer):
        for pause in (0.2, 0.25):
            words = await command(reader)
            await asyncio.sleep(pause)
            await answer(writer, b"+%b\r\n" % words[-1])

    async def work(pipe):
        first = asyncio.create_task(pipe.execute_command("ECHO", "a"))
        await asyncio.sleep(0.15)
        second = asyncio.create_task(pipe.execute_command("ECHO", "b"))
        return await first, await second

    assert with_server(handle, work, patience=0.42) == (b"a", b"b")


def test_connecting_takes_no_longer_than_patience():
    async def go():
        async def find():
            await asyncio.sleep(3600)

        with pytest.raises(TimeoutError):
            await RedisPipe(find, patience=0.02).execute_command("ECHO", "x")

    asyncio.run(go())


def test_replica_is_left():
    connections = []

    async def handle(reader, writer):
        connections.append(writer)
        if len(connections) > 1:
            await echo(reader, writer)
        else:
            await command(reader)
            await answer(writer, b"-READONLY replica\r\n")
            await reader.read()

    async def work(pipe):
        with pytest.raises(ReadOnlyError):
            await pipe.execute_command("ECHO", "x")
        await asyncio.sleep(0.01)
        return await pipe.execute_command("ECHO", "y")

    assert with_server(handle, work) == b"y"


def test_asking_a_lost_wire_fails():
    async def work(pipe):
        await pipe.execute_command("ECHO", "x")
        wire = pipe._lines.here().wire
        wire.abort()
        await asyncio.sleep(0.01)
        wire.abort()
        with pytest.raises(RedisConnectionError):
            wire.ask(("ECHO", "y"), 0.0)

    with_server(echo, work)


@needs_redis
def test_password_and_database():
    with redis_server() as server:
        with server.client() as client:
            client.config_set("requirepass", "sesame")

        async def go(url):
            store = open_store(url)
            await store.open()
            info = await store._client.execute_command("CLIENT", "INFO")
            await store.close()
            return info

        assert b" db=3 " in asyncio.run(go(f"redis://:sesame@127.0.0.1:{server.port}/3"))
        for login in ("", ":wrong@"):
            with pytest.raises(Exception, match=r"AuthenticationError"):
                asyncio.run(go(f"redis://{login}127.0.0.1:{server.port}/3"))


def test_tls(tmp_path):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip

    async def go(options):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        server, handlers = await listen(echo, "localhost", ssl=context)
        port = server.sockets[0].getsockname()[1]
        pipe = open_store(f"rediss://localhost:{port}/0?{options}")._connect()
        try:
            return await pipe.execute_command("ECHO", "secret")
        finally:
            await pipe.aclose()
            await stop(server, handlers)

    assert asyncio.run(go(f"ssl_ca_certs={cert}")) == b"secret"
    assert asyncio.run(go("ssl_cert_reqs=none")) == b"secret"
    both = f"ssl_ca_certs={cert}&ssl_certfile={cert}&ssl_keyfile={key}"
    assert asyncio.run(go(both)) == b"secret"
    with pytest.raises((ssl.SSLError, RedisError)):
        asyncio.run(go(""))
