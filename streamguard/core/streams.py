"""Meters one response stream: forwards bytes, counts output, cuts at the exact token.

All channels of a stream (choices, reasoning, tool calls) share one allowance. Tokens are never
more than UTF-8 bytes (times the tokenizer's ``expansion``), so while the bytes since the last
exact count fit into what is left, no tokenizer runs: a stream of ``b`` budget costs about
``log b`` encodes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from streamguard.core.graceful import Holdback, join
from streamguard.core.metering import TextMeter
from streamguard.core.tokens import Tokenizer, expansion
from streamguard.core.wire import Channel, Delta, EndReason, Frame, Served, StreamState
from streamguard.errors import StreamGuardError
from streamguard.usage import Usage

_UNLIMITED = sys.maxsize


class StreamMeter:
    """One stream. Feed it the upstream's bytes and send on what it gives back.

    Attributes:
        cut: the allowance is spent; ``end`` gives the bytes that close the stream. Frames after
            the cut only count: their bytes are withheld.
        first_output: a token of output was seen.
    """

    __slots__ = (
        "_allowance", "_delivered", "_expansion", "_headroom", "_holdback", "_input", "_meters",
        "_soft", "_state", "_tokenizer", "cut", "first_output",
    )  # fmt: skip

    def __init__(
        self,
        state: StreamState,
        tokenizer: Tokenizer,
        allowance: int | None = None,
        *,
        soft: int | None = None,
        input_tokens: int | None = None,
    ) -> None:
        """Allow ``allowance`` output tokens over all channels; ``None`` only counts.

        ``soft`` ends gracefully: within so many tokens of the allowance whole sentences and
        lines are handed on, tool calls always whole. ``input_tokens`` is what an ending tells
        of the prompt where the provider has not.
        """
        self._state = state
        self._tokenizer = tokenizer
        self._expansion = expansion(tokenizer)
        self._allowance = _UNLIMITED if allowance is None else allowance
        self._headroom = self._allowance
        self._meters: dict[Channel, TextMeter] = {}
        self._delivered: int | None = None
        self._input = input_tokens
        self._soft = soft or 0
        self._holdback = None if soft is None else Holdback(self._count_with, self._meters)
        self.cut = False
        self.first_output = False

    @property
    def allowance(self) -> int | None:
        """Output tokens that may be delivered; ``None``: no limit."""
        return None if self._allowance == _UNLIMITED else self._allowance

    @property
    def counted(self) -> int:
        """Output tokens delivered so far, exact."""
        return self.observed if self._delivered is None else self._delivered

    @property
    def observed(self) -> int:
        """Output tokens the upstream produced so far, exact: what was withheld is in it."""
        return sum(meter.count for meter in self._meters.values())

    @property
    def counted_at_most(self) -> int:
        """An upper bound of ``observed`` that costs nothing."""
        return sum(meter.upper for meter in self._meters.values())

    @property
    def nearly(self) -> int:
        """``observed`` for a look from outside, also from another thread: changes nothing."""
        return sum(meter.nearly for meter in list(self._meters.values()))

    @property
    def reported(self) -> Usage:
        """Usage the provider reported so far."""
        return self._state.reported

    @property
    def served(self) -> Served:
        """Which model and tier answered, as far as the provider has told."""
        return self._state.served

    @property
    def native_end(self) -> bool:
        """The stream's own end, or its own error, was seen."""
        return self._state.ended

    @property
    def headroom(self) -> int:
        """Tokens that are certainly left of the allowance, without counting; below 0 after it."""
        return self._headroom

    def most(self, size: int) -> int:
        """The most tokens that so many UTF-8 bytes can be."""
        return size * self._expansion

    def counted_by(self, kind: str) -> int:
        """Tokens observed in channels of this kind over all indexes; "tool" is all tools."""
        return sum(
            meter.count
            for (_, name), meter in self._meters.items()
            if name.partition(":")[0] == kind
        )

    def extend(self, more: int) -> None:
        """Allow ``more`` tokens on top; no use after the cut."""
        if self._allowance != _UNLIMITED:
            self._allowance += more
            self._headroom += more

    def sync(self) -> None:
        """Count exactly, so that ``headroom`` is as close as can be sure."""
        self._tighten()

    def feed(self, data: bytes) -> bytes:
        """The bytes to forward now: whole frames untouched, hidden ones left out.

        Raises:
            ProtocolError: an event is over the size cap.
        """
        return self._pass(self._state.feed(data))

    def finish(self) -> bytes:
        """The bytes still held back when the upstream has ended."""
        rest = self._pass(self._state.finish())
        if self._holdback is not None and not self.cut:
            rest += join(self._holdback.release())
        return rest

    def end(self, reason: EndReason = "cut", error: StreamGuardError | None = None) -> bytes:
        """The bytes that end the stream early; call it before feeding what comes after a cut."""
        reported = self._state.reported
        given = self._input if reported.input_tokens is None else reported.input_tokens
        usage = Usage(given, self.counted, None, reported.cached_tokens)
        return self._state.end(reason, usage, error)

    def _pass(self, frames: Iterable[Frame]) -> bytes:
        if self._holdback is not None and not self.cut:
            return self._pass_gracefully(frames, self._holdback)
        kept: list[bytes] = []
        for frame in frames:
            if frame.deltas and not self._admit(frame.deltas):
                fitting = self._fit(frame.deltas)
                if fitting is not None:
                    kept.append(self._state.shorten(frame, fitting))
                    break
            if not (frame.hidden or self.cut):
                kept.append(frame.raw)
        return kept[0] if len(kept) == 1 else b"".join(kept)

    def _pass_gracefully(self, frames: Iterable[Frame], holdback: Holdback) -> bytes:
        kept: list[bytes] = []
        for frame in frames:
            waits = holdback.wants(frame.deltas) or (bool(frame.deltas) and self._is_soft())
            if waits:
                holdback.look(frame.deltas)
            admitted = not frame.deltas or self._admit(frame.deltas)
            fitting = None if admitted else self._fit(frame.deltas)
            if fitting is not None:
                kept.append(self._cut_gracefully(frame, fitting, holdback))
                break
            ready = holdback.add(frame) if waits else [*holdback.release(), frame]
            if self._state.ended:
                ready += holdback.release()
            kept.append(join(ready))
        return b"".join(kept)

    def _cut_gracefully(self, frame: Frame, fitting: Sequence[Delta], holdback: Holdback) -> bytes:
        cut = holdback.cut(frame, self._state)
        if cut is None:
            return join(holdback.release()) + self._state.shorten(frame, fitting)
        written, self._delivered = cut
        return written

    def _is_soft(self) -> bool:
        if self._headroom > self._soft:
            return False
        self._tighten()
        return self._headroom <= self._soft

    def _count_with(self, deltas: Sequence[Delta]) -> int | None:
        """Tokens delivered with these deltas on top; ``None`` when that is over the allowance."""
        meters = {channel: meter.copy() for channel, meter in self._meters.items()}
        for channel, text, _ in deltas:
            meters.setdefault(channel, TextMeter(self._tokenizer)).feed(text)
        counted = sum(meter.count for meter in meters.values())
        return counted if counted <= self._allowance else None

    def _admit(self, deltas: Sequence[Delta]) -> bool:
        """Count the deltas if all of them surely fit, else leave everything as it was."""
        size = 0
        for _, text, _ in deltas:
            size += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        headroom = self._headroom - size * self._expansion
        if headroom < 0 and not self.cut:
            return False
        self._headroom = headroom
        self.first_output = True
        for channel, text, _ in deltas:
            meter = self._meters.get(channel)
            if meter is None:
                meter = self._meters[channel] = TextMeter(self._tokenizer)
            meter.feed(text)
        return True

    def _fit(self, deltas: Sequence[Delta]) -> list[Delta] | None:
        """Count exactly. ``None``: all fit after all. Else the cut: the longest that fits."""
        counted = self._tighten()
        if self._admit(deltas):
            return None
        for position, (channel, text, whole) in enumerate(deltas):
            meter = self._meters.setdefault(channel, TextMeter(self._tokenizer))
            before = meter.count
            limit = self._allowance - counted + before
            if meter.would_exceed(limit, text):
                prefix = "" if whole else meter.take(text, limit)
                meter.feed(prefix)
                self._stop()
                self._admit([Delta(channel, text[len(prefix) :]), *deltas[position + 1 :]])
                return [*deltas[:position], Delta(channel, prefix, whole)]
            meter.feed(text)
            counted += meter.count - before
        self.first_output = True
        self._tighten()
        return None

    def _tighten(self) -> int:
        """Count exactly. Bytes to come may change the last token: the bound stays a bound."""
        counted = self.observed
        self._headroom = self._allowance - self.counted_at_most
        return counted

    def _stop(self) -> None:
        self._delivered = self.observed
        self.cut = True
