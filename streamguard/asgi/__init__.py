"""The pure-ASGI middleware."""

from __future__ import annotations

from streamguard.asgi.middleware import Route, StreamGuardMiddleware

__all__ = ["Route", "StreamGuardMiddleware"]
