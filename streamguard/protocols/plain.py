"""Responses of no known format: plain text, server-sent events of any text, and bytes."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from streamguard.core.sse import Event, EventSplitter, encode
from streamguard.core.wire import Delta, EndReason, Frame, Request, Served
from streamguard.errors import StreamGuardError
from streamguard.protocols import fields
from streamguard.protocols.fields import write_json
from streamguard.usage import Usage

TEXT = (0, "content")


class PassedOn:
    """Bytes in which there is no output."""

    ended = False
    served = Served()

    @property
    def reported(self) -> Usage:
        """Nothing is reported in the stream."""
        return Usage()

    def feed(self, data: bytes) -> Iterable[Frame]:
        """The bytes as they are."""
        return (Frame(data),) if data else ()

    def finish(self) -> Iterable[Frame]:
        """Nothing is held back."""
        return ()

    def shorten(self, frame: Frame, kept: Sequence[Delta]) -> bytes:
        """Nothing is left of a frame that is over."""
        return b""

    def end(self, reason: EndReason, usage: Usage, error: StreamGuardError | None = None) -> bytes:
        """There is no marker in the bytes: who must tell a cut breaks the connection off."""
        return b""


class PlainText(PassedOn):
    """All of it is output. A character that a chunk cuts in two is held back for the rest."""

    def __init__(self, request: Request | None = None) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        self._held = b""

    def feed(self, data: bytes) -> Iterable[Frame]:
        """Whole characters, with their bytes."""
        return self._frames(data, final=False)

    def finish(self) -> Iterable[Frame]:
        """A character that never became whole."""
        return self._frames(b"", final=True)

    def _frames(self, data: bytes, *, final: bool) -> Iterator[Frame]:
        raw = self._held + data
        text = self._decode(data, final)
        self._held = b"" if final else raw[len(raw) - _unfinished(raw) :]
        whole = raw[: len(raw) - len(self._held)]
        if whole:
            yield Frame(whole, (Delta(TEXT, text),) if text else ())

    def shorten(self, frame: Frame, kept: Sequence[Delta]) -> bytes:
        """The text that is kept."""
        return "".join(delta.text for delta in kept).encode("utf-8", "replace")


def _unfinished(raw: bytes) -> int:
    """How many bytes at the end begin a character that is not whole."""
    for size in range(1, min(3, len(raw)) + 1):
        byte = raw[-size]
        if byte >= 0xC0:  # noqa: PLR2004  # a lead byte: it tells how many follow
            return size if size < _length(byte) and _begins(raw[-size:]) else 0
        if byte < 0x80:  # noqa: PLR2004
            return 0
    return 0


def _length(lead: int) -> int:
    return 4 if lead >= 0xF0 else 3 if lead >= 0xE0 else 2  # noqa: PLR2004


def _begins(tail: bytes) -> bool:
    """Whether more bytes could make these a character."""
    return codecs.utf_8_decode(tail, "ignore", False)[1] == 0


class TextEvents:
    """Server-sent events whose data is text, of whatever meaning: all of it is output."""

    served = Served()

    def __init__(self, request: Request | None = None) -> None:
        self._splitter = EventSplitter()
        self._closed = False
        self.ended = False

    @property
    def reported(self) -> Usage:
        """Nothing is reported in the stream."""
        return Usage()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Whole events."""
        return map(self._frame, self._splitter.feed(data))

    def finish(self) -> Iterator[Frame]:
        """The rest, which counts though clients do not read it."""
        return map(self._frame, self._splitter.finish(salvage=True))

    def _frame(self, event: Event) -> Frame:
        if event.data and event.data.strip() == b"[DONE]":
            self.ended = True
        if not event.data or self.ended:
            return Frame(event.raw)
        return Frame(event.raw, (Delta(TEXT, event.data.decode("utf-8", "replace")),))

    def shorten(self, frame: Frame, kept: Sequence[Delta]) -> bytes:
        """An event of the text that is kept, a data line for each of its lines."""
        text = "".join(delta.text for delta in kept)
        named = [event.name for event in _read(frame.raw) if event.data is not None]
        if not text or not named:
            return b""
        head = f"event: {named[0]}\n" if named[0] != "message" else ""
        lines = "".join(f"data: {line}\n" for line in text.split("\n"))
        return f"{head}{lines}\n".encode("utf-8", "replace")

    def end(self, reason: EndReason, usage: Usage, error: StreamGuardError | None = None) -> bytes:
        """An event of its own name, which listeners of other events never see."""
        if self.ended or self._closed:
            return b""
        self._closed = True
        told: dict[str, Any] = {"finish_reason": "length", **fields.figures(error)}
        if reason == "cut":
            return encode(write_json(told), "streamguard")
        problem = fields.ending_error(error)
        return encode(write_json({"error": {"message": problem.message}}), "error")


def _read(raw: bytes) -> Iterator[Event]:
    splitter = EventSplitter()
    yield from splitter.feed(raw)
    yield from splitter.finish(salvage=True)
