"""A sink that keeps events in a list: for tests, notebooks and the demo."""

from __future__ import annotations

from streamguard.usage import EventName, UsageEvent


class ListSink:
    """Keeps every event in ``events``, oldest first. It grows without bound."""

    def __init__(self) -> None:
        self.events: list[UsageEvent] = []

    def emit(self, event: UsageEvent) -> None:
        """Append the event."""
        self.events.append(event)

    def named(self, name: EventName) -> list[UsageEvent]:
        """The events of one name, oldest first."""
        return [event for event in self.events if event.event == name]
