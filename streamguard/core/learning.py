"""Learns how long outputs really are, so that a reserve need not be the worst case. Pure."""

from __future__ import annotations

from streamguard.core.samples import Room, Samples

ROOM = Room(tenants=1_000, keys=10, size=200)


class OutputLearner:
    """A high quantile of the latest settled outputs for each tenant and kind of call."""

    def __init__(self, *, quantile: float = 0.95, least: int = 20, room: Room = ROOM) -> None:
        """Estimate from the latest outputs, once there are ``least``."""
        self._quantile = quantile
        self._least = least
        self._samples: Samples[int] = Samples(room)

    def learn(self, tenant: str, kind: str, tokens: int) -> None:
        """Note a settled call's output tokens."""
        self._samples.add(tenant, kind, tokens)

    def estimate(self, tenant: str, kind: str) -> int | None:
        """Output tokens that all but a few of the tenant's calls stay within; ``None`` before
        enough is known.
        """
        sample = self._samples.get(tenant, kind)
        if sample is None or len(sample) < self._least:
            return None
        return sample.sorted[min(len(sample) - 1, int(self._quantile * len(sample)))]
