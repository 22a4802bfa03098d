"""Places in a provider's JSON where output text stands: read them to count, write them to cut."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from streamguard.core.wire import Channel, Delta
from streamguard.protocols.fields import write_json


class Slot(NamedTuple):
    """One place of text. Hosts that give one text several names give it under all ``keys``.

    An object there (a tool's arguments) costs what its JSON costs; it is kept or emptied.
    """

    channel: Channel
    holder: dict[str, Any]
    keys: tuple[str, ...]
    whole: bool = False

    @property
    def text(self) -> str:
        """The text, once."""
        for key in self.keys:
            value = self.holder.get(key)
            if value and isinstance(value, str):
                return value
            if value and isinstance(value, dict):
                return write_json(value).decode()
        return ""

    def put(self, text: str) -> None:
        """Replace the text under each name it has."""
        for key in self.keys:
            value = self.holder.get(key)
            if isinstance(value, str):
                self.holder[key] = text
            elif isinstance(value, dict) and not text:
                self.holder[key] = {}


_SAYS = ("name", "arguments", "input")


def deltas_of(slots: Iterable[Slot]) -> list[Delta]:
    """The texts that stand there now."""
    return [Delta(slot.channel, text, slot.whole) for slot in slots if (text := slot.text)]


def keep(slots: Iterable[Slot], kept: Sequence[Delta]) -> None:
    """Write the kept texts over the slots, in order; what is not kept is emptied."""
    rest = iter(kept)
    for slot in slots:
        if slot.text:
            delta = next(rest, None)
            slot.put("" if delta is None else delta.text)


def drop_empty_calls(message: dict[str, Any]) -> None:
    """Take out tool calls of which neither name nor arguments are left."""
    if "tool_calls" in message:
        calls = [call for call in objects(message["tool_calls"]) if _says_something(call)]
        message["tool_calls"] = calls
        if not calls:
            del message["tool_calls"]


def _says_something(call: dict[str, Any]) -> bool:
    functions = objects([call.get("function"), call.get("custom")])
    return any(function.get(key) for function in functions for key in _SAYS)


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; whatever else a host sends there is no output."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
