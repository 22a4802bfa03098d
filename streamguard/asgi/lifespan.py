"""The guard opens when the app starts and closes when it has shut down."""

from __future__ import annotations

from streamguard.asgi.looking import replaying
from streamguard.asgi.types import ASGIApp, Message, Receive, Scope, Send
from streamguard.errors import StoreUnavailableError
from streamguard.guard.engine import Engine


async def lifespan(app: ASGIApp, guard: Engine, scope: Scope, receive: Receive, send: Send) -> None:
    """Open the guard, run the app's lifespan, close the guard; also where the app has none."""
    startup = await receive()
    try:
        await guard.open()
    except StoreUnavailableError:
        pass  # it may come back: each call tries again, and is refused until then
    except Exception as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        raise
    telling = _Telling(guard, send)
    try:
        await app(scope, replaying([startup], receive), telling.send)
    except Exception:
        if telling.told:
            raise
    if not telling.told:  # servers take an app that fails here, or returns, for one without it
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await telling.send({"type": "lifespan.shutdown.complete"})


class _Telling:
    """Passes on what the app says; closes the guard before the last word.

    Attributes:
        told: the app said anything: it has a lifespan.
    """

    def __init__(self, guard: Engine, send: Send) -> None:
        self._guard = guard
        self._send = send
        self.told = False

    async def send(self, message: Message) -> None:
        """What the app calls."""
        self.told = True
        if message["type"] != "lifespan.startup.complete":
            await self._guard.close()
        await self._send(message)
