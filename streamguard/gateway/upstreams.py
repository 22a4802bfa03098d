"""Where requests go: upstreams by protocol and model, and the keys the gateway holds for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from streamguard.errors import ConfigurationError

FAMILIES = {
    "openai": ("/chat/completions", "/responses", "/completions", "/embeddings", "/models"),
    "anthropic": ("/messages", "/messages/count_tokens"),
    "google": (":generatecontent", ":streamgeneratecontent", ":counttokens", ":embedcontent"),
    "ollama": ("/api/chat", "/api/generate", "/api/embed", "/api/tags"),
}
"""How the paths of a family end: what an upstream of it is asked for."""

_AUTH = {
    "openai": ("authorization", "Bearer {}"),
    "anthropic": ("x-api-key", "{}"),
    "google": ("x-goog-api-key", "{}"),
    "ollama": ("authorization", "Bearer {}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One provider behind the gateway.

    Attributes:
        url: its root, such as ``https://api.openai.com``; the request's path is added to it.
        family: "openai", "anthropic", "google" or "ollama".
        models: globs of the models it serves.
        key_env: the environment variable with its API key; empty sends no key of our own.
        name: in events and errors.
    """

    url: str
    family: str = "openai"
    models: tuple[str, ...] = ("*",)
    key_env: str = ""
    name: str = ""
    key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Check the figures and take the key from the environment."""
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"upstream url {self.url!r} is not an http(s) URL")
        if self.family not in FAMILIES:
            message = f"upstream family {self.family!r}; use one of {', '.join(FAMILIES)}"
            raise ConfigurationError(message)
        if self.key_env and not os.environ.get(self.key_env):
            message = f"upstream {self.name or self.url!r}: {self.key_env} is not set"
            raise ConfigurationError(message)
        object.__setattr__(self, "url", self.url.rstrip("/"))
        object.__setattr__(self, "key", os.environ.get(self.key_env, "") if self.key_env else "")

    def serves(self, model: str) -> bool:
        """Whether the model goes here."""
        return any(fnmatchcase(model, glob) for glob in self.models)

    def auth(self) -> tuple[str, str] | None:
        """The header with the gateway's own key for the provider."""
        if not self.key:
            return None
        name, form = _AUTH[self.family]
        return name, form.format(self.key)


def family_of(path: str) -> str | None:
    """The provider family of a normalised path, ``None`` when it belongs to none."""
    for family, endings in FAMILIES.items():
        if path.endswith(endings) or (family == "openai" and "/models" in path):
            return family
    return None


def choose(upstreams: Sequence[Upstream], path: str, model: str | None) -> Upstream | None:
    """The first upstream of the path's family that serves the model.

    A path of no family goes to the only upstream, if there is just one.
    """
    family = family_of(path)
    mine = [one for one in upstreams if one.family == family]
    if family is None:
        return upstreams[0] if len(upstreams) == 1 else None
    if model is None:
        return mine[0] if mine else None
    return next((one for one in mine if one.serves(model)), None)
