"""Holds more output for a running stream before it needs it: never a round trip a chunk."""

from __future__ import annotations

import asyncio

from streamguard.core.streams import StreamMeter
from streamguard.guard.call import Call

LOW_WATER = 256
"""Tokens left of the hold at which more is asked for, in the background."""

STEP = 512
"""Output tokens asked for at least."""


class TopUp:
    """Watches one stream's headroom. A refused top-up ends in a clean cut at the hold."""

    def __init__(self, call: Call, meter: StreamMeter) -> None:
        self._call = call
        self._meter = meter
        self._asking: asyncio.Task[int] | None = None

    def needed(self, size: int) -> bool:
        """Whether to call ``ensure`` before the next ``size`` bytes are fed; costs next to nothing
        while the hold is far from used up.
        """
        if not self._call.extensible:
            return False
        tokens = self._meter.most(size)
        if self._meter.headroom - tokens >= LOW_WATER:
            return False
        self._meter.sync()
        return self._meter.headroom - tokens < LOW_WATER

    async def ensure(self, size: int) -> None:
        """Ask for more; wait for the answer only when the next bytes could reach the cut."""
        if self._asking is None or self._asking.done():
            want = max(STEP, self._call.allowance // 2)
            self._asking = self._call.extend_soon(want)
        if self._meter.headroom < self._meter.most(size):
            await asyncio.shield(self._asking)
