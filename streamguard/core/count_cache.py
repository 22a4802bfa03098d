"""Counts of texts seen before, so that an append-only conversation costs only its new turn."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from threading import Lock

from streamguard.core.tokens import Tokenizer

_WORTH_IT = 512
"""Characters below which counting is cheaper than looking up."""


class CountCache:
    """Token counts by text and encoding; the least recently used go first.

    Keeps digests, not texts: some 200 bytes an entry, and no prompt stays in memory. It is the
    ``CountText`` that ``count_prompt`` takes. Safe to share between threads.
    """

    def __init__(self, max_entries: int = 16_384) -> None:
        self._max_entries = max_entries
        self._counts: OrderedDict[bytes, int] = OrderedDict()
        self._lock = Lock()

    @property
    def entries(self) -> int:
        """Counts in memory now."""
        return len(self._counts)

    def __call__(self, tokenizer: Tokenizer, text: str) -> int:
        """Tokens of the text, from memory where it can."""
        if len(text) < _WORTH_IT:
            return tokenizer.count(text)
        key = _digest(tokenizer.name, text)
        with self._lock:
            count = self._counts.get(key)
            if count is not None:
                self._counts.move_to_end(key)
                return count
        count = tokenizer.count(text)
        with self._lock:
            self._counts[key] = count
            while len(self._counts) > self._max_entries:
                self._counts.popitem(last=False)
        return count


def _digest(encoding: str, text: str) -> bytes:
    digest = hashlib.sha256(encoding.encode(), usedforsecurity=False)
    digest.update(b"\0")
    digest.update(text.encode("utf-8", "surrogatepass"))
    return digest.digest()
