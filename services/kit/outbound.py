"""Requests to addresses that other people wrote: to the public internet, and nowhere else.

A host's addresses are looked up once, each must be public, and the request goes to the one that was
looked at: a name that answers otherwise the second time leads nowhere (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import socket
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import httpx

TIMEOUT_S: Final = 10.0
NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052.
NAT64_LOCAL: Final = ipaddress.IPv6Network("64:ff9b:1::/48")  # RFC 8215.


class Forbidden(httpx.ConnectError):
    """The address is none of the public internet, and was not allowed by name."""


class PublicOnly(httpx.AsyncBaseTransport):
    """A transport that asks public addresses only; `allowed` are hosts that may be private."""

    def __init__(self, *, allowed: frozenset[str] = frozenset()) -> None:
        self.allowed = allowed
        self.inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        if host not in self.allowed:
            address = await _public_address(host, request.url.port)
            request.url = request.url.copy_with(host=address)  # `Host` was written before.
            request.extensions["sni_hostname"] = host
        return await self.inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self.inner.aclose()


def new_client(*, allowed: frozenset[str] = frozenset()) -> httpx.AsyncClient:
    """Return a client for addresses that other people wrote; it follows no redirect."""
    return httpx.AsyncClient(transport=PublicOnly(allowed=allowed), timeout=TIMEOUT_S)


async def _public_address(host: str, port: int | None) -> str:
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port or 443, type=socket.SOCK_STREAM)
    except (OSError, ValueError, OverflowError) as error:  # No name at all, no port that there is.
        raise httpx.ConnectError(f"{host}: {error}") from error
    addresses = [str(one[4][0]) for one in found]
    for address in addresses:
        if not is_public(address):
            raise Forbidden(
                f"{host} is {address}, which is not public; allow it by name if it is meant"
            )
    return addresses[0]


def is_public(address: str) -> bool:
    """Say whether an IP address is of the public internet, also when IPv6 wraps an IPv4."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        if found in NAT64_LOCAL:
            return False
        nat64 = ipaddress.IPv4Address(found.packed[-4:]) if found in NAT64 else None
        inner = nat64 or found.ipv4_mapped or found.sixtofour
        if inner:
            return is_public(str(inner))
    return found.is_global and not found.is_multicast


def signed_headers(
    secrets: Sequence[str], *, message_id: str, at: datetime, body: bytes
) -> dict[str, str]:
    """Return the headers of a webhook of JSON, signed by each secret (Standard Webhooks 1.0)."""
    stamp = str(int(at.timestamp()))
    signed = (sign(one, message_id=message_id, stamp=stamp, body=body) for one in secrets)
    return {
        "content-type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": stamp,
        "webhook-signature": " ".join(signed),
    }


def sign(secret: str, *, message_id: str, stamp: str, body: bytes) -> str:
    """Return the `webhook-signature` header (Standard Webhooks 1.0, "Signature scheme")."""
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    digest = hmac.new(key, f"{message_id}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"
