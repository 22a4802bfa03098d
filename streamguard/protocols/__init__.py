"""One file a wire format, one line in ``_ROUTES`` each.

Paths are matched by how they end, so any root (``/v1``, ``/api/v1``, ``/openai/v1``, Azure's
``/openai/deployments/{id}``, a mount point) is fine, and however they are spelled.
"""

from __future__ import annotations

import re
from functools import lru_cache
from posixpath import normpath
from urllib.parse import unquote

from streamguard.core.wire import WireProtocol
from streamguard.protocols.openai_chat import OpenAIChat

PROTOCOLS: dict[str, WireProtocol] = {
    protocol.name: protocol
    for protocol in (
        OpenAIChat(),
    )
}  # fmt: skip
"""Every wire format by its name."""

_ROUTES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern + r"\Z", re.IGNORECASE), name)
    for pattern, name in (
        (r"/chat/completions", "openai_chat"),
    )
)  # fmt: skip


@lru_cache(maxsize=1024)
def normalise(path: str) -> str:
    """The path that servers see in many spellings: ``//``, ``/./``, a slash at the end, escapes.

    Letter case stays, since models are part of some paths; the match ignores it.
    """
    for _ in range(4):
        plain = unquote(path)
        if plain == path:
            break
        path = plain
    path = re.split(r"[?#;]", path.replace("\\", "/"), maxsplit=1)[0]
    return normpath("/" + path.strip().lstrip("/"))


def protocol_for_path(path: str) -> WireProtocol | None:
    """The wire format of a POST to ``path``; ``None``: unknown, for the policy to decide."""
    plain = normalise(path)
    return next((PROTOCOLS[name] for route, name in _ROUTES if route.search(plain)), None)
