"""A circuit breaker: a store that fails is left alone for a while, then tried once."""

from __future__ import annotations

from typing import Literal

State = Literal["closed", "open", "trying"]
Event = Literal["succeeded", "failed", "cooled"]

TRANSITIONS: dict[tuple[State, Event], State] = {
    ("closed", "succeeded"): "closed",
    ("closed", "failed"): "open",
    ("open", "succeeded"): "closed",
    ("open", "failed"): "open",
    ("open", "cooled"): "trying",
    ("trying", "succeeded"): "closed",
    ("trying", "failed"): "open",
    ("trying", "cooled"): "trying",
}
"""(state, event) → state. A call that was under way when it opened may still report."""


class Breaker:
    """Opens after ``threshold`` failures in a row; ``cooldown`` seconds later lets one call try."""

    __slots__ = ("_failures", "_until", "cooldown", "state", "threshold")

    def __init__(self, threshold: int = 3, cooldown: float = 1.0) -> None:
        self.threshold = threshold
        self.cooldown = cooldown
        self.state: State = "closed"
        self._failures = 0
        self._until = 0.0

    def allows(self, now: float) -> bool:
        """Whether a call may be made at ``now`` (seconds of any steady clock)."""
        if self.state == "closed":
            return True
        if now < self._until:
            return False
        self._until = now + self.cooldown
        self._turn("cooled")
        return True

    def succeeded(self) -> None:
        """A call was answered."""
        self._failures = 0
        self._turn("succeeded")

    def failed(self, now: float) -> None:
        """A call was not answered."""
        self._failures += 1
        if self.state != "closed" or self._failures >= self.threshold:
            self._until = now + self.cooldown
            self._turn("failed")

    def _turn(self, event: Event) -> None:
        self.state = TRANSITIONS[self.state, event]
