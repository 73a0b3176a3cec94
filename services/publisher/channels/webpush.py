"""Web push (RFC 8030): a notification in each browser that asked for it on the public page.

- The text is encrypted for the browser (RFC 8291, `aes128gcm`); a push service sees none of it. Each
  message names who sends it (RFC 8292, VAPID), with one signature a push service for twelve hours.
- A push service that answers 404 or 410 says that the browser is gone: it is forgotten.
- A second try is harmless: an incident's notifications have one tag, and the newest takes the place of
  the one before (Notifications API, "tag"); `Topic` does the same while it waits (RFC 8030, 5.4).
- People asked for updates: offers are refused. What was shown cannot be taken back.
- Browsers bring their own address: only those of the named push services are called.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import urlsplit

import http_ece
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from py_vapid import Vapid02

from schemas.posts import Post
from services.kit.telemetry import Clock
from services.publisher.accounts import WebPushAccount
from services.publisher.channels import NotSent, Partly, Publication, Refused, Retracted, Unknown
from services.publisher.channels.http import ask, new_client
from services.publisher.clearance import Clearance
from services.publisher.ledger import Capabilities
from services.publisher.page import concerns
from services.publisher.push_store import Browser
from services.publisher.texts import first_line

CONNECTIONS: Final = 32
AT_ONCE: Final = 100  # Told together, and noted in one statement.
TEXT_BYTES: Final = 2_800  # "A push service MUST support 4096 bytes" (RFC 8030, 7.2), encrypted.
SIGNED_S: Final = 12 * 3600  # "MUST NOT be more than 24 hours" (RFC 8292, 2).
PATIENCE_S: Final = (
    120.0  # A push service that fails so long keeps nobody else from the next update.
)
GONE: Final = frozenset({404, 410})
TOPIC_CHARS: Final = 32  # RFC 8030, 5.4.
Hosts = tuple[str, ...]


class Browsers(Protocol):
    """Who wants to be told, and who was."""

    async def browsers(self) -> list[Browser]: ...

    async def remove(self, endpoint: str) -> bool: ...

    async def told(self, post_id: str) -> set[str]: ...

    async def note(self, post_id: str, found: Sequence[tuple[str, str]]) -> None: ...


@dataclass(slots=True)
class _Round:
    """What one try achieved."""

    sent: int = 0
    gone: int = 0
    refused: int = 0
    later: list[str] = field(default_factory=list)
    noted: list[tuple[str, str]] = field(default_factory=list)


class WebPush:
    """All browsers that asked on the page."""

    capabilities = Capabilities(idempotent_s=math.inf, can_delete=False)

    def __init__(
        self, account: WebPushAccount, browsers: Browsers, clock: Clock, *, url: str
    ) -> None:
        self.account, self.browsers, self.clock, self.url = account, browsers, clock, url
        self.key = Vapid02.from_raw(account.private_key.get_secret_value().encode())
        self.client = new_client(connections=CONNECTIONS)
        self._signed: dict[str, tuple[float, str]] = {}

    async def publish(self, clearance: Clearance, *, key: str) -> Publication:
        post = clearance.post
        if post.kind == "offer":
            raise Refused("people asked to be told of disruptions: no offer is pushed to them")
        told = await self.browsers.told(key)
        wanted = [one for one in await self.browsers.browsers() if _wants(one, post)]
        left, done = [one for one in wanted if one.name not in told], _Round()
        for first in range(0, len(left), AT_ONCE):
            await asyncio.gather(
                *(self._tell(one, clearance, key, done) for one in left[first : first + AT_ONCE])
            )
            await self.browsers.note(key, done.noted)
            done.noted.clear()
        if done.later:
            why = f"{len(done.later)} of {len(wanted)} browsers were not told; {done.later[-1]}"
            if len(done.later) < len(wanted):
                raise Partly(why, because=NotSent(why))
            raise NotSent(why)
        parts = (("refused", done.refused), ("gone and forgotten", done.gone))
        return Publication(key, detail=", ".join(f"{n} {what}" for what, n in parts if n))

    async def _tell(self, one: Browser, clearance: Clearance, key: str, done: _Round) -> None:
        post = clearance.post
        try:
            body = encrypt(one, json.dumps(self._message(post, key)).encode())
            answer, _ = await ask(
                self.client, "POST", one.endpoint, now=self.clock.now(), allowed=GONE,
                clearance=clearance, content=body, headers=self._headers(one.endpoint, post, key),
            )  # fmt: skip
        except (NotSent, Unknown) as error:
            if (self.clock.now() - post.due_at).total_seconds() < PATIENCE_S:
                done.later.append(str(error))
                return
            done.refused += 1
        except (Refused, ValueError):  # A key that is none: what it was made of was checked.
            done.refused += 1
        else:
            if answer.status_code in GONE:
                await self.browsers.remove(one.endpoint)
                done.gone += 1
                return
            done.sent += 1
            done.noted.append((one.name, "sent"))
            return
        done.noted.append((one.name, "refused"))

    def _message(self, post: Post, key: str) -> dict[str, Any]:
        text = post.text.encode()[:TEXT_BYTES].decode(errors="ignore")
        return {
            "title": first_line(post.text),
            "body": text if text == post.text else f"{text} …",
            "tag": post.incident_id or key,
            "url": f"{self.url}/#{post.incident_id or ''}",
            "language": post.language or "",
        }

    def _headers(self, endpoint: str, post: Post, key: str) -> dict[str, str]:
        topic = hashlib.sha256((post.incident_id or key).encode()).hexdigest()[:TOPIC_CHARS]
        left_s = max(0.0, (post.latest_at - self.clock.now()).total_seconds())
        return {
            "authorization": self._signature(endpoint),
            "content-encoding": "aes128gcm",
            "content-type": "application/octet-stream",
            "ttl": str(int(left_s)),
            "topic": topic,
            "urgency": "high",
        }

    def _signature(self, endpoint: str) -> str:
        parts = urlsplit(endpoint)
        audience, now_s = f"{parts.scheme}://{parts.netloc}", self.clock.now().timestamp()
        until_s, signature = self._signed.get(audience, (0.0, ""))
        if until_s < now_s:
            until_s = now_s + SIGNED_S
            claims = {"aud": audience, "sub": self.account.contact, "exp": int(until_s) + 3600}
            signature = str(self.key.sign(claims)["Authorization"])
            self._signed[audience] = (until_s, signature)
        return signature

    async def retract(self, publication: Publication) -> Retracted:
        raise Refused("a notification cannot be taken back")

    async def aclose(self) -> None:
        await self.client.aclose()


def public_key(private_key: str) -> str:
    """Return the key that a browser asks for (`applicationServerKey`), in unpadded base64url."""
    point = Vapid02.from_raw(private_key.encode()).public_key.public_bytes(
        Encoding.X962, PublicFormat.UncompressedPoint
    )
    return base64.urlsafe_b64encode(point).decode().rstrip("=")


def new_private_key() -> str:
    """Return a fresh private key: 32 bytes, in unpadded base64url."""
    number = ec.generate_private_key(ec.SECP256R1()).private_numbers().private_value
    return base64.urlsafe_b64encode(number.to_bytes(32)).decode().rstrip("=")


def encrypt(one: Browser, content: bytes) -> bytes:
    """Encrypt for a browser (RFC 8291); raises ValueError for keys that are none."""
    fresh = ec.generate_private_key(ec.SECP256R1())
    try:
        return bytes(
            http_ece.encrypt(
                content, private_key=fresh, dh=_bytes(one.p256dh), auth_secret=_bytes(one.auth)
            )
        )
    except http_ece.ECEException as error:
        raise ValueError(str(error)) from error


def is_push_service(endpoint: str, hosts: Hosts) -> bool:
    """Say whether an address is at one of the push services: by host, or by host and port."""
    parts = urlsplit(endpoint)
    fits: Callable[[str], bool] = lambda host: (  # noqa: E731
        (parts.hostname or "").endswith(host) if host.startswith(".") else parts.netloc == host
    )
    is_local = parts.hostname in ("127.0.0.1", "localhost")
    return (parts.scheme == "https" or is_local) and any(fits(host) for host in hosts)


def _wants(one: Browser, post: Post) -> bool:
    if post.language and one.language != post.language[:2]:
        return False
    return concerns(one.matchers, post.labels)


def _bytes(given: str) -> bytes:
    return base64.urlsafe_b64decode(given + "=" * (-len(given) % 4))
