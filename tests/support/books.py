"""A guard whose events and balances a test can look into, and upstreams for cutting."""

from __future__ import annotations

from typing import Any

from streamguard import Guard, Limit, UsageEvent
from streamguard.sinks.memory import ListSink
from support.upstream import Upstream

HELLO: list[Any] = [{"role": "user", "content": "Tell me a story."}]


class Books:
    """A guard over a wide window, with its events."""

    def __init__(self, *limits: Limit, **settings: Any) -> None:
        self.sink = ListSink()
        self.window = Limit(tokens=1_000_000, per="hour")
        self.guard = Guard(limits=[self.window, *limits], sinks=[self.sink], **settings)

    @property
    def events(self) -> list[str]:
        return [event.event for event in self.sink.events]

    @property
    def ended(self) -> list[UsageEvent]:
        """Calls that were settled or released."""
        return [event for event in self.sink.events if event.event in ("settled", "released")]

    @property
    def outcomes(self) -> list[str | None]:
        return [event.outcome for event in self.ended]

    @property
    def charged(self) -> list[tuple[int | None, int | None]]:
        """Input and output tokens of the calls that were settled."""
        return [
            (event.charged.input_tokens, event.charged.output_tokens)
            for event in self.ended
            if event.event == "settled" and event.charged is not None
        ]

    async def balance(self) -> Any:
        """The wide window's account."""
        body = {"model": "gpt-4o", "messages": HELLO, "max_tokens": 1}
        return (await self.guard.preflight(body)).balances[self.window.name]


class Deaf(Upstream):
    """An upstream that does not obey output caps."""

    def plan_for(self, call: Any) -> Any:
        for name in ("max_completion_tokens", "max_tokens"):
            call.body.pop(name, None)
        return super().plan_for(call)
