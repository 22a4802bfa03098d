"""Reads a request's body: bounded, whole, and decoded where it was compressed."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterable
from typing import Any

import anyio

from streamguard.asgi.types import Headers, Receive, Scope, Send
from streamguard.errors import BodyTooLargeError, ProtocolError, UnsupportedBodyError

_HIDDEN = frozenset(
    {"http.response.pathsend", "http.response.zerocopysend", "http.response.trailers"}
)


_STRAY = 2
"""Messages that are read after a body's end: a server may send one more, a replay never ends."""


class ClientGone(Exception):  # noqa: N818 - not an error: the client left while sending
    """The client disconnected before its body was complete."""


def header(headers: Headers, name: bytes) -> bytes | None:
    """The first value of a header, ``None`` when absent."""
    return next((value for key, value in headers if key.lower() == name), None)


def without(headers: Headers, *names: bytes) -> list[tuple[bytes, bytes]]:
    """The headers but for these."""
    return [(key, value) for key, value in headers if key.lower() not in names]


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body, at most ``limit`` bytes, decompressed.

    The declared length is checked before the first ``receive``, which is what makes servers
    answer ``100 Continue``.

    Raises:
        BodyTooLargeError: over the limit, before or after decompression.
        UnsupportedBodyError: a content encoding or a media type that cannot be guarded.
        ClientGone: the client left.
    """
    _check_type(scope["headers"])
    _check_length(scope["headers"], limit)
    body = await _receive_all(receive, limit)
    return _decode(body, header(scope["headers"], b"content-encoding"), limit)


async def gone(receive: Receive) -> None:
    """Return when the client has left.

    A ``receive`` that fails, or that gives a body again, cannot tell: middlewares that read the
    body and replay it do so for ever. The client is then taken to stay.
    """
    with contextlib.suppress(Exception):
        for _ in range(_STRAY):
            if (await receive())["type"] == "http.disconnect":
                return
    await anyio.sleep_forever()


def _check_type(headers: Headers) -> None:
    kind = (header(headers, b"content-type") or b"").lower()
    if kind.startswith((b"multipart/", b"application/x-www-form-urlencoded")):
        message = (
            f"media type {kind.split(b';')[0].decode('latin-1')!r} cannot be counted; send JSON"
        )
        raise UnsupportedBodyError(message)


def _check_length(headers: Headers, limit: int) -> None:
    declared = header(headers, b"content-length")
    if declared is None:
        return
    if not declared.isdigit():
        raise ProtocolError("content-length is not a number")
    if int(declared) > limit:
        raise too_large(int(declared), limit)


async def _receive_all(receive: Receive, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise too_large(size, limit)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def too_large(size: int, limit: int) -> BodyTooLargeError:
    """The error for a body that is longer than what is read."""
    message = (
        f"the body is {size:,} bytes or more and at most {limit:,} are read; shorten the request "
        "or raise max_body="
    )
    return BodyTooLargeError(message, limit=limit, requested=size, unit="bytes")


def _decode(body: bytes, encoding: bytes | None, limit: int) -> bytes:
    name = (encoding or b"identity").strip().lower()
    if name in (b"identity", b""):
        return body
    if name not in (b"gzip", b"deflate"):
        message = (
            f"content-encoding {name.decode('latin-1')!r} is not supported; send the body plain "
            "or as gzip"
        )
        raise UnsupportedBodyError(message)
    return _inflate(body, limit, zlib.MAX_WBITS | (32 if name == b"gzip" else 0))


def _inflate(body: bytes, limit: int, wbits: int) -> bytes:
    unpacker = zlib.decompressobj(wbits)
    try:
        plain = unpacker.decompress(body, limit + 1)
    except zlib.error as error:
        raise ProtocolError("the body is not what its content-encoding says") from error
    if len(plain) > limit:
        raise too_large(len(plain), limit)
    if not unpacker.eof or unpacker.unused_data:
        raise ProtocolError("the compressed body is incomplete or followed by other data")
    return plain


def encoded(pairs: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Header pairs as ASGI wants them."""
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in pairs]


async def send_json(
    send: Send, status: int, body: bytes, more: Iterable[tuple[str, str]] = ()
) -> None:
    """Send a whole response of JSON; ``more`` are further headers."""
    pairs = [("content-type", "application/json"), ("content-length", str(len(body))), *more]
    await send({"type": "http.response.start", "status": status, "headers": encoded(pairs)})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def replaced(scope: Scope, length: int) -> dict[str, Any]:
    """A copy of the scope for the app: the right body length, nothing that hides the response.

    An app that compresses its response would hide it from the meter, the server's own file
    sending would pass it by, and trailers would come after a cut: the app is not told that any
    of them is possible.
    """
    headers = without(
        scope["headers"], b"content-length", b"content-encoding", b"accept-encoding",
        b"transfer-encoding",
    )  # fmt: skip
    headers.append((b"content-length", str(length).encode()))
    extensions = {
        key: value for key, value in (scope.get("extensions") or {}).items() if key not in _HIDDEN
    }
    return {**scope, "headers": headers, "extensions": extensions}
