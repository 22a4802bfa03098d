"""Remembers requests refused as oversized, so that nobody sends them again. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec

from streamguard.errors import StreamGuardError
from streamguard.limits import Limit

# What does not change the size of the prompt: a retry may differ in these.
_VOLATILE = frozenset({"stream", "stream_options", "user", "metadata", "store", "seed"})
_encode = msgspec.json.Encoder(order="deterministic", enc_hook=repr).encode


class _Entry(NamedTuple):
    error: StreamGuardError
    limit: Limit | None
    expires: float


def fingerprint(body: Mapping[str, Any], model: str = "", who: str = "") -> bytes:
    """A digest of a request of one sender that is the same in whatever key order.

    ``model`` counts where the body names none (Gemini, Azure): another one may take the same.
    """
    lasting = {key: value for key, value in body.items() if key not in _VOLATILE}
    lasting.setdefault("model", model)
    return blake2b(_encode([who, lasting]), digest_size=16).digest()


class OversizedMemory:
    """A bounded memory of refusals by fingerprint. It holds digests and figures, no text."""

    def __init__(self, entries: int = 10_000, ttl: float = 3600.0) -> None:
        """Keep at most ``entries`` for ``ttl`` seconds each."""
        self._entries = entries
        self._ttl = ttl
        self._known: OrderedDict[bytes, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def remember(
        self, digest: bytes, error: StreamGuardError, limit: Limit | None, now: float
    ) -> None:
        """Keep a refusal; ``limit`` is the budget behind it, ``None`` for the model's window."""
        self._known[digest] = _Entry(error, limit, now + self._ttl)
        self._known.move_to_end(digest)
        while len(self._known) > self._entries:
            self._known.popitem(last=False)

    def recall(self, digest: bytes, limits: Sequence[Limit], now: float) -> StreamGuardError | None:
        """The first refusal of this request, if it still holds under these limits."""
        entry = self._known.get(digest)
        if entry is None:
            return None
        if entry.expires <= now:
            del self._known[digest]
            return None
        holds = entry.limit is None or entry.limit in limits
        return entry.error if holds else None
