"""The graceful ending: near the limit, hand on whole sentences and whole tool calls only.

In the soft zone a frame waits until the sentence or line that its text belongs to is complete;
a tool call waits, anywhere, until it is. When the limit comes, what still waits is emptied, so
that the stream ends with a sentence, never inside a tool call's JSON. A stream that ends by
itself loses nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence

from streamguard.core.wire import Channel, Delta, Frame, StreamState

_SENTENCE = re.compile(
    r"[.!?\u2026][\"'\u201d\u2019)\]]*(?=\s)|[\u3002\uff01\uff1f][\u201d\u2019\u300d\u300f\uff09]*|\n"
)
"""The end of a sentence, with the quotes and brackets that close after it, or of a line."""

_TAIL = 8
"""Characters before a piece in which a sentence's end may begin."""


class Holdback:
    """Frames that wait for the next place at which the stream may end: after a sentence, around
    a tool call, and before a run of text that is new (what came before it is complete).

    ``count`` gives the tokens delivered with these deltas on top, ``None`` when over the limit;
    ``known`` are the runs of text so far.
    """

    def __init__(
        self, count: Callable[[Sequence[Delta]], int | None], known: Collection[Channel]
    ) -> None:
        self._count = count
        self._known = known
        self._held: list[Frame] = []
        self._has_tool = False
        self._mark: tuple[int, list[Delta], int] | None = None
        self._last: Channel | None = None
        self._tail = ""

    def wants(self, deltas: Sequence[Delta]) -> bool:
        """Whether a frame has to wait outside the soft zone too: in or behind a tool call, or,
        without any text, behind anything.
        """
        if not deltas:
            return bool(self._held)
        return self._has_tool or _have_tool(deltas)

    def look(self, deltas: Sequence[Delta]) -> None:
        """Find the last place to end in a frame that is about to be counted and added."""
        place: list[Delta] | None = None
        for position, delta in enumerate(deltas):
            if delta.channel != self._last:
                after_tool = self._last is not None and _is_tool(self._last)
                is_next = bool(self._known) and delta.channel not in self._known
                if after_tool or _is_tool(delta.channel) or is_next:
                    place = list(deltas[:position])
                self._last, self._tail = delta.channel, ""
            if not _is_tool(delta.channel) and (size := self._sentence_end(delta.text)) >= 0:
                place = [*deltas[:position], Delta(delta.channel, delta.text[:size])]
        if place is not None and (counted := self._count(place)) is not None:
            self._mark = (len(self._held), place, counted)

    def add(self, frame: Frame) -> list[Frame]:
        """Let the frame wait; the frames that need not wait any longer."""
        self._held.append(frame)
        self._has_tool = self._has_tool or _have_tool(frame.deltas)
        if self._mark is None:
            return []
        ready, place, counted = self._mark
        if ready < len(self._held) and _length(place) == _length(self._held[ready].deltas):
            ready, place = ready + 1, []
        self._mark = (0, place, counted)
        if ready == 0:
            return []
        released, self._held = self._held[:ready], self._held[ready:]
        self._has_tool = any(_have_tool(held.deltas) for held in self._held)
        return released

    def release(self) -> list[Frame]:
        """All that waits: the stream ended by itself, or there is no better place to end."""
        released, self._held = self._held, []
        self._has_tool = False
        self._mark = None
        self._tail = ""  # what comes next may pass unlooked at
        return released

    def cut(self, last: Frame, state: StreamState) -> tuple[bytes, int] | None:
        """End at the last place: the bytes of what waits, emptied after it, and what is
        delivered in all. ``None``: no place was seen.
        """
        if self._mark is None:
            return None
        at, place, counted = self._mark
        frames = [*self._held, last]
        emptied = [
            state.shorten(frame, place if number == 0 else [])
            for number, frame in reversed(list(enumerate(frames[at:])))
            if not frame.hidden
        ]
        return join(frames[:at]) + b"".join(reversed(emptied)), counted

    def _sentence_end(self, text: str) -> int:
        """Characters of ``text`` up to its last sentence's end; -1 when it has none."""
        joined = self._tail + text
        ends = [found.end() - len(self._tail) for found in _SENTENCE.finditer(joined)]
        self._tail = joined[-_TAIL:]
        return max((end for end in ends if end >= 0), default=-1)


def join(frames: Sequence[Frame]) -> bytes:
    """What the client gets of whole frames."""
    return b"".join(frame.raw for frame in frames if not frame.hidden)


def _is_tool(channel: Channel) -> bool:
    return channel[1].startswith(("tool", "function_call"))


def _have_tool(deltas: Sequence[Delta]) -> bool:
    return any(_is_tool(delta.channel) for delta in deltas)


def _length(deltas: Sequence[Delta]) -> int:
    return sum(len(delta.text) for delta in deltas)
