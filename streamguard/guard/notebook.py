"""Keeps what the guard learnt of prompts in the store, for the next start and other workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from streamguard.core.calibration import Calibrator
from streamguard.guard.bookkeeper import Bookkeeper

NAME = "calibration"
"""The note's name in the store."""

EVERY = 60.0
"""Seconds between two saves at least."""


class Notebook:
    """The calibration's note: read once, written in the background. Nothing depends on it."""

    def __init__(
        self, books: Bookkeeper, calibrator: Calibrator, clock: Callable[[], float]
    ) -> None:
        """``clock`` is monotonic seconds."""
        self._books = books
        self._calibrator = calibrator
        self._clock = clock
        self._loaded = self._changed = False
        self._next = clock() + EVERY

    async def load(self) -> None:
        """Take up what was learnt before; once, however often the guard is opened."""
        if self._loaded:
            return
        self._loaded = True
        try:
            kept: dict[str, Any] = msgspec.json.decode(await self._books.noted(NAME), type=dict)
        except msgspec.DecodeError:
            return
        self._calibrator.load(kept)

    def changed(self) -> None:
        """Something was learnt: keep it, when the last save is long enough ago."""
        self._changed = True
        if self._clock() >= self._next:
            self._next = self._clock() + EVERY
            self._books.in_background(self.save())

    async def save(self) -> None:
        """Keep what was learnt since the last save."""
        if self._changed:
            self._changed = False
            await self._books.note(NAME, msgspec.json.encode(self._calibrator.dump()))
