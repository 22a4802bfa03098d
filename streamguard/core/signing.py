"""Standard Webhooks signatures (standardwebhooks.com, specification 1.0). Pure."""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from hmac import new

from streamguard.errors import ConfigurationError

PREFIX = "whsec_"
_SHORTEST, _LONGEST = 24, 64


def secret_bytes(secret: str) -> bytes:
    """The key of a ``whsec_`` secret.

    Raises:
        ConfigurationError: not base64 of 24 to 64 bytes. The message does not show it.
    """
    try:
        key = b64decode(secret.removeprefix(PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigurationError("a webhook secret is whsec_ and base64") from error
    if not _SHORTEST <= len(key) <= _LONGEST:
        raise ConfigurationError(
            f"a webhook secret holds {_SHORTEST} to {_LONGEST} bytes, this one {len(key)}"
        )
    return key


def signature(message_id: str, timestamp: int, body: bytes, keys: Sequence[bytes]) -> str:
    """The ``webhook-signature`` header: one signature a key, so that keys can be rotated.

    ``timestamp`` is whole Unix seconds, of this attempt.
    """
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{b64encode(new(key, signed, sha256).digest()).decode()}" for key in keys)


def signed_headers(
    message_id: str, timestamp: int, body: bytes, keys: Sequence[bytes]
) -> Mapping[str, str]:
    """The three headers of a signed message; none without keys."""
    if not keys:
        return {}
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": signature(message_id, timestamp, body, keys),
    }
