"""Who is charged for a call."""

from __future__ import annotations

from dataclasses import dataclass


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


ANONYMOUS = Identity()
