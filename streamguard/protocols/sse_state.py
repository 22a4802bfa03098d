"""What every stream of JSON in server-sent events has in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from streamguard.core.sse import MAX_EVENT_BYTES, Event, EventSplitter
from streamguard.core.wire import Delta, Frame
from streamguard.protocols import fields
from streamguard.usage import Usage

RAW = (0, "raw")
"""Channel of event data that is not the protocol's: counted as it stands, dropped at a cut."""


class SSEState:
    """Splits bytes into events; a protocol only says what one event means (``read``)."""

    def __init__(self, max_event: int = MAX_EVENT_BYTES) -> None:
        self._splitter = EventSplitter(max_event)
        self._reported = Usage()
        self._ended = False
        self._closed = False

    @property
    def reported(self) -> Usage:
        """Usage the provider reported so far; unknown fields are ``None``."""
        return self._reported

    @property
    def ended(self) -> bool:
        """Whether the stream's own terminal marker, or an error event, was seen."""
        return self._ended

    def feed(self, data: bytes) -> Iterable[Frame]:
        """Complete frames in ``data`` and what was held back before it, made as they are taken.

        Raises:
            ProtocolError: an event is over the size cap.
        """
        payload = self._splitter.only(data)
        if payload is not None:
            return (self.read(data, payload, "message"),)
        return self._frames(self._splitter.feed(data))

    def finish(self) -> Iterator[Frame]:
        """The rest. An unterminated event is not dispatched by clients, but it was produced and
        is forwarded, so it counts where it can be read.
        """
        for frame in self._frames(self._splitter.finish(salvage=True)):
            readable = not frame.deltas or frame.deltas[0].channel != RAW
            yield frame if readable else Frame(frame.raw)

    def read(self, raw: bytes, data: bytes, name: str) -> Frame:
        """The frame of one event; a protocol's own job."""
        raise NotImplementedError

    def _frames(self, events: Iterator[Event]) -> Iterator[Frame]:
        for event in events:
            if event.data is None:
                yield Frame(event.raw)
            else:
                yield self.read(event.raw, event.data, event.name)

    def unreadable(self, raw: bytes, data: bytes) -> Frame:
        """A frame of data that is not the protocol's JSON: no byte goes uncounted."""
        return Frame(raw, (Delta(RAW, data.decode("utf-8", "replace")),))

    def close(self) -> bool:
        """Whether an ending is still to be written; from now on it is not."""
        is_open = not (self._ended or self._closed)
        self._closed = True
        return is_open

    def document(self, raw: bytes) -> dict[str, Any] | None:
        """The JSON object in one event's bytes; ``None`` where it is not one."""
        splitter = EventSplitter()
        for event in (*splitter.feed(raw), *splitter.finish(salvage=True)):
            if event.data is not None:
                doc = fields.read_json(event.data)
                return doc if isinstance(doc, dict) else None
        return None
