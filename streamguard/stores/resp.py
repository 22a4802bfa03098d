"""The Redis protocol (RESP2): commands to bytes, bytes to replies. No socket."""

from __future__ import annotations

from typing import Any

from redis.exceptions import (
    AuthenticationError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

ERRORS: dict[str, type[RedisError]] = {
    "NOSCRIPT": NoScriptError,
    "READONLY": ReadOnlyError,
    "NOAUTH": AuthenticationError,
    "WRONGPASS": AuthenticationError,
}
"""First word of an error reply → what is raised."""

_INCOMPLETE = object()


def encode(words: tuple[Any, ...]) -> bytes:
    """A command of text, bytes and numbers."""
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogatepass")
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)


class Replies:
    """Bytes in at any split, whole replies out; an error reply is an exception object."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> list[Any]:
        """The replies that are complete now."""
        self._buffer += data
        self._at, done, replies = 0, 0, []
        while done < len(self._buffer):
            reply = self._read()
            if reply is _INCOMPLETE:
                break
            replies.append(reply)
            done = self._at
        del self._buffer[:done]
        return replies

    def _read(self) -> Any:
        end = self._buffer.find(b"\r\n", self._at)
        if end < 0:
            return _INCOMPLETE
        kind, line = self._buffer[self._at], bytes(self._buffer[self._at + 1 : end])
        self._at = end + 2
        if kind == ord("$"):
            return self._read_bulk(int(line))
        if kind == ord("*"):
            return self._read_array(int(line))
        if kind == ord(":"):
            return int(line)
        if kind == ord("-"):
            text = line.decode("utf-8", "replace")
            return ERRORS.get(text.split(" ", 1)[0], ResponseError)(text)
        return line

    def _read_bulk(self, size: int) -> Any:
        if size < 0:
            return None
        start, self._at = self._at, self._at + size + 2
        return (
            _INCOMPLETE
            if self._at > len(self._buffer)
            else bytes(self._buffer[start : start + size])
        )

    def _read_array(self, size: int) -> Any:
        if size < 0:
            return None
        found: list[Any] = []
        for _ in range(size):
            reply = self._read()
            if reply is _INCOMPLETE:
                return _INCOMPLETE
            found.append(reply)
        return found
