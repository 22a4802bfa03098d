"""Server-sent events as WHATWG HTML §9.2 reads them: bytes in at any split, events out.

Every event keeps its original bytes, so that a stream can be forwarded untouched while a copy
is parsed. Lines end with LF, CR or CRLF only; one leading byte-order mark is skipped; bytes
that are not UTF-8 become U+FFFD; a block without data, and one that the stream's end cuts off,
dispatch nothing, but their bytes are handed on all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from streamguard.errors import ProtocolError

MAX_EVENT_BYTES = 4 * 1024 * 1024
"""Cap on one event: images in a stream reach 2 MB."""

_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\r|\n")
_BLANK_LINE = re.compile(rb"(?>\r\n|\r|\n)(?>\r\n|\r|\n)")


class Event(NamedTuple):
    """A block of lines up to its blank line.

    ``data`` is ``None`` when the block dispatches nothing (comments, no data line, cut off).
    ``name`` is the event type, "message" where the block gives none.
    """

    raw: bytes
    data: bytes | None = None
    name: str = "message"
    last_id: str = ""


class EventSplitter:
    """Splits one stream. Feed it, and take the events as they are made.

    Raises ``ProtocolError`` while iterating when an event is over ``max_event`` bytes.
    """

    __slots__ = ("_buffer", "_cr", "_last_id", "_line", "_max_event", "_scanned", "_started")

    def __init__(self, max_event: int = MAX_EVENT_BYTES) -> None:
        self._buffer = bytearray()
        self._max_event = max_event
        self._scanned = 0
        self._started = False
        self._cr = False
        self._line = False
        self._last_id = ""

    def only(self, data: bytes) -> bytes | None:
        """The payload, when ``data`` is one whole event of one data line and nothing is held back.

        The usual chunk, read without a copy of the rest. An ``event:`` line may come first, its
        name is left unread, but for errors. ``None``: use ``feed``.
        """
        start = 6
        if data[:7] == b"event: " and data[7:12] != b"error":
            start += data.find(b"\n") + 1
        end = len(data) - 2
        if data[start - 6 : start] != b"data: " or self._buffer or end > self._max_event:
            return None
        if data.find(b"\n", start) == end and data[end:] == b"\n\n" and b"\r" not in data:
            self._started = True
            return data[start:end]
        end -= 2
        if start == 6 and data.find(b"\r") == end and data[end:] == b"\r\n\r\n":  # noqa: PLR2004
            self._started = True
            return data[start:end] if b"\n" not in data[:end] else None
        return None

    def feed(self, data: bytes) -> Iterator[Event]:
        """The events that ``data`` completes; bytes not taken stay for the next call."""
        self._buffer += data
        self._cr = self._cr or b"\r" in data
        self._line = b"\n" in data or b"\r" in data
        return self._events()

    def finish(self, *, salvage: bool = False) -> Iterator[Event]:
        """The remaining events, then the bytes of an unterminated one.

        The standard says not to dispatch that one; ``salvage`` reads its fields all the same.
        """
        yield from self._events()
        if self._buffer:
            rest = self._take(len(self._buffer))
            yield self._read(rest) if salvage else Event(rest)

    def _events(self) -> Iterator[Event]:
        while (end := self._block_end()) > 0:
            if end > self._max_event:
                break
            yield self._read(self._take(end))
        if len(self._buffer) > self._max_event:
            raise ProtocolError(
                f"an event of the stream is over {self._max_event} bytes; raise max_event_bytes"
            )
        if self._line and (idle := self._idle_prefix()):
            self._started = True
            yield Event(self._take(idle))

    def _block_end(self) -> int:
        """Where the first block ends, or 0; each byte is looked at once."""
        if not self._cr:
            end = self._buffer.find(b"\n\n", self._scanned)
            end = end + 2 if end >= 0 else 0
        else:
            found = _BLANK_LINE.search(self._buffer, self._scanned)
            end = found.end() if found else 0
        self._scanned = max(0, len(self._buffer) - 2)
        return end

    def _take(self, size: int) -> bytes:
        raw = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._scanned = 0
        return raw

    def _idle_prefix(self) -> int:
        """Blank lines and whole comment lines at a block's start: keep-alives must not wait."""
        size = 0
        if not self._buffer.startswith((b":", b"\n", b"\r")):
            return size
        for end in _LINE_END.finditer(self._buffer):
            if end.start() > size and self._buffer[size] != ord(":"):
                break
            size = end.end()
        return size

    def _read(self, raw: bytes) -> Event:
        block = raw
        if not self._started:
            self._started = True
            block = raw.removeprefix(_BOM)
        lines = block.split(b"\n") if b"\r" not in block else _LINE_END.split(block)
        data: list[bytes] = []
        name = b""
        for line in lines:
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                data.append(value)
            elif field == b"event":
                name = value
            elif field == b"id" and b"\0" not in value:
                self._last_id = value.decode("utf-8", "replace")
        if not data:
            return Event(raw, last_id=self._last_id)
        kind = name.decode("utf-8", "replace") or "message"
        return Event(raw, b"\n".join(data), kind, self._last_id)


def encode(data: bytes, name: str | None = None) -> bytes:
    """One event of one line of data, with an ``event:`` line where it has a name."""
    head = b"event: " + name.encode() + b"\n" if name else b""
    return head + b"data: " + data + b"\n\n"
