"""A bounded memory of whole answers by what was asked, to the byte. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

_encode = msgspec.json.Encoder(order="deterministic").encode


class Answer(NamedTuple):
    """A response as the client got it: the headers worth repeating, and the body."""

    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def question(owner: str, endpoint: str, body: Mapping[str, Any]) -> bytes:
    """A digest of who asked what where: equal bodies in any order of keys are one question."""
    digest = blake2b(_encode([owner, endpoint]), digest_size=20)
    digest.update(_encode(body))
    return digest.digest()


class AnswerMemory:
    """The latest answers, at most ``max_bytes`` of them, each for ``ttl`` seconds."""

    def __init__(self, *, ttl: float, max_bytes: int) -> None:
        self._ttl = ttl
        self._max_bytes = max_bytes
        self._known: OrderedDict[bytes, tuple[float, Answer]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def recall(self, asked: bytes, now: float) -> Answer | None:
        """The answer to a question, if it is still known; ``now`` is seconds."""
        found = self._known.get(asked)
        if found is None:
            return None
        expires, answer = found
        if expires <= now:
            self._forget(asked)
            return None
        self._known.move_to_end(asked)
        return answer

    def remember(self, asked: bytes, answer: Answer, now: float) -> None:
        """Keep an answer; the least recently used go."""
        self._forget(asked)
        self._known[asked] = (now + self._ttl, answer)
        self.bytes += len(answer.body)
        while self.bytes > self._max_bytes:
            self._forget(next(iter(self._known)))

    def _forget(self, asked: bytes) -> None:
        found = self._known.pop(asked, None)
        if found is not None:
            self.bytes -= len(found[1].body)
