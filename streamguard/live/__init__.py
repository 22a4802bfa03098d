"""The live page: what a guard is doing, as it does it. ``LivePage`` is an ASGI app to mount.

``sink`` hears of every event and ``book`` keeps them, bounded, as ``figures``; ``view`` shows them,
with ``windows``, ``spending`` and ``costs``; ``feed`` sends the view to whoever watches ``page``,
which is one ``document``; ``door`` says who may.
"""

from streamguard.live.page import Beside, LivePage

__all__ = ["Beside", "LivePage"]
