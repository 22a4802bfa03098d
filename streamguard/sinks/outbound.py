"""Requests to addresses that a user typed in, without reaching what only this machine can.

The name is resolved once, every address is checked, and the connection goes to the checked
address itself: an answer that changes in between (DNS rebinding) has no effect. TLS still
verifies the name. Redirects are not followed, proxies of the environment not used.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from ssl import SSLContext

import anyio
import httpx2

from streamguard.errors import ConfigurationError, StreamGuardError

Address = IPv4Address | IPv6Address

_NAT64 = IPv6Network("64:ff9b::/96")
_LAST_PORT = 65_535


class ForbiddenAddressError(StreamGuardError):
    """The URL leads to an address that may not be reached from here."""

    code = "forbidden_address"


def is_public(address: Address) -> bool:
    """Whether the address belongs to the internet at large, looked at through every wrapping.

    IPv6 can carry an IPv4 address: mapped, 6to4, Teredo and NAT64 forms are opened.
    """
    if isinstance(address, IPv6Address):
        inner = _carried(address)
        if inner is not None:
            return all(is_public(one) for one in inner)
    return address.is_global and not address.is_multicast


def _carried(address: IPv6Address) -> tuple[IPv4Address, ...] | None:
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    if address in _NAT64:
        return (IPv4Address(int(address) & 0xFFFF_FFFF),)
    return None


def checked_url(url: str, *, allow_private: bool) -> httpx2.URL:
    """The URL, if it may be used.

    Raises:
        ConfigurationError: not https (http only with ``allow_private``), no host, or with a
            user name in it. The message shows the host alone: the path may be a secret.
    """
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, ValueError) as error:
        raise ConfigurationError("a webhook's URL cannot be read") from error
    schemes = ("https", "http") if allow_private else ("https",)
    if parsed.scheme not in schemes or not parsed.host or (parsed.port or 1) > _LAST_PORT:
        shown = f"{parsed.scheme}://{parsed.host}" if parsed.scheme else "without https://"
        raise ConfigurationError(f"a webhook's URL must be https://HOST/…, this one is {shown}")
    if parsed.userinfo:
        raise ConfigurationError(f"the webhook's URL of {parsed.host} must hold no user name")
    return parsed


async def resolve(host: str, port: int, *, allow_private: bool) -> str:
    """The first address of a host that may be reached.

    Raises:
        ForbiddenAddressError: every address is private, loopback, link-local or reserved.
        OSError: the name does not resolve.
    """
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_family, (text, *_port) in found:
        if allow_private or is_public(ip_address(str(text).partition("%")[0])):
            return str(text)
    raise ForbiddenAddressError(
        f"{host} resolves to no public address; allow_private=True permits others"
    )


async def post(
    url: httpx2.URL,
    body: bytes,
    headers: Mapping[str, str],
    *,
    allow_private: bool,
    timeout: float,  # noqa: ASYNC109 - it bounds each step of the request too
    verify: SSLContext | bool = True,
) -> httpx2.Response:
    """POST to the checked address; of the answer, status and headers are read.

    Raises:
        ForbiddenAddressError: the host has no address that may be reached.
        OSError: it does not resolve.
        TimeoutError: it all took longer than ``timeout`` seconds.
        httpx2.HTTPError: the connection failed.
    """
    port = url.port or (443 if url.scheme == "https" else 80)
    with anyio.fail_after(timeout):
        address = await resolve(url.host, port, allow_private=allow_private)
        client = httpx2.AsyncClient(
            verify=verify, trust_env=False, follow_redirects=False, timeout=timeout
        )
        async with client:
            request = client.build_request(
                "POST",
                url.copy_with(host=address),
                content=body,
                headers={**headers, "host": url.netloc.decode("ascii")},
                extensions={"sni_hostname": url.host},
            )
            answer = await client.send(request, stream=True)
            await answer.aclose()
            return answer
