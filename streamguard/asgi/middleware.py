"""The pure-ASGI middleware: which requests are guarded, and what refused clients get."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

from streamguard.asgi.body import ClientGone, read_body, send_json, too_large
from streamguard.asgi.exchange import Exchange
from streamguard.asgi.identified import Identify, identified
from streamguard.asgi.lifespan import lifespan
from streamguard.asgi.looking import is_chat, loaded, look, replaying
from streamguard.asgi.patience import unless_gone
from streamguard.asgi.replay import Recorder, resend
from streamguard.asgi.routes import (
    CHAT,
    UNLISTED,
    Route,
    Routes,
    brings_body,
    is_model_socket,
    is_unmetered,
    path_of,
)
from streamguard.asgi.types import ASGIApp, Receive, Scope, Send
from streamguard.core.strict_json import dumps
from streamguard.core.wire import WireProtocol
from streamguard.errors import ConfigurationError, ProtocolError, StreamGuardError
from streamguard.guard.engine import Engine
from streamguard.guard.numbers import refusal_headers, refusal_numbers
from streamguard.guard.shape import may_be_object
from streamguard.guard.subject import new_request_id
from streamguard.protocols import protocol_named, stream_named

Unlisted = Literal["detect", "pass", "deny"]

MAX_BODY = 4 * 1024 * 1024


class StreamGuardMiddleware:
    """Guards an ASGI app's model endpoints. Holds configuration only.

    ``identify(scope)`` says who is charged, from what the app's own authentication proved;
    mount the middleware inside the authentication. ``routes`` adds paths to the well-known
    ones (``{"/chat": "openai_chat", "/internal": None}``). ``unlisted`` is what happens to
    other POSTs: "detect" guards bodies that are model requests by their shape and refuses JSON
    over ``max_body`` bytes, "deny" refuses them; bodies of other methods are looked at; "pass"
    lets all through.

    When a stream is cut or the client leaves, the app is cancelled, and a background task that
    would have followed does not run; one that follows a whole response is left alone. Runs on
    asyncio.

    Raises:
        ConfigurationError: a route names an unknown protocol or has parameters, ``unlisted`` is
            another word, or ``guard`` or ``identify`` is none.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        guard: Engine,
        identify: Identify | None = None,
        routes: Mapping[str, str | Route | None] | None = None,
        unlisted: Unlisted = "detect",
        max_body: int = MAX_BODY,
    ) -> None:
        _check(guard, identify, unlisted)
        self.app = app
        self.guard = guard
        self.identify = identify
        self.unlisted = unlisted
        self.max_body = max_body
        self._routes = Routes({} if routes is None else routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Guard one connection."""
        if scope["type"] == "lifespan":
            await lifespan(self.app, self.guard, scope, receive, send)
        elif scope["type"] == "http":
            with identified(self.identify, scope):
                await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            with identified(self.identify, scope):
                await self._websocket(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._routes.of(scope)
        method = scope["method"].upper()
        if route.exempt:
            await self.app(scope, receive, send)
        elif method != "POST" and self.unlisted != "pass" and brings_body(scope, method):
            await self._detect(scope, receive, send, route)
        elif method != "POST":
            await self.app(scope, receive, send)
        elif route is UNLISTED:
            await self._unlisted(scope, receive, send)
        else:
            await self._guarded(scope, receive, send, route)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Calls made inside are charged; a model's own socket is refused, unless exempted."""
        refused = self.unlisted == "deny" or is_model_socket(path_of(scope))
        if refused and not self._routes.of(scope).exempt:
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "not guarded"})
        else:
            await self.app(scope, receive, send)

    async def _unlisted(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = path_of(scope)
        if self.unlisted == "deny" or (self.unlisted == "detect" and is_unmetered(path)):
            message = (
                f"POST {path[:200]} is not guarded and denied by policy; list it in routes= to "
                "guard it, or as None to let it through"
            )
            await _refuse(send, protocol_named("openai_chat"), ProtocolError(message))
        elif self.unlisted == "detect":
            await self._detect(scope, receive, send, route=UNLISTED)
        else:
            await self.app(scope, receive, send)

    async def _detect(self, scope: Scope, receive: Receive, send: Send, route: Route) -> None:
        """Guard a body that is a model request by its shape; replay any other.

        The client writes the content type, so it is not asked. A JSON object that is too long
        to look at is refused: it might be one.
        """
        seen, more = await look(receive, self.max_body)
        body = b"".join(message.get("body", b"") for message in seen)
        replay = replaying(seen, receive)
        if may_be_object(body) is not False and more:
            error = too_large(len(body), self.max_body)
            await _refuse(send, protocol_named(route.protocol or "openai_chat"), error)
            return
        chat = await is_chat(body)
        del seen, body  # a stream lasts: nobody keeps what the app has read
        if chat:
            await self._guarded(scope, replay, send, route if route.protocol else CHAT)
        else:
            await self.app(scope, replay, send)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, route: Route) -> None:
        protocol = protocol_named(route.protocol or "")
        request_id = new_request_id()
        try:
            body = await read_body(scope, receive, self.max_body)
            subject = await self.guard.subject(
                await loaded(body),
                path=path_of(scope),
                protocol=protocol,
                request_id=request_id,
                size=len(body),
            )
            answers = self.guard.answers
            known = None if answers is None else answers.recall(subject)
            if known is not None:
                await resend(send, known, request_id)
                return
            call = await unless_gone(self.guard, subject, receive)
        except ClientGone:
            return
        except StreamGuardError as error:
            await _refuse(send, protocol, error, request_id)
            return
        if call.changed:
            body = dumps(call.body)
        recorder = None if answers is None else Recorder(send, answers.max_answer)
        passed = send if recorder is None else recorder.send
        state = None if route.response is None else stream_named(route.response)
        exchange = Exchange(call, self.guard.settings, receive, passed, body, state)
        del body  # a stream lasts: nobody keeps what the app has read
        await exchange.run(self.app, scope)
        if answers is not None and recorder is not None:
            answers.keep(subject, call.spent, recorder.answer)


async def _refuse(
    send: Send, protocol: WireProtocol, error: StreamGuardError, request_id: str | None = None
) -> None:
    body = dumps(protocol.refusal(error, refusal_numbers(error)))
    headers = refusal_headers(error, request_id or new_request_id())
    await send_json(send, error.http_status, body, headers)


def _check(guard: object, identify: object, unlisted: object) -> None:
    """Refuse what could fail only at a request."""
    if not isinstance(guard, Engine):
        raise ConfigurationError(f"guard= must be a Guard, not {type(guard).__name__}")
    if identify is not None and not callable(identify):
        raise ConfigurationError("identify= must be a callable from the scope to an Identity")
    if unlisted not in get_args(Unlisted):
        raise ConfigurationError(f"unlisted={unlisted!r}; use one of {get_args(Unlisted)}")
