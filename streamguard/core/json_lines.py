"""Streams of JSON that are no server-sent events: a line each, or the elements of an array."""

from __future__ import annotations

import re
from collections.abc import Iterator

from streamguard.core.sse import MAX_EVENT_BYTES, Event
from streamguard.errors import ProtocolError

_OUTSIDE = re.compile(rb'["{}\[\]]')
_INSIDE = re.compile(rb'["\\]')


class LineSplitter:
    """Newline-delimited JSON. Blank lines are handed on and mean nothing."""

    __slots__ = ("_buffer", "_max_event", "_scanned")

    def __init__(self, max_event: int = MAX_EVENT_BYTES) -> None:
        self._buffer = bytearray()
        self._max_event = max_event
        self._scanned = 0

    def only(self, data: bytes) -> bytes | None:
        """The line, when ``data`` is exactly one and nothing is held back."""
        end = len(data) - 1
        whole = data.find(b"\n") == end and not self._buffer and end < self._max_event
        return (data.strip() or None) if whole else None

    def feed(self, data: bytes) -> Iterator[Event]:
        """The lines that ``data`` completes; bytes not taken stay for the next call."""
        self._buffer += data
        return self._lines()

    def finish(self, *, salvage: bool = False) -> Iterator[Event]:  # noqa: ARG002
        """The rest; clients read a last line without its newline, so it always counts."""
        yield from self._lines()
        if self._buffer:
            rest = bytes(self._buffer)
            self._buffer.clear()
            yield Event(rest, rest.strip() or None)

    def _lines(self) -> Iterator[Event]:
        while (end := self._buffer.find(b"\n", self._scanned) + 1) > 0:
            raw = bytes(self._buffer[:end])
            del self._buffer[:end]
            self._scanned = 0
            yield Event(raw, raw.strip() or None)
        self._scanned = len(self._buffer)
        check_size(self._scanned, self._max_event)


class ArraySplitter:
    """The objects of one JSON array (or one alone), each as soon as its last brace is there.

    An object's bytes begin with what stands before it: the bracket, a comma, white space.
    """

    __slots__ = ("_base", "_buffer", "_depth", "_max_event", "_quoted", "_scanned")

    def __init__(self, max_event: int = MAX_EVENT_BYTES) -> None:
        self._buffer = bytearray()
        self._max_event = max_event
        self._scanned = 0
        self._depth = 0
        self._base = -1
        self._quoted = False

    def only(self, data: bytes) -> None:
        """Never: where an object ends is only known by scanning it."""

    def feed(self, data: bytes) -> Iterator[Event]:
        """The objects that ``data`` completes; bytes not taken stay for the next call."""
        self._buffer += data
        return self._objects()

    def finish(self, *, salvage: bool = False) -> Iterator[Event]:  # noqa: ARG002
        """The rest: what was cut off cannot be read."""
        yield from self._objects()
        if self._buffer:
            rest = bytes(self._buffer)
            self._buffer.clear()
            self._scanned = 0
            yield Event(rest)

    def _objects(self) -> Iterator[Event]:
        while end := self._object_end():
            raw = bytes(self._buffer[:end])
            del self._buffer[:end]
            self._scanned = 0
            start = raw.find(b"{")
            yield Event(raw, raw[start:] if start >= 0 else None)
        check_size(len(self._buffer), self._max_event)

    def _object_end(self) -> int:
        """Where the first object, or the array, ends; 0 when that is not there yet."""
        while True:
            search = _INSIDE if self._quoted else _OUTSIDE
            found = search.search(self._buffer, self._scanned)
            if found is None:
                self._scanned = max(self._scanned, len(self._buffer))
                return 0
            self._scanned = found.end()
            mark = found[0]
            if mark == b"\\":
                self._scanned += 1
            elif mark == b'"':
                self._quoted = not self._quoted
            elif mark in b"{[":
                self._depth += 1
                if self._base < 0:
                    self._base = int(mark == b"[")
            else:
                self._depth -= 1
                if self._depth <= 0 or (self._depth == self._base and mark == b"}"):
                    return self._scanned


def check_size(size: int, most: int) -> None:
    """Refuse to hold back more than ``most`` bytes.

    Raises:
        ProtocolError: one document of the stream is larger.
    """
    if size > most:
        raise ProtocolError(f"a document of the stream is over {most} bytes; raise max_event_bytes")
