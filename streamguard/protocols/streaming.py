"""What every stream of JSON documents has in common; a format only says what one means."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from streamguard.core.sse import Event, EventSplitter, encode
from streamguard.core.wire import Delta, Frame, Served
from streamguard.protocols.fields import read_json, write_json
from streamguard.protocols.slots import Slot, deltas_of, keep
from streamguard.usage import Usage

RAW = (0, "raw")
"""Channel of data that is not the protocol's JSON: counted as it stands, dropped at a cut."""


class Splitter(Protocol):
    """Bytes at any split in, documents with their original bytes out."""

    def only(self, data: bytes) -> bytes | None:
        """The document, when ``data`` is exactly one and nothing is held back."""

    def feed(self, data: bytes) -> Iterator[Event]:
        """The documents that ``data`` completes, made as they are taken."""

    def finish(self, *, salvage: bool = False) -> Iterator[Event]:
        """The rest; ``salvage`` reads a document that was cut off."""


class JSONStream(ABC):
    """Splits bytes and reads documents. A format gives ``slots`` and ``observe``, and ``end``."""

    def __init__(self, splitter: Splitter | None = None) -> None:
        self._splitter = splitter or EventSplitter()
        self._reported = Usage()
        self._served = Served()
        self._ended = False
        self._closed = False

    @property
    def reported(self) -> Usage:
        """Usage the provider reported so far; unknown fields are ``None``."""
        return self._reported

    @property
    def served(self) -> Served:
        """Who answered, as far as the stream has told."""
        return self._served

    @property
    def ended(self) -> bool:
        """Whether the stream's own terminal marker, or an error event, was seen."""
        return self._ended

    @abstractmethod
    def slots(self, doc: dict[str, Any]) -> Iterable[Slot]:
        """Where output text stands in a document, in the order it was written."""

    @abstractmethod
    def observe(self, doc: dict[str, Any], name: str) -> bool:
        """Remember what the ending needs of a document; True hides it from the client."""

    @abstractmethod
    def reopen(self, doc: dict[str, Any]) -> bool:
        """Take back what a document that is cut short had finished, in it and in the state.

        False: it says nothing any more, drop it.
        """

    def write(self, doc: Any, name: str = "") -> bytes:
        """A document as the stream carries it."""
        return encode(write_json(doc), name)

    def feed(self, data: bytes) -> Iterable[Frame]:
        """Complete frames in ``data`` and what was held back before it, made as they are taken.

        Raises:
            ProtocolError: a document is over the size cap.
        """
        payload = self._splitter.only(data)
        if payload is not None:
            return (self.read(data, payload, ""),)
        return self._frames(self._splitter.feed(data))

    def finish(self) -> Iterator[Frame]:
        """The rest. A document that was cut off is not read by clients, but it was produced and
        is forwarded, so it counts where it can be read.
        """
        for frame in self._frames(self._splitter.finish(salvage=True)):
            readable = not frame.deltas or frame.deltas[0].channel != RAW
            yield frame if readable else Frame(frame.raw)

    def quick(self, data: bytes) -> Sequence[Delta] | None:
        """The texts of the usual document, where a format can tell it cheaply; it must find what
        ``slots`` and ``observe`` would. ``None``: read it the general way.
        """
        return None

    def read(self, raw: bytes, data: bytes, name: str) -> Frame:
        """The frame of one document; no byte of it goes uncounted."""
        if (deltas := self.quick(data)) is not None:
            return Frame(raw, deltas)
        if data.strip() == b"[DONE]":
            self._ended = True
            return Frame(raw)
        doc = read_json(data)
        if not isinstance(doc, dict):
            return Frame(raw, (Delta(RAW, data.decode("utf-8", "replace")),))
        hidden = self.observe(doc, name)
        return Frame(raw, deltas_of(self.slots(doc)), hidden)

    def shorten(self, frame: Frame, kept: Sequence[Delta]) -> bytes:
        """The document with its texts cut to ``kept``; what it finished is open again."""
        splitter = type(self._splitter)()
        for event in (*splitter.feed(frame.raw), *splitter.finish(salvage=True)):
            doc = None if event.data is None else read_json(event.data)
            if isinstance(doc, dict):
                keep(self.slots(doc), kept)
                if not self.reopen(doc):
                    return b""
                return self.write(doc, "" if event.name == "message" else event.name)
        return b""

    def close(self) -> bool:
        """Whether an ending is still to be written; from now on it is not."""
        is_open = not (self._ended or self._closed)
        self._closed = True
        return is_open

    def _frames(self, events: Iterator[Event]) -> Iterator[Frame]:
        for event in events:
            if event.data is None:
                yield Frame(event.raw)
            else:
                yield self.read(event.raw, event.data, event.name)
