"""What the guard asks of a sink."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from streamguard.usage import UsageEvent


@runtime_checkable
class Sink(Protocol):
    """Takes events as they happen, on the event loop: it must return at once.

    Work that waits (a database, the network) belongs in a queue behind it. An exception is
    caught by the guard and never reaches the caller.

    A sink may have ``async open()`` and ``async close()``: the guard awaits them when it opens
    and closes. ``emit`` may come before ``open``.
    """

    def emit(self, event: UsageEvent) -> None:
        """Take one event."""
