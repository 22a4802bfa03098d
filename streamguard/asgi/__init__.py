"""The pure-ASGI middleware.

``middleware`` decides by ``routes`` and ``looking`` what a request is, ``body`` reads it,
``patience`` waits for its budget; ``exchange`` runs the app on it, and ``responder`` sees every
message of the response. ``replay`` is for answers from the cache, ``lifespan`` opens and closes the
guard, ``identified`` says who is charged.
"""

from __future__ import annotations

from streamguard.asgi.middleware import StreamGuardMiddleware
from streamguard.asgi.routes import Route

__all__ = ["Route", "StreamGuardMiddleware"]
