"""The response side of one guarded request: meter it, cut it, leave its bytes alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Literal

from streamguard.asgi.body import encoded, header, without
from streamguard.asgi.types import Message, Send
from streamguard.core.billing import Spent
from streamguard.core.replies import measure
from streamguard.core.streams import StreamMeter
from streamguard.core.wire import Delta, Reply, StreamState
from streamguard.errors import ProtocolError
from streamguard.guard.call import Call
from streamguard.guard.upstream import oversized_reply
from streamguard.usage import Usage

Mode = Literal["waiting", "stream", "whole", "error", "pass"]

MAX_ERROR_BYTES = 65_536
MAX_WHOLE_BYTES = 64 * 1024 * 1024
_SUCCESS = 2
_DECODED = (None, b"", b"identity")


class Responder:
    """Sees every message of the app's response. One object a request.

    ``stop`` is called when the app has nothing left to do: it must cancel the app's scope.
    Nothing is raised from ``send``: an app that is cancelled closes its upstream, one that
    gets an exception from ``send`` does not always.
    """

    def __init__(
        self,
        call: Call,
        send: Send,
        stop: Callable[[], None],
        state: Callable[[], StreamState] | None = None,
    ) -> None:
        """``state`` makes the stream's wire format where it is not the request's own."""
        self._call = call
        self._send = send
        self._stop = stop
        self._state = state
        self._mode: Mode = "waiting"
        self._start: Message = {}
        self._meter: StreamMeter | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._spent = Spent("completed")
        self._first_token: float | None = None
        self._began = time.monotonic()
        self.status: int | None = None
        self.done = False
        self.cut = False

    async def send(self, message: Message) -> None:
        """What the app calls. Everything after the final body is swallowed."""
        if self.done:
            return
        kind = message["type"]
        if kind == "http.response.start":
            await self._on_start(message)
        elif kind == "http.response.body":
            await self._on_body(message.get("body", b""), message.get("more_body", False))
        else:
            await self._send(message)

    def spent(self) -> Spent:
        """What the response used by now."""
        if self._meter is None:
            return self._spent
        meter = self._meter
        counted = Usage(
            output_tokens=meter.observed, reasoning_tokens=meter.counted_by("reasoning")
        )
        return Spent(
            outcome="cut" if self.cut else "completed",
            counted=counted,
            reported=meter.reported,
            first_token=self._first_token,
        )

    async def _on_start(self, message: Message) -> None:
        self.status = message["status"]
        headers = list(message.get("headers", ()))
        kind = (header(headers, b"content-type") or b"").split(b";")[0].strip().lower()
        self._call.started(message["status"])
        if message["status"] // 100 != _SUCCESS:
            self._mode = "error"
        elif header(headers, b"content-encoding") not in _DECODED:
            await self._refuse_encoded()
            return
        elif kind == b"application/json" or kind.endswith(b"+json"):
            self._mode = "whole"
        else:
            self._mode = "stream" if message["status"] != HTTPStatus.NO_CONTENT else "pass"
        headers += encoded(self._call.headers())
        self._start = {**message, "headers": headers}
        if self._mode == "stream":
            self._meter = self._call.meter(self._state() if self._state else None)
            self._start["headers"] = without(headers, b"content-length")
        if self._mode != "whole":
            await self._send(self._start)

    async def _on_body(self, body: bytes, more: bool) -> None:
        if self._mode == "stream":
            await self._on_stream(body, more)
        elif self._mode == "whole":
            await self._on_whole(body, more)
        else:
            self._keep(body, MAX_ERROR_BYTES)
            await self._pass(body, more)
            if not more and self._mode == "error":
                self._learn()

    async def _on_stream(self, body: bytes, more: bool) -> None:
        meter = self._meter
        assert meter is not None  # noqa: S101 - the mode says so
        try:
            out = meter.feed(body)
            if not more and not meter.cut:
                out += meter.finish()
        except ProtocolError as error:
            await self._break_off(meter, error)
            return
        if self._first_token is None and meter.first_output:
            self._first_token = time.monotonic() - self._began
        if meter.cut:
            self.cut = True
            await self._pass(out + meter.end("cut"), more=False)
            self._stop()
        elif out or not more:
            await self._pass(out, more)

    async def _break_off(self, meter: StreamMeter, error: ProtocolError) -> None:
        await self._pass(meter.end("upstream_error", error), more=False)
        self._stop()

    async def _on_whole(self, body: bytes, more: bool) -> None:
        self._keep(body, MAX_WHOLE_BYTES)
        if self._size > MAX_WHOLE_BYTES:
            await self._refuse("the app's response is too large to be metered")
        elif not more:
            whole = b"".join(self._chunks)
            out = self._measured(whole)
            if out is not whole:
                length = (b"content-length", str(len(out)).encode())
                rest = without(self._start["headers"], b"content-length")
                self._start["headers"] = [*rest, length]
            await self._send(self._start)
            await self._pass(out, more=False)

    def _measured(self, body: bytes) -> bytes:
        """Count a whole response; the same object comes back unless it had to be cut."""
        subject = self._call.assessment.subject
        reply = subject.protocol.read_reply(subject.request, body)
        if not reply.deltas and reply.usage == Usage():
            # Not the protocol's own response: what cannot be read is counted as it stands.
            text = body.decode("utf-8", "replace")
            counted = measure(Reply([Delta((0, "raw"), text)]), self._call.tokenizer, 2**62)
            self._spent = Spent("completed", Usage(output_tokens=counted.counted))
            return body
        result = measure(reply, self._call.tokenizer, self._call.allowance)
        usage = Usage(output_tokens=result.counted, reasoning_tokens=result.reasoning)
        if result.kept is None:
            self._spent = Spent("completed", usage, reply.usage)
            return body
        self.cut = True
        self._spent = Spent("cut", usage, reply.usage)
        return subject.protocol.shorten_reply(subject.request, body, result.kept)

    def _learn(self) -> None:
        error = oversized_reply(self.status or 0, b"".join(self._chunks))
        if error is not None:
            self._call.learn_oversized(error)

    def _keep(self, body: bytes, limit: int) -> None:
        if self._size <= limit:
            self._chunks.append(body)
        self._size += len(body)

    async def _pass(self, body: bytes, more: bool) -> None:
        self.done = self.done or not more
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _refuse_encoded(self) -> None:
        await self._refuse("the app's response is compressed and cannot be metered")

    async def _refuse(self, reason: str) -> None:
        self.done = True
        self.status = 502
        body = json.dumps({"error": {"message": reason, "type": "api_error", "code": "unmetered"}})
        self._spent = Spent("unmetered", status=502)
        await self._send(
            {
                "type": "http.response.start",
                "status": 502,
                "headers": encoded(
                    [("content-type", "application/json"), ("content-length", str(len(body)))]
                ),
            }
        )
        await self._send({"type": "http.response.body", "body": body.encode(), "more_body": False})
        self._stop()

    @property
    def billed(self) -> bool:
        """Whether the provider bills what was answered: error responses cost nothing."""
        return self._mode != "error"
