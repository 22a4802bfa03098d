"""Forwards a request to its upstream and the response back, byte by byte. Guards nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import aiohttp
import structlog
from yarl import URL

from streamguard.asgi.body import ClientGone, read_body
from streamguard.asgi.types import Receive, Scope, Send
from streamguard.core.strict_json import loads
from streamguard.errors import StreamGuardError, TimeBudgetExceededError
from streamguard.gateway.answers import refuse, refuse_late
from streamguard.gateway.headers import back, onward, onward_query
from streamguard.gateway.routes import Route, model_in, plain_path
from streamguard.gateway.upstreams import Upstream, choose
from streamguard.guard.context import current_call, end_early

ROUTE = "streamguard.route"
"""Where in the scope the gate leaves the request's route."""

CONNECT_SECONDS = 10.0
KEEP_SECONDS = 30.0
CHUNK = 65_536
MAX_BODY = 8 * 1024 * 1024
MAX_ERROR = 1024 * 1024


class BrokenUpstreamError(Exception):
    """The upstream broke off its response: so must the gateway, or it would look complete."""


class Proxy:
    """An ASGI app. ``upstreams`` is asked anew for every request, so that it may change.

    Attributes:
        running: for each guarded call under way, what ends it early.
    """

    def __init__(
        self, upstreams: Callable[[], Sequence[Upstream]], *, pass_credentials: bool = False
    ) -> None:
        """``pass_credentials`` sends the caller's own key on where the gateway holds none."""
        self._upstreams = upstreams
        self._pass = pass_credentials
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self.running: set[Callable[[TimeBudgetExceededError], None]] = set()

    async def open(self) -> None:
        """Make the connection pool; it belongs to the running loop."""
        self._closed = False
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, ttl_dns_cache=30, keepalive_timeout=KEEP_SECONDS
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            read_bufsize=CHUNK,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close all connections; a call that comes now is refused, and opens none."""
        self._closed = True
        if self._session is not None:
            await self._session.close()
            self._session = None

    def end_all(self, error: TimeBudgetExceededError) -> None:
        """End every running call early, each in its protocol's own form."""
        for end in list(self.running):
            end(error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward one request."""
        route: Route = scope[ROUTE]
        end = end_early.get()
        try:
            if end is None:
                body = await read_body(scope, receive, MAX_BODY)
            else:
                self.running.add(end)
                body = (await receive())["body"]
            await self._to_upstream(scope, route, body, send)
        except ClientGone:
            return
        except StreamGuardError as error:
            await refuse(send, route.family, error.http_status, error.http_code, error.message)
        finally:
            if end is not None:
                self.running.discard(end)

    async def _to_upstream(self, scope: Scope, route: Route, body: bytes, send: Send) -> None:
        path = plain_path(scope) or "/"
        call = current_call.get()
        if call is None:
            model = model_in(path) or _model_of(body)
        else:
            model = call.assessment.subject.request.model
        upstream = choose(self._upstreams(), route.family, model)
        if upstream is None:
            named = f" for model {model[:100]!r}" if model else ""
            message = f"no upstream of the {route.family} family is configured{named}"
            await refuse(send, route.family, 404, "no_upstream", message)
            return
        query = onward_query(scope, upstream, pass_credentials=self._pass)
        sending = _Sending(scope["method"], upstream, upstream.url + path + query, body)
        await self._forward(sending, scope, route.family, send)

    async def _forward(self, sending: _Sending, scope: Scope, family: str, send: Send) -> None:
        if self._closed:
            await refuse_late(send, family)
            return
        if self._session is None:
            await self.open()
        assert self._session is not None  # noqa: S101 - opened above
        relay = _Relay(family, sending.upstream, send)
        try:
            async with self._session.request(
                sending.method,
                URL(sending.target, encoded=True),
                data=sending.body or None,
                headers=onward(scope["headers"], sending.upstream, pass_credentials=self._pass),
                allow_redirects=False,
            ) as answer:
                await relay.answer(answer)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            await relay.failed(error)


class _Sending:
    """One request as it goes out."""

    __slots__ = ("body", "method", "target", "upstream")

    def __init__(self, method: str, upstream: Upstream, target: str, body: bytes) -> None:
        self.method = method
        self.upstream = upstream
        self.target = target
        self.body = body


class _Relay:
    """The way back of one response."""

    def __init__(self, family: str, upstream: Upstream, send: Send) -> None:
        self._family = family
        self._upstream = upstream
        self._send = send
        self._started = False

    async def answer(self, answer: aiohttp.ClientResponse) -> None:
        """Hand the response on: good ones as they come, errors whole."""
        status, name = answer.status, self._upstream.name
        if 300 <= status < 400:  # noqa: PLR2004
            await self._refuse(f"upstream {name} redirects; set its url to where it points")
        elif status == 401 and self._upstream.key:  # noqa: PLR2004
            await self._refuse(f"upstream {name} does not accept the gateway's key")
        elif status >= 400:  # noqa: PLR2004
            await self._error(answer)
        else:
            await self._stream(answer)

    async def failed(self, error: BaseException) -> None:
        """The upstream could not be asked, or broke off.

        Raises:
            BrokenUpstreamError: part of the response is out.
        """
        kind = type(error).__name__
        structlog.get_logger("streamguard").warning(
            "upstream_failed", upstream=self._upstream.name, error=kind, started=self._started
        )
        if self._started:
            raise BrokenUpstreamError from None
        await self._refuse(f"upstream {self._upstream.name} is out of reach ({kind}); try again")

    async def _refuse(self, message: str) -> None:
        await refuse(self._send, self._family, 502, "upstream_error", message)

    async def _stream(self, answer: aiohttp.ClientResponse) -> None:
        await self._start(answer, back(answer.raw_headers, self._upstream.key))
        send = self._send
        async for data in answer.content.iter_any():
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _error(self, answer: aiohttp.ClientResponse) -> None:
        """Errors may quote the request: the gateway's key is blackened in them."""
        body, key = bytearray(), self._upstream.key.encode()
        async for data in answer.content.iter_any():
            body += data
            if len(body) > MAX_ERROR:
                break
        if len(body) > MAX_ERROR or "content-encoding" in answer.headers:
            await self._refuse(f"upstream {self._upstream.name} answered {answer.status}")
            return
        clean = bytes(body).replace(key, b"[key]") if key else bytes(body)
        headers = back(answer.raw_headers, self._upstream.key)
        kept = [pair for pair in headers if pair[0] != b"content-length"]
        await self._start(answer, [*kept, (b"content-length", str(len(clean)).encode())])
        await self._send({"type": "http.response.body", "body": clean})

    async def _start(
        self, answer: aiohttp.ClientResponse, headers: list[tuple[bytes, bytes]]
    ) -> None:
        self._started = True
        await self._send(
            {"type": "http.response.start", "status": answer.status, "headers": headers}
        )


def _model_of(body: bytes) -> str | None:
    """The model that the body of a free call names.

    Raises:
        ProtocolError: the body is no JSON object.
    """
    if not body:
        return None
    model = loads(body).get("model")
    return model if isinstance(model, str) else None
