"""The response side of one guarded request: meter it, cut it, leave its bytes alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from anyio import CancelScope

from streamguard.asgi.body import encoded, header, send_json, without
from streamguard.asgi.types import Message, Send
from streamguard.core.billing import Spent
from streamguard.core.strict_json import dumps
from streamguard.core.wire import StreamState
from streamguard.errors import TimeBudgetExceededError
from streamguard.guard.call import Call
from streamguard.guard.metered import (
    MAX_WHOLE_BYTES,
    MeteredStream,
    Mode,
    measured,
    mode_of,
    unmetered,
    unseen,
)
from streamguard.guard.numbers import refusal_numbers
from streamguard.guard.provider_errors import MAX_ERROR_BYTES, oversized_reply
from streamguard.protocols.unlabelled import Unlabelled, is_labelled


class Responder:
    """Sees every message of the app's response. One object a request.

    ``final`` is called just before the final body is sent, so that the books are on their way
    when the client may send its next request. ``stop`` is called when the app has nothing left
    to do: it must cancel the app's scope.
    Nothing is raised from ``send`` but for a second start: an app that is cancelled closes its
    upstream, one that gets an exception from ``send`` does not always.

    Attributes:
        progress: called with each piece of a stream, and whether output was handed on by now.
        status: of the response, ``None`` before it started.
        done: the final body was sent.
        cut: the allowance ended the response.
    """

    def __init__(
        self,
        call: Call,
        send: Send,
        final: Callable[[], None],
        app_scope: CancelScope,
        state: Callable[[], StreamState] | None = None,
    ) -> None:
        """``state`` makes the stream's wire format where it is not the request's own."""
        self._call = call
        self._send = send
        self._final = final
        self._app_scope = app_scope
        self._state = state
        self._mode: Mode = "empty"
        self._start: Message = {}
        self._stream: MeteredStream | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._whole = Spent("completed")
        self.progress: Callable[[bool], None] | None = None
        self.status: int | None = None
        self.done = False

    @property
    def cut(self) -> bool:
        """Whether the allowance ended the response."""
        return self._whole.outcome == "cut" if self._stream is None else self._stream.cut

    @property
    def billed(self) -> bool:
        """Whether the provider bills what was answered: error responses cost nothing."""
        return self._mode != "error"

    async def time_out(self, error: TimeBudgetExceededError) -> None:
        """End a response whose time budget lapsed."""
        if self._stream is not None:
            await self._pass(self._stream.time_out(error), more=False)
        elif self._mode == "whole" or self.status is None:
            subject = self._call.assessment.subject
            body = subject.protocol.refusal(error, refusal_numbers(error))
            await self._answer(error.http_status, dumps(body), Spent("timed_out"))

    async def give_up(self) -> None:
        """Answer a client that left: middlewares around take a missing response for a bug."""
        if not self.done and (self.status is None or self._mode == "whole"):
            spent = Spent("disconnected", unseen(self._call, "disconnected"))
            await self._answer(_CLIENT_LEFT, b"", spent)

    def let_go(self) -> None:
        """Drop what was called back: the request is over, and cycles keep its body in memory."""
        self._final = _nothing
        self.progress = None

    def spent(self, outcome: str) -> Spent:
        """What the response used by now; ``outcome`` is how it ended where it does not say."""
        if self._stream is not None:
            return replace(self._stream.spent(outcome), status=self.status)
        spent = replace(self._whole, status=self.status)
        if self.done:
            return spent
        return replace(spent, outcome=outcome, counted=unseen(self._call, outcome))

    async def send(self, message: Message) -> None:
        """What the app calls. Everything after the final body is swallowed, and what an app says
        that was told to stop: one that takes it for the client's leaving ends its stream bare.
        """
        if self.done or self._app_scope.cancel_called:
            return
        kind = message["type"]
        if kind == "http.response.body":
            if self._stream is not None:
                await self._on_stream(self._stream, message)
            else:
                await self._on_body(message.get("body", b""), message.get("more_body", False))
        elif kind == "http.response.start":
            await self._on_start(message)
        else:
            await self._send(message)

    async def _on_start(self, message: Message) -> None:
        if self.status is not None:  # servers say so, too
            raise RuntimeError("the app started its response twice")
        self.status = message["status"]
        headers = list(message.get("headers", ()))
        media, coding = (_text(header(headers, name)) for name in (b"content-type", _ENCODING))
        request = self._call.assessment.subject.request
        self._mode = mode_of(message["status"], media, coding, request)
        self._call.started(message["status"])
        if self._mode == "encoded":
            await self._refuse("the app's response is compressed and cannot be metered")
            return
        self._start = {**message, "headers": headers + encoded(self._call.headers())}
        if self._mode == "stream":
            self._stream = MeteredStream(self._call, self._state_of(media))
            self._start["headers"] = without(self._start["headers"], b"content-length")
        if self._mode != "whole":
            await self._send(self._start)

    def _state_of(self, media: str | None) -> StreamState | None:
        """The state of a stream where it is not simply its protocol's."""
        if self._state is not None:
            return self._state()
        subject = self._call.assessment.subject
        if is_labelled(media) or not subject.request.produces_output:
            return None
        return Unlabelled(subject.protocol.stream(subject.request))

    async def _on_body(self, body: bytes, more: bool) -> None:
        if self._mode == "whole":
            await self._on_whole(body, more)
        else:
            self._keep(body, MAX_ERROR_BYTES)
            await self._pass(body, more)
            if not more and self._mode == "error":
                self._learn()

    async def _on_stream(self, stream: MeteredStream, message: Message) -> None:
        body = message.get("body", b"")
        more = message.get("more_body", False)
        if stream.wants_more(len(body)):
            await stream.more(len(body))
        out = stream.feed(body)
        if self.progress is not None:
            self.progress(stream.handed_on)
        if out is body and more:
            await self._send(message)
            return
        if not more and not stream.over:
            out += stream.finish()
        if stream.over:
            await self._pass(out, more=False)
            self._app_scope.cancel()
        elif out or not more:
            await self._pass(out, more)

    async def _on_whole(self, body: bytes, more: bool) -> None:
        self._keep(body, MAX_WHOLE_BYTES)
        if self._size > MAX_WHOLE_BYTES:
            await self._refuse("the app's response is too large to be metered")
        elif not more:
            whole = b"".join(self._chunks)
            out, self._whole = measured(self._call, whole)
            if out is not whole:
                length = (b"content-length", str(len(out)).encode())
                rest = without(self._start["headers"], b"content-length")
                self._start["headers"] = [*rest, length]
            await self._send(self._start)
            await self._pass(out, more=False)

    def _learn(self) -> None:
        error = oversized_reply(self.status or 0, b"".join(self._chunks))
        if error is not None:
            self._call.learn_oversized(error)

    def _keep(self, body: bytes, limit: int) -> None:
        if self._size <= limit:
            self._chunks.append(body)
        self._size += len(body)

    async def _pass(self, body: bytes, more: bool) -> None:
        if not more:
            self.done = True
            self._final()
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _refuse(self, reason: str) -> None:
        """Answer in the app's stead: its response cannot be guarded."""
        error = {"message": reason, "type": "api_error", "code": "unmetered"}
        await self._answer(502, dumps({"error": error}), unmetered(self._call))
        self._app_scope.cancel()

    async def _answer(self, status: int, body: bytes, spent: Spent) -> None:
        self.done = True
        self.status = status
        self._whole = spent
        self._final()
        await send_json(self._send, status, body)


_ENCODING = b"content-encoding"
_CLIENT_LEFT = 499


def _nothing() -> None:
    pass


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
