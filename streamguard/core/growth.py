"""Remembers how long each conversation's prompt was, to say which part of it grew. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b

from streamguard.core.prompt import Prompt

_TURNS = ("user", "history")


def conversation_key(prompt: Prompt, owner: str) -> bytes:
    """A digest of a conversation's opening: all up to its first turn, which stays as it is."""
    digest = blake2b(owner.encode(errors="replace"), digest_size=16)
    for part in prompt.parts:
        digest.update(part.text.encode(errors="replace"))
        digest.update(b"\x00")
        if part.text and part.component in _TURNS:
            break
    return digest.digest()


class GrowthMemory:
    """Token counts by component of the last call of each conversation, bounded in number."""

    def __init__(self, entries: int = 10_000) -> None:
        """Keep the latest ``entries`` conversations."""
        self._entries = entries
        self._last: OrderedDict[bytes, Mapping[str, int]] = OrderedDict()

    def compare(self, key: bytes, components: Mapping[str, int]) -> dict[str, int]:
        """Tokens each component gained since the conversation's last call; remembers this one."""
        before = self._last.get(key, {})
        self._last[key] = components
        self._last.move_to_end(key)
        while len(self._last) > self._entries:
            self._last.popitem(last=False)
        gained = {name: tokens - before.get(name, 0) for name, tokens in components.items()}
        return {name: more for name, more in gained.items() if more > 0 and before}
