"""Where requests go: upstreams by family and model, and the keys the gateway holds for them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

from streamguard.errors import ConfigurationError
from streamguard.gateway.routes import FAMILIES

_AUTH = {
    "openai": ("authorization", "Bearer {}"),
    "anthropic": ("x-api-key", "{}"),
    "google": ("x-goog-api-key", "{}"),
    "ollama": ("authorization", "Bearer {}"),
}
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One provider behind the gateway.

    Attributes:
        url: its root, such as ``https://api.openai.com``: the request's path is added to it. A
            ``/v1`` at its end, which the paths have already, is left out.
        family: "openai", "anthropic", "google" or "ollama".
        models: globs of the models it serves.
        key_env: the environment variable with its API key; empty sends no key of our own.
        auth_header: the header that takes the plain key, where it is not the family's usual one
            (Azure: ``api-key``).
        name: in errors; the host where it has none.
        key: read from the environment.

    Raises:
        ConfigurationError: no such family, a URL that is none, or a variable that is not set.
    """

    url: str
    family: str = "openai"
    models: tuple[str, ...] = ("*",)
    key_env: str = ""
    auth_header: str = ""
    name: str = ""
    key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        """Check the figures and take the key from the environment."""
        host = _host(self.url)
        if self.family not in FAMILIES:
            message = f"family={self.family!r} is none; use one of {', '.join(FAMILIES)}"
            raise ConfigurationError(message)
        key = os.environ.get(self.key_env, "").strip() if self.key_env else ""
        if self.key_env and not key:
            raise ConfigurationError(_unset(self.key_env))
        object.__setattr__(self, "url", self.url.rstrip("/").removesuffix("/v1"))
        object.__setattr__(self, "name", self.name or host)
        object.__setattr__(self, "key", key)

    def serves(self, model: str) -> bool:
        """Whether the model goes here."""
        return any(fnmatchcase(model, glob) for glob in self.models)

    def auth(self) -> tuple[str, str] | None:
        """The header with the gateway's own key for the provider."""
        if not self.key:
            return None
        if self.auth_header:
            return self.auth_header, self.key
        name, form = _AUTH[self.family]
        return name, form.format(self.key)


def _unset(name: str) -> str:
    """What is wrong with the name of a variable; what looks like none may be the key: not shown."""
    if _VARIABLE.fullmatch(name):
        return f"key_env={name!r}: that environment variable is not set"
    return "key_env= must name an environment variable that is set and holds the key"


def _host(url: str) -> str:
    """The URL's host; its user part and its query could hold secrets and are refused."""
    try:
        parts = urlsplit(url)
        host = parts.hostname if parts.scheme in ("http", "https") else None
    except ValueError:
        host = None
    if host is None or parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError("url= must be http(s)://HOST[:PORT][/PATH], nothing more")
    return host


def choose(upstreams: Sequence[Upstream], family: str, model: str | None) -> Upstream | None:
    """The first upstream of the family that serves the model, or any where none is named."""
    return next(
        (one for one in upstreams if one.family == family and (model is None or one.serves(model))),
        None,
    )
