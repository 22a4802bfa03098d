"""What may be called through the gateway: the paths that are guarded, and those that are free."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qs, unquote

from streamguard.asgi.body import header
from streamguard.asgi.types import Scope
from streamguard.protocols import normal_path, protocol_for_path

FAMILIES = ("openai", "anthropic", "google", "ollama")
"""Providers' API families; each has its own envelope for errors."""

_GUARDED = {
    "openai_chat": "openai",
    "completions": "openai",
    "openai_responses": "openai",
    "embeddings": "openai",
    "anthropic": "anthropic",
    "gemini": "google",
    "ollama": "ollama",
}
"""The family of each wire format."""

_ROOT = r"(?:\A|/v\d\w*|/openai)"

_FREE: tuple[tuple[str, re.Pattern[str], str], ...] = tuple(
    (method, re.compile(ending + r"\Z"), family)
    for method, ending, family in (
        ("POST", r"/v1/messages/count_tokens", "anthropic"),
        ("POST", r"/models/[^/:]+:counttokens", "google"),
        ("POST", _ROOT + r"/moderations", "openai"),
        ("POST", r"/api/show", "ollama"),
        ("GET", r"\A/v\dbeta\d?/models(?:/[^/:]+)?", "google"),
        ("GET", r"\A/api/(?:tags|version)", "ollama"),
        ("GET", _ROOT + r"/models(?:/.+)?", "openai"),
    )
)
"""Calls that providers bill nothing for and that show nothing of other tenants; the rest of what
a provider serves (files, batches, stored responses) would act under the gateway's own key.
"""

_PLAIN = re.compile(r"(?:[A-Za-z0-9._~:@/-]|%2F|%3A|%40)+", re.IGNORECASE)
_MODEL = re.compile(r"/models/([^/:]+):")


class Route(NamedTuple):
    """Where a request belongs."""

    family: str
    guarded: bool


def plain_path(scope: Scope) -> str | None:
    """The path as it was sent, ``None`` where servers could read it in more than one way.

    What is forwarded must mean to the provider what it means here: dot segments, doubled
    slashes, parameters and escapes that unfold to any of these do not pass.
    """
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.split(b"?")[0].decode("latin-1")
    if not path.startswith("/") or not _PLAIN.fullmatch(path):
        return None
    segments = unquote(path)[1:].split("/")
    return None if any(part in ("", ".", "..") for part in segments) else path


def route_of(scope: Scope, path: str) -> Route | None:
    """The route of a plain path; ``None``: the gateway does not serve it."""
    method = scope["method"]
    protocol = protocol_for_path(path) if method == "POST" else None
    if protocol is not None:
        return Route(_GUARDED[protocol.name], guarded=True)
    plain = normal_path(path)
    for verb, ending, family in _FREE:
        if verb == method and ending.search(plain):
            return Route(_lister(scope) if family == "openai" else family, guarded=False)
    return None


def family_of(path: str) -> str:
    """The family whose envelope an error on this path gets, whatever the path is."""
    plain = normal_path(path)
    if "/messages" in plain:
        return "anthropic"
    if plain.startswith("/v1beta") or ":" in plain:
        return "google"
    return "ollama" if plain.startswith("/api/") else "openai"


def model_in(path: str) -> str | None:
    """The model that the path names, as Google's do."""
    found = _MODEL.search(unquote(path))
    return found[1] if found else None


def query_of(scope: Scope) -> dict[str, list[str]]:
    """The query's parameters."""
    return parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)


def _lister(scope: Scope) -> str:
    """Three families list their models at the same path; their clients' headers differ."""
    if header(scope["headers"], b"anthropic-version") is not None:
        return "anthropic"
    google = header(scope["headers"], b"x-goog-api-key") is not None
    return "google" if google else "openai"
