"""``guard.wrap``: a client of the same type whose every HTTP call is guarded."""

from __future__ import annotations

from typing import Any, TypeVar, get_args

from streamguard.client.both import raise_both
from streamguard.client.flow import Unlisted
from streamguard.client.genai import is_genai, wrap_genai
from streamguard.client.http import guard_http, library_of
from streamguard.errors import ConfigurationError
from streamguard.guard.engine import Engine
from streamguard.identity import Identity

Client = TypeVar("Client")


def wrap(
    guard: Engine,
    client: Client,
    identity: Identity | None = None,
    *,
    unlisted: Unlisted = "detect",
) -> Client:
    """Guard a client at its HTTP transport; ``client`` itself stays as it is.

    Takes the clients of ``openai`` and ``anthropic`` (asynchronous and synchronous, Azure's too),
    google-genai's ``Client``, and any ``httpx`` or ``httpx2`` client, as LiteLLM, LangChain and
    others let you pass one.
    Each HTTP request is a call of its own, an SDK's retry as well. Closing the result closes
    ``client``. WebSockets (the Realtime API) do not pass here and are not guarded.

    Raises:
        ConfigurationError: a client of another kind, closed, or guarded already; an ``unlisted``
            that is none.
    """
    if unlisted not in get_args(Unlisted):
        raise ConfigurationError(f"unlisted={unlisted!r}; use one of {get_args(Unlisted)}")
    result: Client
    if library_of(client) is not None:
        result = guard_http(guard, client, identity, unlisted)
        return result

    def guarded(http: Any) -> Any:
        return guard_http(guard, http, identity, unlisted)

    if is_genai(client):
        result = wrap_genai(client, guarded)
        return result
    inner = getattr(client, "_client", None)
    if library_of(inner) is None or not hasattr(client, "copy"):
        raise ConfigurationError(
            f"streamguard cannot wrap {type(client).__name__}: give an openai, anthropic or "
            "google-genai client, or the httpx or httpx2 client that yours sends with"
        )
    copy: Any = client.copy(http_client=guarded(inner))
    raise_both(copy, guarded)
    result = copy
    return result
