"""Which headers go on to the upstream, and which come back."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlencode

from streamguard.asgi.types import Headers, Scope
from streamguard.gateway.routes import query_of
from streamguard.gateway.upstreams import Upstream

_ONE_CONNECTION = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
"""RFC 9110, 7.6.1: for this connection only; so are those that ``Connection`` names."""

_OURS = frozenset(
    {
        b"host", b"content-length", b"content-encoding", b"accept-encoding", b"expect", b"cookie",
        b"forwarded", b"via", b"x-real-ip", b"x-goog-fieldmask", b"x-http-method-override",
    }
)  # fmt: skip
"""What the gateway says anew, what is nobody's business upstream, and what Google reads as the
shape that a response is to have.
"""

_CREDENTIALS = frozenset(
    {
        b"authorization", b"x-api-key", b"x-goog-api-key", b"api-key", b"openai-organization",
        b"openai-project", b"x-goog-user-project",
    }
)  # fmt: skip

_NOT_BACK = frozenset(
    {
        b"set-cookie", b"server", b"date", b"alt-svc", b"strict-transport-security",
        b"www-authenticate", b"location", b"openai-organization", b"openai-project",
    }
)  # fmt: skip
"""What is the provider's business with the gateway, or the server's own."""

QUERY_KEYS = ("key", "access_token", "api_key", "oauth_token")
"""Query parameters that hold credentials; Google's clients may use the first."""


_FORMS = frozenset({"json", "sse"})


def onward(given: Headers, upstream: Upstream, *, pass_credentials: bool) -> list[tuple[str, str]]:
    """The request's headers for an upstream, with the gateway's own key where it holds one."""
    given = list(given)
    named = _named(given)
    keep = pass_credentials and not upstream.key
    kept = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in given
        if name not in _ONE_CONNECTION
        and name not in _OURS
        and name not in named
        and not name.startswith((b"x-streamguard-", b"x-forwarded-"))
        and (keep or name not in _CREDENTIALS)
    ]
    auth = upstream.auth()
    return [*kept, ("accept-encoding", "identity"), *([auth] if auth else [])]


def onward_query(scope: Scope, upstream: Upstream, *, pass_credentials: bool) -> str:
    """The query for an upstream: ``?…`` without anybody's key, or an empty string. What Google
    would shape the response by, past what can be metered, is left out.

    Source: Google's "System parameters": ``$fields`` and ``$callback``, ``$alt``, also without
    the dollar sign.
    """
    keep = pass_credentials and not upstream.key
    kept = [
        (name, value)
        for name, values in query_of(scope).items()
        for value in values
        if (keep or name.lower() not in QUERY_KEYS) and not _shapes(name, value)
    ]
    return "?" + urlencode(kept) if kept else ""


def _shapes(name: str, value: str) -> bool:
    """Whether a parameter leaves the usage out of a response, or wraps it in another format."""
    plain = name.lower().removeprefix("$")
    return plain in ("fields", "callback") or (plain == "alt" and value.lower() not in _FORMS)


def back(given: Iterable[tuple[bytes, bytes]], key: str) -> list[tuple[bytes, bytes]]:
    """The response's headers for the client; one that holds the gateway's key is left out."""
    pairs = [(name.lower(), value) for name, value in given]
    named = _named(pairs)
    return [
        (name, value)
        for name, value in pairs
        if name not in _ONE_CONNECTION
        and name not in _NOT_BACK
        and name not in named
        and not name.startswith(b"x-streamguard-")
        and not (key and key.encode() in value)
    ]


def _named(given: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    """Headers that ``Connection`` names."""
    return {
        name.strip().lower()
        for key, value in given
        if key == b"connection"
        for name in value.split(b",")
    }
