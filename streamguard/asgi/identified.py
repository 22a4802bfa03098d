"""Who is charged for what happens inside a connection: asked once, when somebody must be."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Awaitable, Callable, Iterator

from streamguard.asgi.types import Scope
from streamguard.guard.context import identity_source
from streamguard.identity import ANONYMOUS, Identity

Identify = Callable[[Scope], Identity | Awaitable[Identity]]


@contextlib.contextmanager
def identified(identify: Identify | None, scope: Scope) -> Iterator[None]:
    """Charge what is called inside to whom ``identify`` says."""
    token = identity_source.set(_Once(identify, scope))
    try:
        yield
    finally:
        identity_source.reset(token)


class _Once:
    """Asks ``identify`` at most once a connection."""

    def __init__(self, identify: Identify | None, scope: Scope) -> None:
        self._identify = identify
        self._scope = scope
        self._found: Identity | None = None

    async def __call__(self) -> Identity:
        if self._identify is None:
            return ANONYMOUS
        if self._found is None:
            found = self._identify(self._scope)
            self._found = await found if inspect.isawaitable(found) else found
        return self._found
