"""Messages that belong together: a tool call and its results are kept or dropped as one. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Message = Mapping[str, Any]

EXAMPLES = frozenset({"example_user", "example_assistant"})


@dataclass(frozen=True, slots=True)
class Unit:
    """Messages (or one retrieved chunk) that are kept or dropped together.

    Attributes:
        positions: where they stand among all that was added.
        tokens: what they cost.
        role: the first message's role.
        score: how well a retrieved chunk matches; ``None`` for messages.
    """

    positions: tuple[int, ...]
    tokens: float = 0.0
    role: str = ""
    score: float | None = None


class Grouping:
    """Puts what is added to one component into units; each is counted when it has changed."""

    def __init__(self, *, pairs: bool = False) -> None:
        """``pairs``: what follows a question belongs to it."""
        self.units: list[Unit] = []
        self._pairs = pairs
        self._calls: dict[str, int] = {}
        self._uncounted: set[int] = set()

    def add(self, message: Message, position: int) -> None:
        """Let the message join the unit it belongs to, or begin one."""
        at = self._joined(message)
        if at is None:
            at = self.append(Unit((position,), role=str(message.get("role"))))
        else:
            unit = self.units[at]
            self.units[at] = replace(unit, positions=(*unit.positions, position))
            self._uncounted.add(at)
        self._calls.update(dict.fromkeys(calls_of(message), at))

    def append(self, unit: Unit) -> int:
        """Add a unit that is whole; its index."""
        at = len(self.units)
        self.units.append(unit)
        self._uncounted.add(at)
        return at

    def owns(self, message: Message) -> bool:
        """Whether the message answers a tool call made here."""
        return any(name in self._calls for name in answers_of(message))

    def count(self, cost: Callable[[Unit], float]) -> None:
        """Count the units that are new or have grown."""
        for at in self._uncounted:
            self.units[at] = replace(self.units[at], tokens=cost(self.units[at]))
        self._uncounted.clear()

    def _joined(self, message: Message) -> int | None:
        for name in answers_of(message):
            if name in self._calls:
                return self._calls[name]
        if self._pairs and self.units and _is_answer(message):
            return len(self.units) - 1
        return None


def calls_of(message: Message) -> Iterator[str]:
    """Ids of the tool calls a message makes (OpenAI's and Anthropic's forms)."""
    for call in _objects(message.get("tool_calls")):
        yield str(call.get("id"))
    function = message.get("function_call")
    if isinstance(function, Mapping):
        yield f"function {function.get('name')}"
    for block in _objects(message.get("content")):
        if block.get("type") == "tool_use":
            yield str(block.get("id"))


def answers_of(message: Message) -> Iterator[str]:
    """Ids of the tool calls a message answers."""
    if message.get("role") == "tool":
        yield str(message.get("tool_call_id"))
    elif message.get("role") == "function":
        yield f"function {message.get('name')}"
    for block in _objects(message.get("content")):
        if block.get("type") == "tool_result":
            yield str(block.get("tool_use_id"))


def component_of(message: Message) -> str:
    """The component a message belongs to by itself: system, few_shot or history."""
    if message.get("name") in EXAMPLES:
        return "few_shot"
    return "system" if message.get("role") in {"system", "developer"} else "history"


def split_turn(units: Sequence[Unit]) -> tuple[list[Unit], list[Unit]]:
    """A conversation as its history and its present turn: the last user message and whatever
    stands at the very end.
    """
    asked = next((at for at in reversed(range(len(units))) if units[at].role == "user"), None)
    present = {asked, len(units) - 1}
    history = [unit for at, unit in enumerate(units) if at not in present]
    return history, [unit for at, unit in enumerate(units) if at in present]


def _is_answer(message: Message) -> bool:
    return message.get("role") != "user" and message.get("name") != "example_user"


def _objects(value: object) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, list):
        yield from (item for item in value if isinstance(item, Mapping))
