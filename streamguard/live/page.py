"""``LivePage``: what a guard is doing, as it does it. An ASGI app to mount anywhere."""

from __future__ import annotations

import time
from collections.abc import Sequence

import anyio

from streamguard import __version__
from streamguard.asgi.body import encoded
from streamguard.asgi.types import ASGIApp, Receive, Scope, Send
from streamguard.guard.engine import Engine
from streamguard.live.costs import LedgerView
from streamguard.live.document import document
from streamguard.live.door import Denial, Door
from streamguard.live.feed import Feed, Viewer, event, server_stopping
from streamguard.live.sink import LiveSink
from streamguard.live.view import LiveView

VIEWERS = 16
SEND_SECONDS = 10.0
"""How long a viewer may take to accept what it is sent."""

_EVERYWHERE = (
    ("cache-control", "no-store"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
)
_RETRY = b"retry: 2000\n"  # milliseconds
_STREAM = (
    ("content-type", "text/event-stream"),
    ("x-accel-buffering", "no"),  # nginx would hold events back
)


class LivePage:
    """Shows a guard's open streams, windows, refusals, spenders and costs in a browser.

    ::

        app.mount("/live", LivePage(guard, password=os.environ["LIVE_PASSWORD"]))

    It only reads; it holds no text of prompts or outputs. The app must run on the guard's event
    loop. Streams, refusals and conversations are those of this process; windows are the store's.

    Args:
        guard: whose calls to show.
        password: of the page, by HTTP Basic with any user name, 8 characters or more; without
            one only browsers on this machine are served.
        ledger: URL of the usage ledger that costs are read from; without one the page knows
            what this process spent since it started.
        viewers: how many may watch at once.

    Raises:
        ConfigurationError: the password is too short, or ``ledger`` is no ledger's URL or needs
            the extra ``sql``.
    """

    def __init__(
        self,
        guard: Engine,
        *,
        password: str | None = None,
        ledger: str | None = None,
        viewers: int = VIEWERS,
    ) -> None:
        self._door = Door(password)
        sink = LiveSink(on_open=self._reopen, on_close=self.close)
        guard.teller.listen(sink)
        self._view = LiveView(guard, sink, LedgerView(ledger) if ledger else None)
        self._feed = Feed(self._view.sections, most=viewers, stopping=server_stopping)

    def close(self) -> None:
        """Close every open page. Called when the guard closes; a server that waits for open
        responses before it shuts down needs it earlier (uvicorn is watched for that).
        """
        self._feed.close()

    def _reopen(self) -> None:
        self._feed.closed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the page, or its events."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "no websocket here"})
            return
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        denial = await self._door.deny(scope)
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if denial is not None:
            await deny(send, denial)
        elif scope["method"] != "GET":
            await deny(send, Denial(405, "This page only reads.", (("allow", "GET"),)))
        elif path == "/":
            found = document()
            await _answer(send, 200, found.body, found.headers)
        elif path == "/events":
            await self._events(receive, send)
        elif path == "":
            name = scope["path"].rpartition("/")[2]
            await deny(send, Denial(307, "The page is below.", (("location", f"{name}/"),)))
        else:
            await deny(send, Denial(404, "There is nothing here."))

    async def _events(self, receive: Receive, send: Send) -> None:
        if self._feed.closed or self._feed.full:
            why = "The server is shutting down." if self._feed.closed else "Too many are watching."
            await deny(send, Denial(503, why, (("retry-after", "5"),)))
            return
        headers = encoded((*_STREAM, *_EVERYWHERE))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        with self._feed.watching() as viewer:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_close_when_gone, receive, viewer)
                await _serve(viewer, send)
                tasks.cancel_scope.cancel()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.close()
        await send({"type": "lifespan.shutdown.complete"})


class Beside:
    """An ASGI app with the page below a path of it, for apps that cannot mount another."""

    def __init__(self, app: ASGIApp, page: ASGIApp, at: str = "/live") -> None:
        """``at`` begins with a slash and does not end with one."""
        self._app = app
        self._page = page
        self._at = at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the page or pass on."""
        root = scope.get("root_path", "")
        path = scope.get("path", "").removeprefix(root)
        if scope["type"] == "http" and (path == self._at or path.startswith(f"{self._at}/")):
            await self._page({**scope, "root_path": root + self._at}, receive, send)
        else:
            await self._app(scope, receive, send)


async def _close_when_gone(receive: Receive, viewer: Viewer) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    viewer.close()


async def _serve(viewer: Viewer, send: Send) -> None:
    """Send until either side ends it. A viewer that accepts nothing for long is dropped."""
    hello = event("hello", {"version": __version__, "now": time.time()})
    await send({"type": "http.response.body", "body": _RETRY + hello, "more_body": True})
    while not viewer.closed:
        data = await viewer.take()
        with anyio.move_on_after(SEND_SECONDS) as patience:
            await send({"type": "http.response.body", "body": data, "more_body": True})
        if patience.cancelled_caught:
            return
    await send({"type": "http.response.body", "body": b""})


async def deny(send: Send, denial: Denial) -> None:
    """Tell somebody why they may not come in."""
    kind = ("content-type", "text/plain; charset=utf-8")
    body = f"{denial.message}\n".encode()
    await _answer(send, denial.status, body, (kind, *denial.headers))


async def _answer(send: Send, status: int, body: bytes, headers: Sequence[tuple[str, str]]) -> None:
    pairs = (*headers, ("content-length", str(len(body))), *_EVERYWHERE)
    await send({"type": "http.response.start", "status": status, "headers": encoded(pairs)})
    await send({"type": "http.response.body", "body": body})
