"""The pure-ASGI middleware: which requests are guarded, and what refused clients get."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from streamguard.asgi.body import ClientGone, encoded, read_body, too_large
from streamguard.asgi.exchange import Exchange
from streamguard.asgi.looking import is_chat, loaded, look, replaying
from streamguard.asgi.patience import unless_gone
from streamguard.asgi.replay import Recorder, resend
from streamguard.asgi.types import ASGIApp, Message, Receive, Scope, Send
from streamguard.core.strict_json import dumps
from streamguard.core.wire import StreamState, WireProtocol
from streamguard.errors import (
    ConfigurationError,
    ProtocolError,
    StoreUnavailableError,
    StreamGuardError,
)
from streamguard.guard.context import identity_source
from streamguard.guard.engine import Engine
from streamguard.guard.numbers import refusal_headers, refusal_numbers
from streamguard.guard.shape import may_be_object
from streamguard.guard.subject import new_request_id
from streamguard.identity import ANONYMOUS, Identity
from streamguard.protocols import normal_path, protocol_for_path, protocol_named, stream_named

Identify = Callable[[Scope], Identity | Awaitable[Identity]]
Unlisted = Literal["detect", "pass", "deny"]

MAX_BODY = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Route:
    """How one path is guarded.

    Attributes:
        protocol: the request's wire format, such as "openai_chat"; ``None`` exempts the path.
        response: the stream's wire format where it differs, such as "ai_sdk" or "plain".
    """

    protocol: str | None
    response: str | None = None


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
        _check(guard, identify, routes or {})
        self.app = app
        self.guard = guard
        self.identify = identify
        if unlisted not in get_args(Unlisted):
            raise ConfigurationError(f"unlisted={unlisted!r}; use one of {get_args(Unlisted)}")
        self.unlisted = unlisted
        self.max_body = max_body
        self._routes = {normal_path(path): _route(given) for path, given in (routes or {}).items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Guard one connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket" and self._refuses_websocket(scope):
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "not guarded"})
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        token = identity_source.set(_Once(self.identify, scope))
        try:
            route = self._route(scope)
            method = scope["method"].upper()
            if route.protocol is None and route is not _UNLISTED:
                await self.app(scope, receive, send)
            elif method != "POST" and self.unlisted != "pass" and _brings_body(scope, method):
                await self._detect(scope, receive, send, route)
            elif method != "POST":
                await self.app(scope, receive, send)
            elif route is _UNLISTED:
                await self._unlisted(scope, receive, send)
            else:
                await self._guarded(scope, receive, send, route)
        finally:
            identity_source.reset(token)

    def _route(self, scope: Scope) -> Route:
        path = normal_path(_path(scope))
        if path in self._routes:
            return self._routes[path]
        protocol = protocol_for_path(_path(scope))
        return _UNLISTED if protocol is None else Route(protocol.name)

    def _refuses_websocket(self, scope: Scope) -> bool:
        path = normal_path(_path(scope))
        return self.unlisted == "deny" or path.endswith(("/realtime", "/responses"))

    async def _unlisted(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = normal_path(_path(scope))
        if self.unlisted == "deny" or (self.unlisted == "detect" and _UNMETERED.search(path)):
            message = (
                f"POST {path[:200]} is not guarded and denied by policy; list it in routes= to "
                "guard it, or as None to let it through"
            )
            await _refuse(send, protocol_named("openai_chat"), ProtocolError(message))
        elif self.unlisted == "detect":
            await self._detect(scope, receive, send, route=_UNLISTED)
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
        elif await is_chat(body):
            await self._guarded(scope, replay, send, route if route.protocol else _CHAT)
        else:
            await self.app(scope, replay, send)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send, route: Route) -> None:
        protocol = protocol_named(route.protocol or "")
        request_id = new_request_id()
        try:
            body = await read_body(scope, receive, self.max_body)
            subject = await self.guard.subject(
                await loaded(body),
                path=_path(scope),
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
        state = _state(route.response)
        recorder = None if answers is None else Recorder(send, answers.max_answer)
        passed = send if recorder is None else recorder.send
        exchange = Exchange(call, self.guard.settings, receive, passed, state)
        await exchange.run(self.app, scope, dumps(call.body) if call.changed else body)
        if answers is not None and recorder is not None:
            answers.keep(subject, call.spent, recorder.answer)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await self.guard.close()
            await send(message)

        startup = await receive()
        try:
            await self.guard.open()
        except StoreUnavailableError:
            pass  # it may come back: each call tries again, and is refused until then
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await self.app(scope, replaying([startup], receive), closing)


_UNLISTED = Route(None)
_CHAT = Route("openai_chat")
_EDITS = frozenset({"PUT", "PATCH", "QUERY"})
"""Methods that are no model's, but that an app may take on the same path as a POST."""
_LENGTHS = frozenset({b"content-length", b"transfer-encoding"})

_UNMETERED = re.compile(
    r"/v1(?:beta)?/(?:audio|images|videos|realtime|batches|fine_tuning|assistants|threads|"
    r"messages/batches)(?:/|$)|:batchgeneratecontent$|:predict$"
)
"""Model endpoints that cost money and that no wire format here can meter."""


class _Once:
    """Asks ``identify`` at most once a request, when somebody must be charged."""

    def __init__(self, identify: Identify | None, scope: Scope) -> None:
        self._identify = identify
        self._scope = scope
        self._found: Identity | None = None

    async def __call__(self) -> Identity:
        if self._identify is None:
            return ANONYMOUS
        if self._found is None:
            found = self._identify(self._scope)
            self._found = await found if inspect.isawaitable(found) else found
        return self._found


async def _refuse(
    send: Send, protocol: WireProtocol, error: StreamGuardError, request_id: str | None = None
) -> None:
    body = dumps(protocol.refusal(error, refusal_numbers(error)))
    headers = [
        ("content-type", "application/json"),
        ("content-length", str(len(body))),
        *refusal_headers(error, request_id or new_request_id()),
    ]
    await send(
        {
            "type": "http.response.start",
            "status": error.http_status,
            "headers": encoded(headers),
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _check(guard: object, identify: object, routes: object) -> None:
    """Refuse what could fail only at a request, or would never match one."""
    if not isinstance(guard, Engine):
        raise ConfigurationError(f"guard= must be a Guard, not {type(guard).__name__}")
    if identify is not None and not callable(identify):
        raise ConfigurationError("identify= must be a callable from the scope to an Identity")
    if not isinstance(routes, Mapping):
        raise ConfigurationError("routes= must be a table such as {'/chat': 'openai_chat'}")
    for path in routes:
        if "{" in path:
            message = f"routes= names {path!r}; paths are compared as they are, without parameters"
            raise ConfigurationError(message)


def _route(given: str | Route | None) -> Route:
    route = given if isinstance(given, Route) else Route(given)
    try:
        if route.protocol is not None:
            protocol_named(route.protocol)
        if route.response is not None:
            stream_named(route.response)
    except KeyError as error:
        raise ConfigurationError(f"routes= names an unknown protocol: {error.args[0]}") from error
    return route


def _state(name: str | None) -> Callable[[], StreamState] | None:
    return None if name is None else stream_named(name)


def _brings_body(scope: Scope, method: str) -> bool:
    """Whether a body may come: with a GET too, which an app may take for a POST."""
    sizes = [value for name, value in scope["headers"] if name.lower() in _LENGTHS]
    return method in _EDITS or scope.get("http_version", "1") >= "2" or sizes not in ([], [b"0"])


def _path(scope: Scope) -> str:
    """The path with the mount prefix taken off, as the app's router sees it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    rest = path.removeprefix(root)
    return path if rest and rest[0] != "/" else rest
