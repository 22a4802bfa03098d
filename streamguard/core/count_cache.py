"""Counts of texts seen before, so that an append-only conversation costs only its new turn."""

from __future__ import annotations

from collections import OrderedDict
from sys import getsizeof
from threading import Lock

from streamguard.core.tokens import Tokenizer

_WORTH_IT = 256
"""Characters below which counting is cheaper than looking up."""


class CountCache:
    """Token counts by encoding and text; the least recently used go first.

    It keeps the texts, up to ``max_bytes`` of memory: comparing them is several times faster
    than any digest that can be trusted, and a count is never another text's. It is the
    ``CountText`` that ``count_prompt`` takes. Safe to share between threads.
    """

    def __init__(self, *, max_entries: int = 16_384, max_bytes: int = 64 << 20) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._counts: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._bytes = 0
        self._lock = Lock()

    @property
    def entries(self) -> int:
        """Counts in memory now."""
        return len(self._counts)

    @property
    def size(self) -> int:
        """Bytes of the texts in memory now."""
        return self._bytes

    def __call__(self, tokenizer: Tokenizer, text: str) -> int:
        """Tokens of the text, from memory where it can."""
        if len(text) < _WORTH_IT:
            return tokenizer.count(text)
        key = (tokenizer.name, text)
        with self._lock:
            count = self._counts.get(key)
            if count is not None:
                self._counts.move_to_end(key)
                return count
        count = tokenizer.count(text)
        with self._lock:
            self._keep(key, count)
        return count

    def _keep(self, key: tuple[str, str], count: int) -> None:
        if key not in self._counts:
            self._bytes += getsizeof(key[1])
        self._counts[key] = count
        while len(self._counts) > self._max_entries or self._bytes > self._max_bytes:
            (_, text), _ = self._counts.popitem(last=False)
            self._bytes -= getsizeof(text)
