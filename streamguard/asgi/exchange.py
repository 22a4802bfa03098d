"""One guarded request: the app runs in a scope that can be cancelled, and is settled once."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace

import anyio

from streamguard.asgi.body import gone, replaced
from streamguard.asgi.responder import Responder
from streamguard.asgi.types import ASGIApp, Message, Receive, Scope, Send
from streamguard.core.billing import Spent
from streamguard.core.wire import StreamState
from streamguard.errors import TimeBudgetExceededError
from streamguard.guard.call import Call
from streamguard.guard.context import current_call, end_early
from streamguard.guard.deadlines import Deadlines
from streamguard.guard.settings import Settings

_ROUTED = ("route", "endpoint", "path_params")
"""What a router says of a request, for metrics and traces around it."""


class Exchange:
    """Replays the body, watches for the client's leaving, cancels, settles."""

    def __init__(
        self,
        call: Call,
        settings: Settings,
        receive: Receive,
        send: Send,
        body: bytes,
        state: Callable[[], StreamState] | None = None,
    ) -> None:
        self._call = call
        self._settings = settings
        self._receive = receive
        self._app_scope = anyio.CancelScope()
        self._responder = Responder(call, send, self._final, self._app_scope, state)
        self._deadlines = Deadlines(settings, anyio.current_time())
        if self._deadlines.active:
            self._responder.progress = self._progress
            self._app_scope.deadline = self._deadlines.due
        self._ended: TimeBudgetExceededError | None = None
        self._left = anyio.Event()
        self._gone = False
        self._body: bytes | None = body  # until the app has it: nobody else keeps it

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Run the app on the body and settle its call, whatever happens."""
        inner = replaced(scope, len(self._body or b""))
        failure: Exception | None = None
        token = current_call.set(self._call)
        ending = end_early.set(self.end)
        # A task, not a task group: nothing of it is waited for, and a group costs far more.
        watch = asyncio.get_running_loop().create_task(self._watch())
        try:
            with self._app_scope:
                try:
                    await app(inner, self._replay, self._responder.send)
                except Exception as error:  # noqa: BLE001 - raised again below, after the settle
                    failure = error
            await self._check_time()
            if self._gone:
                await self._responder.give_up()
        finally:
            watch.cancel()
            self._responder.let_go()
            scope.update((key, inner[key]) for key in _ROUTED if key in inner)
            current_call.reset(token)
            end_early.reset(ending)
            await self._call.finish(self._call.spent or self._spent(failure))
        # How an app takes being stopped is no news; any other error is the server's to log.
        if failure is not None and not (self._responder.done and self._app_scope.cancel_called):
            try:
                raise failure
            finally:
                failure = None  # its traceback holds this frame

    def end(self, error: TimeBudgetExceededError) -> None:
        """Stop the app and end the response as if its time were up."""
        self._ended = error
        self._app_scope.cancel()

    def _progress(self, started: bool) -> None:
        self._deadlines.progress(anyio.current_time(), started=started)
        self._app_scope.deadline = self._deadlines.due

    async def _check_time(self) -> None:
        if self._app_scope.cancel_called and not (self._gone or self._responder.done):
            late = self._ended or self._deadlines.error(anyio.current_time())
            await self._responder.time_out(late)

    def _final(self) -> None:
        self._app_scope.deadline = math.inf  # what the app does after its response may take long
        self._call.finish_soon(self._spent(None))

    async def _replay(self) -> Message:
        """The app's ``receive``: the body once, then the client's leaving."""
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        if not self._left.is_set():  # who only looks (``is_disconnected``) must not wait for it
            await self._left.wait()
        return {"type": "http.disconnect"}

    async def _watch(self) -> None:
        await gone(self._receive)
        if self._responder.done:
            self._left.set()
            return
        self._gone = True
        if self._call.drains:
            await anyio.sleep(self._settings.drain_seconds)
        self._left.set()
        if not self._responder.done:
            self._app_scope.cancel()

    def _spent(self, failure: Exception | None) -> Spent:
        responder = self._responder
        if responder.cut:
            return responder.spent("cut")
        if not responder.billed:
            return replace(responder.spent(""), outcome="error_response", billed=False)
        if self._gone:
            return replace(responder.spent("disconnected"), outcome="disconnected")
        if failure is not None:
            billed = responder.status is not None
            return replace(responder.spent("app_error"), outcome="app_error", billed=billed)
        return responder.spent("completed" if responder.done else "cancelled")
