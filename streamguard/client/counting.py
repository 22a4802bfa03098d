"""Ready-made ``count_remote`` hooks: the count endpoints of Anthropic and Gemini.

::

    guard = Guard(count_remote=first_of(anthropic_counts(AsyncAnthropic()), gemini_counts(genai)))

Give each a client of its own that is not guarded. Anthropic calls its count an estimate; both
endpoints cost nothing but time, and have rate limits of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from streamguard.client.genai import is_genai
from streamguard.client.http import library_of
from streamguard.core.wire import Request
from streamguard.errors import ConfigurationError
from streamguard.guard.counts import CountRemote

_ANTHROPIC_PATH = "/v1/messages/count_tokens"
_ANTHROPIC_TAKES = frozenset({
    "model", "messages", "system", "tools", "tool_choice", "thinking", "mcp_servers",
    "cache_control", "context_management", "output_config", "output_format",
})  # fmt: skip
"""Fields of the endpoint's reference; it refuses others, such as ``max_tokens``."""

_GEMINI_PATH = "{}:countTokens"


def anthropic_counts(client: Any) -> CountRemote:
    """Ask Anthropic's ``/v1/messages/count_tokens`` for requests in its format.

    ``client`` is an ``AsyncAnthropic``, or an ``httpx2`` (or ``httpx``) ``AsyncClient`` with the
    base URL and the headers that Anthropic wants.

    Raises:
        ConfigurationError: a client of another kind.
    """
    sends = _is_http(client)
    if not sends and not _is_http(getattr(client, "_client", None)):
        raise ConfigurationError(_kind_error("anthropic_counts", "an AsyncAnthropic", client))

    async def count(request: Request) -> int | None:
        if request.protocol != "anthropic":
            return None
        given = {"model": request.model, **request.body}
        body = {key: value for key, value in given.items() if key in _ANTHROPIC_TAKES}
        if sends:
            answer = _read(await client.post(_ANTHROPIC_PATH, json=body))
        else:
            answer = await client.post(_ANTHROPIC_PATH, body=body, cast_to=object)
        return _whole(answer, "input_tokens")

    return count


def gemini_counts(client: Any, *, prefix: str = "/v1beta/models/") -> CountRemote:
    """Ask Gemini's ``:countTokens`` for requests in its format.

    ``client`` is a google-genai ``Client``, or an ``httpx2`` (or ``httpx``) ``AsyncClient`` with
    the base URL and the API key's header; ``prefix`` is what its paths have before the model.

    Raises:
        ConfigurationError: a client of another kind, or for Vertex AI.
    """
    sends = _is_http(client)
    if not sends and not is_genai(client):
        raise ConfigurationError(_kind_error("gemini_counts", "a google-genai Client", client))
    if not sends and client._api_client.vertexai:
        message = "gemini_counts does not know Vertex's countTokens; write count_remote yourself"
        raise ConfigurationError(message)

    async def count(request: Request) -> int | None:
        if request.protocol != "gemini":
            return None
        model = request.model.removeprefix("models/")
        whole = {**request.body, "model": f"models/{model}"}
        body = {"generateContentRequest": whole}
        if sends:
            answer = _read(await client.post(prefix + _GEMINI_PATH.format(model), json=body))
        else:
            path = "models/" + _GEMINI_PATH.format(model)
            answer = json.loads((await client._api_client.async_request("post", path, body)).body)
        return _whole(answer, "totalTokens")

    return count


def first_of(*hooks: CountRemote) -> CountRemote:
    """One hook out of several: the first that has a count for the request."""

    async def count(request: Request) -> int | None:
        for hook in hooks:
            tokens = await hook(request)
            if tokens is not None:
                return tokens
        return None

    return count


def _is_http(client: Any) -> bool:
    return library_of(client) is not None and hasattr(client, "aclose")


def _read(response: Any) -> Any:
    response.raise_for_status()
    return response.json()


def _whole(answer: Any, key: str) -> int | None:
    tokens = answer.get(key) if isinstance(answer, Mapping) else None
    return tokens if type(tokens) is int else None


def _kind_error(name: str, kind: str, client: Any) -> str:
    return (
        f"{name} takes {kind} or an asynchronous httpx2 or httpx client, "
        f"not {type(client).__name__}"
    )
