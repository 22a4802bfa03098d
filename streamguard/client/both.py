"""Refusals that can be caught as the SDK's error and as ours."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

from streamguard.client.flow import refused_with
from streamguard.client.http import is_guarded
from streamguard.errors import StreamGuardError


def raise_both(client: Any, guard_http: Callable[[Any], Any]) -> None:
    """Make an SDK client, and the copies made of it, raise errors of both kinds.

    An SDK without that hook keeps raising its own errors. ``guard_http`` guards the HTTP
    client that a copy may be given.
    """
    made = getattr(client, "_make_status_error", None)
    if made is not None:
        client._make_status_error = partial(_status_error, made)
    client.copy = client.with_options = partial(_copy, client.copy, guard_http)


def both(error: Exception, ours: StreamGuardError) -> Exception:
    """The SDK's error, which is ``ours`` as well and carries its figures."""
    sdk: Any = type(error)
    kind: Any = type(ours)
    try:
        error.__class__ = _mixed(sdk, kind)
    except TypeError:  # an SDK error that cannot be mixed stays what it is
        return error
    vars(error).update({key: value for key, value in vars(ours).items() if key not in vars(error)})
    return error


@cache
def _mixed(sdk: Any, ours: Any) -> Any:
    # ``message`` is the SDK's attribute, not our property.
    return type(ours.__name__, (sdk, ours), {"message": "", "__module__": ours.__module__})


def _status_error(made: Callable[..., Exception], *args: Any, **details: Any) -> Exception:
    error = made(*args, **details)
    ours = refused_with(details.get("response"))
    return error if ours is None else both(error, ours)


def _copy(copied: Callable[..., Any], guard_http: Callable[[Any], Any], **options: Any) -> Any:
    http = options.get("http_client")
    if http is not None and not is_guarded(http):
        options["http_client"] = guard_http(http)
    copy = copied(**options)
    raise_both(copy, guard_http)
    return copy
