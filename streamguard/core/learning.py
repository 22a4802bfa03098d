"""Learns how long outputs really are, so that a reserve need not be the worst case. Pure."""

from __future__ import annotations

from bisect import insort
from collections import OrderedDict, deque


class _Sample:
    """The latest outputs of one key, in order of arrival and of size."""

    __slots__ = ("latest", "sorted")

    def __init__(self, size: int) -> None:
        self.latest: deque[int] = deque(maxlen=size)
        self.sorted: list[int] = []

    def add(self, tokens: int) -> None:
        if len(self.latest) == self.latest.maxlen:
            self.sorted.remove(self.latest[0])
        self.latest.append(tokens)
        insort(self.sorted, tokens)


class OutputLearner:
    """A high quantile of the latest settled outputs for each key, bounded in memory."""

    def __init__(
        self, *, quantile: float = 0.95, least: int = 20, size: int = 200, keys: int = 10_000
    ) -> None:
        """Estimate from the latest ``size`` outputs of a key, once there are ``least``."""
        self._quantile = quantile
        self._least = least
        self._size = size
        self._keys = keys
        self._samples: OrderedDict[tuple[str, ...], _Sample] = OrderedDict()

    def learn(self, key: tuple[str, ...], tokens: int) -> None:
        """Note a settled call's output tokens."""
        sample = self._samples.get(key)
        if sample is None:
            sample = self._samples[key] = _Sample(self._size)
        self._samples.move_to_end(key)
        sample.add(tokens)
        while len(self._samples) > self._keys:
            self._samples.popitem(last=False)

    def estimate(self, key: tuple[str, ...]) -> int | None:
        """Output tokens that all but a few calls stay within; ``None`` before enough is known."""
        sample = self._samples.get(key)
        if sample is None or len(sample.sorted) < self._least:
            return None
        return sample.sorted[min(len(sample.sorted) - 1, int(self._quantile * len(sample.sorted)))]
