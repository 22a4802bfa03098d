"""One HTTP request of a guarded client: preflight, reserve, send, meter, settle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import anyio.to_thread

from streamguard.client.io import Io, LateError, TooLargeError
from streamguard.client.memo import Memo, again
from streamguard.client.streaming import GuardedBody, byte_stream, too_late
from streamguard.core.answers import Answer
from streamguard.core.billing import Spent
from streamguard.core.strict_json import dumps, loads
from streamguard.core.wire import WireProtocol
from streamguard.errors import ProtocolError, StreamGuardError, UnsupportedBodyError
from streamguard.guard.call import Call
from streamguard.guard.counter import BIG
from streamguard.guard.deadlines import Deadlines
from streamguard.guard.engine import Engine
from streamguard.guard.metered import MAX_WHOLE_BYTES, measured, mode_of, unmetered, unseen
from streamguard.guard.numbers import refusal_headers, refusal_numbers
from streamguard.guard.provider_errors import MAX_ERROR_BYTES, failed, oversized_reply
from streamguard.guard.shape import looks_like_chat
from streamguard.guard.subject import new_request_id
from streamguard.identity import Identity
from streamguard.protocols import protocol_for_path, protocol_named

Unlisted = Literal["detect", "pass", "deny"]
"""What happens to a POST whose path is no known model endpoint (files, audio, fine-tuning):
"detect" guards a JSON body that is a chat request by its shape and passes others, "pass" passes
all, "deny" refuses all."""

_OVERSIZED = (400, 413)
_REFUSED = "streamguard.refused"
_WRITES = ("POST", "PUT", "PATCH")


@dataclass(frozen=True, slots=True)
class Flow:
    """How a client's requests are guarded. It holds configuration only.

    ``web`` is the client's library: the module ``httpx`` or ``httpx2``.
    """

    guard: Engine
    web: Any
    identity: Identity | None = None
    unlisted: Unlisted = "detect"

    async def handle(self, request: Any, transport: Any, io: Io) -> Any:
        """Answer a request: from the transport, or with the refusal it met."""
        protocol = protocol_for_path(request.url.path) if request.method == "POST" else None
        try:
            protocol = protocol or await self._detected(request, io)
            if protocol is not None:
                call, memo = await self._begin(request, protocol, io)
        except StreamGuardError as error:
            return self._refusal(error, protocol or protocol_named("openai_chat"))
        if protocol is None:
            return await io.send(transport, request)
        if isinstance(call, Answer):
            return again(call, new_request_id(), self.web)
        return await self._send(request, transport, call, memo, io)

    async def _detected(self, request: Any, io: Io) -> WireProtocol | None:
        """What a request to an unknown path is taken for."""
        if request.method not in _WRITES or self.unlisted == "pass":
            return None
        if self.unlisted == "deny":
            raise ProtocolError(
                f"{request.method} {request.url.path[:200]} is no model endpoint streamguard "
                "knows and unlisted='deny'; use an unguarded client for it"
            )
        is_chat = _is_json(request) and looks_like_chat(await io.content(request))
        return protocol_named("openai_chat") if is_chat else None

    async def _begin(
        self, request: Any, protocol: WireProtocol, io: Io
    ) -> tuple[Call | Answer, Memo]:
        if request.headers.get("content-encoding", "identity") != "identity":
            raise UnsupportedBodyError("send the request body without content-encoding")
        if not _is_json(request):
            raise UnsupportedBodyError("send the request body as application/json")
        content = await io.content(request)

        async def begin() -> tuple[Call | Answer, Memo]:
            big = len(content) > BIG
            body = await anyio.to_thread.run_sync(loads, content) if big else loads(content)
            subject = await self.guard.subject(
                body,
                path=request.url.path,
                identity=self.identity,
                protocol=protocol,
                size=len(content),
            )
            memo = Memo(self.guard.answers, subject)
            return memo.recall() or await self.guard.begin(subject), memo

        return await io.guard(begin)

    async def _send(self, request: Any, transport: Any, call: Call, memo: Memo, io: Io) -> Any:
        response = None
        deadlines = Deadlines(self.guard.settings, io.now())

        async def answer() -> Any:
            nonlocal response
            response = await io.send(transport, self._rewritten(request, call))
            return await self._answered(response, call, memo, io, deadlines)

        try:
            return await io.by(deadlines.due, answer)
        except LateError:
            late = too_late(deadlines)
            await self._end(response, call, io, Spent("timed_out", status=late.http_status))
            return self._refusal(late, call.assessment.subject.protocol)
        except BaseException as error:
            spent = failed(error)
            spent = replace(spent, counted=unseen(call, spent.outcome))
            await self._end(response, call, io, spent)
            raise

    async def _end(self, response: Any, call: Call, io: Io, spent: Spent) -> None:
        try:
            if response is not None:
                await io.close(response)
        finally:
            await io.guard(lambda: call.finish(spent))

    def _rewritten(self, request: Any, call: Call) -> Any:
        """The request as it goes out: what the guard changed in it, and no compression."""
        content = dumps(call.body) if call.changed else request.content
        headers = self.web.Headers(request.headers)
        headers.pop("transfer-encoding", None)
        headers["content-length"] = str(len(content))
        headers["accept-encoding"] = "identity"
        return self.web.Request(
            request.method,
            request.url,
            headers=headers,
            content=content,
            extensions=request.extensions,
        )

    async def _answered(
        self, response: Any, call: Call, memo: Memo, io: Io, deadlines: Deadlines
    ) -> Any:
        headers = response.headers
        call.started(response.status_code)
        mode = mode_of(
            response.status_code,
            headers.get("content-type"),
            headers.get("content-encoding"),
            call.assessment.subject.request,
        )
        if mode == "stream":
            seconds = self.guard.settings.drain_seconds
            body = GuardedBody(call, response, memo, io, deadlines, seconds)
            return self._response(response, call, stream=byte_stream(body, self.web))
        if mode == "whole":
            return await self._whole(response, call, memo, io)
        if mode == "encoded":
            return await self._unmetered(response, call, io, "is compressed", unmetered(call))
        return await self._unbilled(response, call, io, billed=mode == "empty")

    async def _whole(self, response: Any, call: Call, memo: Memo, io: Io) -> Any:
        try:
            body = await io.read(response, MAX_WHOLE_BYTES)
        except TooLargeError:
            return await self._unmetered(response, call, io, "is too large", unmetered(call))
        await io.close(response)
        body, spent = measured(call, body)
        spent = replace(spent, status=response.status_code)
        await io.guard(lambda: call.finish(spent))
        answer = self._response(response, call, content=body)
        memo.add(body)
        memo.keep(call, answer.headers)
        return answer

    async def _unbilled(self, response: Any, call: Call, io: Io, *, billed: bool) -> Any:
        """An error, which costs nothing, or an empty response."""
        status = response.status_code
        spent = Spent("error_response" if not billed else "completed", billed=billed, status=status)
        if status not in _OVERSIZED:
            await io.guard(lambda: call.finish(spent))
            return response
        try:
            body = await io.read(response, MAX_ERROR_BYTES)
        except TooLargeError:
            free = Spent("unmetered", billed=False)
            return await self._unmetered(response, call, io, "is too large", free)
        await io.close(response)
        refused = oversized_reply(status, body)
        if refused is not None:
            call.learn_oversized(refused)
        await io.guard(lambda: call.finish(spent))
        return self._response(response, call, content=body)

    async def _unmetered(self, response: Any, call: Call, io: Io, reason: str, spent: Spent) -> Any:
        """Fail closed on what cannot be counted: the upstream is stopped, nothing handed on."""
        await io.close(response)
        await io.guard(lambda: call.finish(replace(spent, status=502)))
        text = f"the provider's response {reason} and cannot be metered; nothing of it is shown"
        error = {"message": text, "type": "api_error", "code": "unmetered"}
        return self.web.Response(
            502,
            headers={"content-type": "application/json", "x-should-retry": "false"},
            content=dumps({"error": error}),
        )

    def _response(self, response: Any, call: Call, **body: Any) -> Any:
        headers = self.web.Headers(response.headers)
        for name in ("content-length", "transfer-encoding"):
            headers.pop(name, None)
        headers.update(call.headers())
        extensions = {**response.extensions, "streamguard.call": call.request_id}
        return self.web.Response(
            response.status_code, headers=headers, extensions=extensions, **body
        )

    def _refusal(self, error: StreamGuardError, protocol: WireProtocol) -> Any:
        """The response that an API with these budgets would send; the SDK raises its own error."""
        headers = dict(refusal_headers(error, new_request_id()))
        return self.web.Response(
            error.http_status,
            headers={**headers, "content-type": "application/json"},
            content=dumps(protocol.refusal(error, refusal_numbers(error))),
            extensions={_REFUSED: error},
        )


def refused_with(response: Any) -> StreamGuardError | None:
    """The refusal a response was made for, ``None`` when the provider sent it."""
    error = getattr(response, "extensions", {}).get(_REFUSED)
    return error if isinstance(error, StreamGuardError) else None


def _is_json(request: Any) -> bool:
    kind = request.headers.get("content-type", "application/json").lower()
    return "json" in kind
