"""Event loops of threads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor


def in_threads(count, work):
    """Run ``work(number)`` at once in so many threads, each with an event loop."""

    def run(number):
        return asyncio.run(asyncio.wait_for(work(number), 20))

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


@contextlib.contextmanager
def another_loop():
    """A loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
        run_in(loop, loop.shutdown_asyncgens())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def run_in(loop, work):
    """What a coroutine gives that runs in another thread's loop."""
    return asyncio.run_coroutine_threadsafe(work, loop).result(20)
