"""Guards google-genai's ``Client``: its requests, synchronous and ``aio``, go over httpx."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from streamguard.errors import ConfigurationError


def is_genai(client: Any) -> bool:
    """Whether this is a ``google.genai.Client``."""
    return type(client).__module__.startswith("google.genai.") and hasattr(client, "_api_client")


def wrap_genai(client: Any, guard_http: Callable[[Any], Any]) -> Any:
    """A client of the same type over guarded HTTP clients; it shares ``client``'s connections.

    It raises google-genai's own errors, with our figures in their ``details``. Closing it leaves
    the connections open: they belong to ``client``.

    Raises:
        ConfigurationError: the client does not send over httpx (mutual TLS on Vertex).
    """
    api = copy.copy(client._api_client)
    if api._httpx_client is None or api._async_httpx_client is None:
        raise ConfigurationError("this google-genai client does not send over httpx")
    api._httpx_client = guard_http(api._httpx_client)
    api._async_httpx_client = guard_http(api._async_httpx_client)
    # Clients given by options are used rather than aiohttp, and left open at the end.
    given = {"httpx_client": api._httpx_client, "httpx_async_client": api._async_httpx_client}
    api._http_options = api._http_options.model_copy(update=given)
    twin = object.__new__(type(client))
    for name, value in vars(client).items():
        vars(twin)[name] = type(value)(api) if hasattr(value, "_api_client") else value
    twin._api_client = api
    twin._nextgen_client_instance = None
    twin._streamguard_source = client  # it closes the connections when it is collected
    return twin
