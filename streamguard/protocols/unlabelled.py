"""A stream whose content type is no stream's: server-sent events by its first bytes, or text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from streamguard.core.wire import Delta, EndReason, Frame, Served, StreamState
from streamguard.errors import StreamGuardError
from streamguard.protocols.plain import PlainText
from streamguard.protocols.streaming import RAW
from streamguard.usage import Usage

_STREAMS = ("text/event-stream", "application/x-ndjson", "application/ndjson", "application/jsonl")
_EVENT = re.compile(rb"(?:data|event|id|retry)?:")
_ENOUGH = 6
_SILENT = 16_384
"""Bytes of events without output that a stream may have; more of them may be output themselves."""
_LINE_END = re.compile(rb"\r\n|\r|\n")


def is_labelled(media: str | None) -> bool:
    """Whether a content type says that clients read documents, and nothing beside them."""
    kind = (media or "").partition(";")[0].strip().lower()
    return kind in _STREAMS or kind.endswith(("/json", "+json"))


class Unlabelled:
    """Clients may read any byte of it, so every byte of it counts: in events, what stands beside
    their data, too. It is dropped at a cut.
    """

    def __init__(self, named: StreamState) -> None:
        """``named`` reads events."""
        self._named = named
        self._state: StreamState | None = None
        self._held = b""
        self._silent = 0

    @property
    def reported(self) -> Usage:
        """Usage the provider reported so far."""
        return Usage() if self._state is None else self._state.reported

    @property
    def served(self) -> Served:
        """Who answered, as far as the stream has told."""
        return Served() if self._state is None else self._state.served

    @property
    def ended(self) -> bool:
        """Whether the stream's own terminal marker was seen."""
        return self._state is not None and self._state.ended

    def feed(self, data: bytes) -> Iterable[Frame]:
        """Complete frames; nothing before its first bytes tell what the stream is."""
        if self._state is not None:
            return self._counted(self._state.feed(data))
        self._held += data
        head = self._held.lstrip()
        return () if len(head) < _ENOUGH and b":" not in head else self._begin(head)

    def finish(self) -> Iterator[Frame]:
        """The rest."""
        if self._state is None:
            yield from self._begin(self._held.lstrip())
        rest = () if self._state is None else self._state.finish()
        yield from map(self._whole, self._counted(rest))

    def shorten(self, frame: Frame, kept: Sequence[Delta]) -> bytes:
        """A frame's bytes with its texts cut; one with more than events in it is dropped."""
        if self._state is None or frame.deltas[0].channel == RAW:
            return b""
        return self._state.shorten(frame, kept)

    def end(self, reason: EndReason, usage: Usage, error: StreamGuardError | None = None) -> bytes:
        """The bytes that end the stream early, where it has a form for that."""
        return b"" if self._state is None else self._state.end(reason, usage, error)

    def _begin(self, head: bytes) -> Iterable[Frame]:
        self._state = self._named if _EVENT.match(head) else PlainText()
        return self._counted(self._state.feed(self._held))

    def _whole(self, frame: Frame) -> Frame:
        """The rest of the stream, which event readers leave out where it is not a whole event."""
        silent = not frame.deltas and frame.raw.strip() not in (b"", b"data: [DONE]")
        return _as_text(frame, frame.raw) if silent and self._state is self._named else frame

    def _counted(self, frames: Iterable[Frame]) -> Iterable[Frame]:
        return frames if self._state is not self._named else map(self._with_strays, frames)

    def _with_strays(self, frame: Frame) -> Frame:
        """The frame with what its event's readers would not read as output."""
        strays = _strays(frame.raw)
        if not (frame.deltas or strays):  # a role, a finish, usage
            self._silent += len(frame.raw)
            strays = frame.raw if self._silent > _SILENT else b""
        said = bool(frame.deltas) and frame.deltas[0].channel == RAW
        return frame if said or not strays.strip() else _as_text(frame, strays)


def _strays(raw: bytes) -> bytes:
    """The lines of an event that are not its data or its name."""
    lines = [line for line in _LINE_END.split(raw) if line.strip()]
    has_data = any(line.startswith(b"data:") for line in lines)
    read = (b"data:", b"event:") if has_data else (b"data:",)
    return b"\n".join(line for line in lines if not line.startswith(read))


def _as_text(frame: Frame, text: bytes) -> Frame:
    return frame._replace(deltas=(Delta(RAW, text.decode("utf-8", "replace")), *frame.deltas))
