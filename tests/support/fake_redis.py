"""Servers that speak the Redis protocol as far as a test needs."""

from __future__ import annotations

import asyncio
import contextlib


async def listen(handle, host="127.0.0.1", **options):
    """A server, and the tasks of its connections."""
    handlers = []

    async def serve(reader, writer):
        handlers.append(asyncio.current_task())
        with contextlib.closing(writer), contextlib.suppress(OSError, EOFError):
            await handle(reader, writer)

    return await asyncio.start_server(serve, host, 0, **options), handlers


async def stop(server, handlers):
    server.close()
    await asyncio.gather(*handlers)
    await asyncio.sleep(0.01)
    await server.wait_closed()


async def answer(writer, data):
    writer.write(data)
    await writer.drain()


async def command(reader):
    """The words of the next command; nothing at the end."""
    head = await reader.readline()
    words = []
    for _ in range(int(head[1:] or 0)):
        size = int((await reader.readline())[1:])
        words.append((await reader.readexactly(size + 2))[:-2])
    return words


async def echo(reader, writer):
    while words := await command(reader):
        await answer(writer, b"$%d\r\n%b\r\n" % (len(words[-1]), words[-1]))
