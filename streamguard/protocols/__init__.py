"""One file a wire format, one line in the tables here each.

Paths are matched by how they end, so any root (``/v1``, ``/api/v1``, ``/openai/v1``, Azure's
``/openai/deployments/{id}``, a mount point) is fine, and so is any spelling.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache, partial

from streamguard.core.wire import Request, StreamState, WireProtocol
from streamguard.protocols import fields
from streamguard.protocols.ai_sdk import UIMessageStream
from streamguard.protocols.anthropic import Anthropic
from streamguard.protocols.completions import Completions
from streamguard.protocols.embeddings import Embeddings
from streamguard.protocols.gemini import Gemini
from streamguard.protocols.ollama import Ollama
from streamguard.protocols.openai_chat import OpenAIChat
from streamguard.protocols.openai_responses import OpenAIResponses
from streamguard.protocols.plain import PlainText, TextEvents

_ROOT = r"(?:\A|/v\d\w*|/openai|/openai/deployments/[^/]+|/engines/.+)"
"""What stands before the endings that other APIs may have too."""

_ROUTES: tuple[tuple[str, WireProtocol], ...] = (
    (r"/chat/completions", OpenAIChat()),
    (_ROOT + r"/completions", Completions()),
    (_ROOT + r"/responses", OpenAIResponses()),
    (_ROOT + r"/embeddings", Embeddings()),
    (r"/v1/messages", Anthropic()),
    (r"/models/[^/:]+:(?:stream)?generatecontent", Gemini()),
    (r"/api/(?:chat|generate)", Ollama()),
)  # fmt: skip
"""How a path ends, and its wire format; the first match wins."""

_STREAMS: dict[str, Callable[[Request], StreamState]] = {
    "ai_sdk": UIMessageStream,
    "plain": PlainText,
    "sse": TextEvents,
}
"""Formats that only responses have."""

_BY_NAME = {protocol.name: protocol for _, protocol in _ROUTES}
_COMPILED = tuple((re.compile(ending + r"\Z"), protocol) for ending, protocol in _ROUTES)


@lru_cache(maxsize=1024)
def normal_path(path: str) -> str:
    """One spelling for all that servers take for the same path: letter case, ``//``, ``/./``, a
    slash at the end, percent-escapes, a query.
    """
    return fields.spelled(path).lower()


def protocol_for_path(path: str) -> WireProtocol | None:
    """The wire format of a POST to ``path``; ``None``: unknown, for the policy to decide."""
    plain = normal_path(path)
    return next((protocol for ending, protocol in _COMPILED if ending.search(plain)), None)


def protocol_named(name: str) -> WireProtocol:
    """The wire format called ``name``.

    Raises:
        KeyError: no such format; the message lists those there are.
    """
    if name not in _BY_NAME:
        raise KeyError(f"{name!r}; use one of {', '.join(sorted(_BY_NAME))}")
    return _BY_NAME[name]


def stream_named(name: str, model: str = "") -> Callable[[], StreamState]:
    """What makes the state of a response stream in the format called ``name``.

    Raises:
        KeyError: no such format; the message lists those there are.
    """
    request = Request(protocol=name, model=model, body={}, stream=True)
    if name in _STREAMS:
        return partial(_STREAMS[name], request)
    if name not in _BY_NAME:
        raise KeyError(f"{name!r}; use one of {', '.join(sorted({*_BY_NAME, *_STREAMS}))}")
    return partial(_BY_NAME[name].stream, request)
