"""Forwards a request to its upstream and the response back, byte by byte. Guards nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import aiohttp

from streamguard.asgi.body import encoded
from streamguard.asgi.types import Receive, Scope, Send
from streamguard.gateway.upstreams import Upstream, choose
from streamguard.guard.context import current_call
from streamguard.protocols import normal_path

_HOP_BY_HOP = frozenset(
    {
        "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer",
        "transfer-encoding", "upgrade", "host", "content-length", "accept-encoding", "cookie",
    }
)  # fmt: skip
"""RFC 9110, 7.6.1, and what belongs to one connection only."""

_CREDENTIALS = frozenset({"authorization", "x-api-key", "x-goog-api-key", "api-key"})
_NOT_BACK = frozenset({"connection", "keep-alive", "transfer-encoding", "set-cookie"})

CONNECT_SECONDS = 10.0
CHUNK = 65_536


class Proxy:
    """An ASGI app. ``upstreams`` is asked anew for every request, so that it may change."""

    def __init__(
        self, upstreams: Callable[[], Sequence[Upstream]], *, pass_credentials: bool = False
    ) -> None:
        """``pass_credentials`` sends the caller's own key on where the gateway holds none."""
        self._upstreams = upstreams
        self._pass_credentials = pass_credentials
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the connection pool; it belongs to the running loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=30),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            read_bufsize=CHUNK,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward one request."""
        call = current_call.get()
        model = call.assessment.subject.request.model if call is not None else None
        upstream = choose(self._upstreams(), normal_path(scope["path"]), model)
        if upstream is None:
            named = f" for model {model[:100]!r}" if model else ""
            await _answer(send, 404, f"no upstream is configured{named} on this path")
            return
        try:
            await self._forward(upstream, scope, await _body(receive), send)
        except aiohttp.ClientConnectionError as error:
            await _answer(send, 502, f"the upstream is out of reach ({type(error).__name__})")

    async def _forward(self, upstream: Upstream, scope: Scope, body: bytes, send: Send) -> None:
        if self._session is None:
            await self.open()
        assert self._session is not None  # noqa: S101 - opened above
        query = scope.get("query_string", b"").decode("latin-1")
        target = upstream.url + _path(scope) + (f"?{query}" if query else "")
        async with self._session.request(
            scope["method"],
            _exact(target),
            data=body or None,
            headers=self._headers(upstream, scope["headers"]),
            allow_redirects=False,
        ) as answer:
            back = [(k.lower(), v) for k, v in answer.headers.items() if k.lower() not in _NOT_BACK]
            await send(
                {"type": "http.response.start", "status": answer.status, "headers": encoded(back)}
            )
            async for data in answer.content.iter_any():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    def _headers(
        self, upstream: Upstream, given: Iterable[tuple[bytes, bytes]]
    ) -> list[tuple[str, str]]:
        kept = []
        for raw, value in given:
            name = raw.decode("latin-1").lower()
            if name in _HOP_BY_HOP or name.startswith("x-streamguard-"):
                continue
            if name in _CREDENTIALS and (upstream.key or not self._pass_credentials):
                continue
            kept.append((name, value.decode("latin-1")))
        auth = upstream.auth()
        return [*kept, ("accept-encoding", "identity"), *([auth] if auth else [])]


def _path(scope: Scope) -> str:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return raw.split(b"?")[0].decode("latin-1")


def _exact(target: str) -> Any:
    from yarl import URL

    return URL(target, encoded=True)


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _answer(send: Send, status: int, message: str) -> None:
    error = {"message": message, "type": "api_error", "param": None, "code": "no_upstream"}
    body = json.dumps({"error": error}).encode()
    pairs = [("content-type", "application/json"), ("content-length", str(len(body)))]
    await send({"type": "http.response.start", "status": status, "headers": encoded(pairs)})
    await send({"type": "http.response.body", "body": body})
