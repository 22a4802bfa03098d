"""Who is charged for a call."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from streamguard.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is charged: any part may be unknown (``None``).

    Build it from what your own authentication proved, never from a header or a
    body field that the caller may set freely.

    Attributes:
        tenant: the customer, team or key that pays.
        user: who of the tenant's people.
        feature: what of your app the call is for.
    """

    tenant: str | None = None
    user: str | None = None
    feature: str | None = None

    def __post_init__(self) -> None:
        """Raise ``ConfigurationError`` for a part that is no text: 5 and "5" are one tenant."""
        for name in _PARTS:
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                kind = type(value).__name__
                raise ConfigurationError(f"Identity({name}=…) must be a string, not {kind}")


_PARTS = tuple(field.name for field in fields(Identity))


def checked(identity: Any) -> Identity:
    """The identity itself.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(identity, Identity):
        kind = type(identity).__name__
        message = f"an identity must be an Identity, such as Identity(tenant='acme'), not a {kind}"
        raise ConfigurationError(message)
    return identity


ANONYMOUS = Identity()
