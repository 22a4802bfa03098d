"""Puts the policies for an outage around a store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamguard.core.accounts import limit_key
from streamguard.core.admission import window_of
from streamguard.errors import StoreUnavailableError
from streamguard.guard.settings import Settings
from streamguard.stores.base import Store
from streamguard.stores.policy import PolicyStore

_WITHIN = 0.8
"""The part of ``store_timeout`` the store itself gets: the rest is for deciding without it."""

OnError = Callable[[str, StoreUnavailableError], None]


def with_policies(store: Store, settings: Settings, on_error: OnError) -> Store:
    """The store with the settings' policies; the store itself where all fail closed.

    Raises:
        ConfigurationError: a policy that is none.
    """
    limits = () if callable(settings.limits) else settings.limits
    policies: dict[str, Any] = {
        limit_key(limit.name, window_of(limit)): limit.fail
        for limit in limits
        if limit.fail is not None
    }
    policy: Any = settings.store_policy
    if policy == "closed" and not policies:
        return store
    return PolicyStore(
        store,
        policy=policy,
        policies=policies,
        timeout=settings.store_timeout * _WITHIN,
        on_error=on_error,
    )
