"""Who may see a page of figures: HTTP Basic with one password, or nobody but this machine."""

from __future__ import annotations

import binascii
import hmac
from base64 import b64decode
from hashlib import sha256
from typing import NamedTuple

import anyio

from streamguard.asgi.body import header
from streamguard.asgi.types import Scope
from streamguard.errors import ConfigurationError

MIN_PASSWORD = 8
GUESS_SECONDS = 1.0
"""How long a wrong password takes to be refused."""

GUESSES = 8
"""Wrong passwords that may be under way at once: with the seconds, the rate of guessing."""

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_FORWARDED = frozenset(
    {b"forwarded", b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"via"}
)


class Denial(NamedTuple):
    """An answer to somebody who may not come in."""

    status: int
    message: str
    headers: tuple[tuple[str, str], ...] = ()


class Door:
    """Lets in whoever knows the password; without one, whoever is on this machine.

    Nothing of it is in a URL, a cookie or a log, and there is nothing another site could make a
    browser do: every request only reads. The user name of HTTP Basic does not matter.

    Raises:
        ConfigurationError: the password is too short.
    """

    def __init__(self, password: str | None, page: str = "live page") -> None:
        """``page`` is what the answers call it."""
        if password is not None and len(password) < MIN_PASSWORD:
            message = (
                f"the {page}'s password has {len(password)} characters; use at least "
                f"{MIN_PASSWORD}, better a random one of 20"
            )
            raise ConfigurationError(message)
        self._digest = None if password is None else sha256(password.encode()).digest()
        self._page = page
        realm = f"streamguard {page.partition(' ')[0]}"
        self._challenge = ("www-authenticate", f'Basic realm="{realm}", charset="UTF-8"')
        self._guessing = 0

    async def deny(self, scope: Scope) -> Denial | None:
        """Why a request may not come in; ``None`` lets it in."""
        if _from_elsewhere(scope):
            return Denial(403, f"This is for the {self._page} itself.")
        if self._digest is None:
            return None if _local(scope) else Denial(403, self._this_machine_only())
        given = header(scope["headers"], b"authorization")
        if given is None:
            return Denial(401, f"The {self._page} needs its password.", (self._challenge,))
        if hmac.compare_digest(sha256(_password(given)).digest(), self._digest):
            return None
        return await self._wrong()

    async def _wrong(self) -> Denial:
        """Refuse late, so that passwords cannot be tried quickly; the right one never waits."""
        if self._guessing >= GUESSES:
            return Denial(429, "Too many wrong passwords; try again.", (("retry-after", "5"),))
        self._guessing += 1
        try:
            await anyio.sleep(GUESS_SECONDS)
        finally:
            self._guessing -= 1
        return Denial(401, f"That is not the {self._page}'s password.", (self._challenge,))

    def _this_machine_only(self) -> str:
        return f"Without a password the {self._page} is served to this machine only; set one."


def _password(authorization: bytes) -> bytes:
    kind, _, value = authorization.partition(b" ")
    if kind.lower() != b"basic":
        return b""
    try:
        return b64decode(value.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""


def _from_elsewhere(scope: Scope) -> bool:
    """Another site's page asks, with the browser's stored password: it could use up viewers."""
    site = header(scope["headers"], b"sec-fetch-site")
    mode = header(scope["headers"], b"sec-fetch-mode")
    return site in (b"cross-site", b"same-site") and mode != b"navigate"


def _local(scope: Scope) -> bool:
    """The client is on this machine, through no proxy, and asked for it by a loopback name: a
    page of some other name that resolves to this machine (DNS rebinding) is not let in.
    """
    client = scope.get("client") or ("", 0)
    named = (header(scope["headers"], b"host") or b"").decode("latin-1")
    host = named.rpartition("]")[0].lstrip("[") if "]" in named else named.partition(":")[0]
    forwarded = any(name.lower() in _FORWARDED for name, _ in scope["headers"])
    return client[0] in _LOOPBACK and host.lower() in _LOOPBACK and not forwarded
