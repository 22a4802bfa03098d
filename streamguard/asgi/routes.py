"""Which paths are guarded, and as what."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from streamguard.asgi.types import Scope
from streamguard.errors import ConfigurationError
from streamguard.protocols import normal_path, protocol_for_path, protocol_named, stream_named

_EDITS = frozenset({"PUT", "PATCH", "QUERY"})
"""Methods that are no model's, but that an app may take on the same path as a POST."""
_LENGTHS = frozenset({b"content-length", b"transfer-encoding"})

_UNMETERED = re.compile(
    r"/(?:v1(?:beta)?|openai|openai/deployments/[^/]+)/(?:audio|images|videos|realtime|batches|"
    r"fine_tuning|assistants|threads|messages/batches|responses/compact|rerank)(?:/|$)"
    r"|/v1beta\d?/(?:.*/)?interactions$"
    r"|:(?:(?:async)?batch(?:generate|embed)contents?|embedcontent|predict(?:longrunning)?|rawpredict"
    r"|streamrawpredict|serverstreamingpredict|bidigeneratecontent)$"
    r"|/model/.+/(?:converse|converse-stream|invoke|invoke-with-(?:bidirectional|response)-stream)$"
    r"|/(?:async-invoke|model-invocation-job)$"
)
"""Paths of OpenAI, Google and Bedrock whose bodies no wire format here reads."""
_SOCKET = re.compile(r"/realtime(?:/|$)|/responses$|bidigeneratecontent$")


@dataclass(frozen=True, slots=True)
class Route:
    """How one path is guarded.

    Attributes:
        protocol: the request's wire format, such as "openai_chat"; ``None`` exempts the path.
        response: the stream's wire format where it differs, such as "ai_sdk" or "plain".
    """

    protocol: str | None
    response: str | None = None

    @property
    def exempt(self) -> bool:
        """Whether the app said itself that the path is to be let through."""
        return self.protocol is None and self is not UNLISTED


UNLISTED = Route(None)
"""What a path is that neither the well-known ones nor ``routes=`` name."""

CHAT = Route("openai_chat")
"""What a body is taken for that is a model request by its shape."""


class Routes:
    """The well-known paths and those an app adds."""

    def __init__(self, added: Mapping[str, str | Route | None]) -> None:
        """Raise ``ConfigurationError`` for a path or a format that could never match."""
        if not isinstance(added, Mapping):
            raise ConfigurationError("routes= must be a table such as {'/chat': 'openai_chat'}")
        self._added = {_checked(path): _route(given) for path, given in added.items()}

    def of(self, scope: Scope) -> Route:
        """The route of a request."""
        path = path_of(scope)
        added = self._added.get(normal_path(path))
        if added is not None:
            return added
        protocol = protocol_for_path(path)
        return UNLISTED if protocol is None else Route(protocol.name)


def is_unmetered(path: str) -> bool:
    """Whether a path is that of a model that costs money and that no wire format here can meter."""
    return _UNMETERED.search(normal_path(path)) is not None


def is_model_socket(path: str) -> bool:
    """Whether a websocket's path is that of a model."""
    return _SOCKET.search(normal_path(path)) is not None


def brings_body(scope: Scope, method: str) -> bool:
    """Whether a body may come: with a GET too, which an app may take for a POST."""
    sizes = [value for name, value in scope["headers"] if name.lower() in _LENGTHS]
    return method in _EDITS or scope.get("http_version", "1") >= "2" or sizes not in ([], [b"0"])


def path_of(scope: Scope) -> str:
    """The path with the mount prefix taken off, as the app's router sees it."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    rest = path.removeprefix(root)
    return path if rest and rest[0] != "/" else rest


def _checked(path: str) -> str:
    if "{" in path:
        message = f"routes= names {path!r}; paths are compared as they are, without parameters"
        raise ConfigurationError(message)
    return normal_path(path)


def _route(given: str | Route | None) -> Route:
    route = given if isinstance(given, Route) else Route(given)
    try:
        if route.protocol is not None:
            protocol_named(route.protocol)
        if route.response is not None:
            stream_named(route.response)
    except KeyError as error:
        raise ConfigurationError(f"routes= names an unknown protocol: {error.args[0]}") from error
    return route
