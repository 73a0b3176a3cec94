"""Signed webhooks, as Standard Webhooks 1.0 has them: HMAC-SHA256 over id, time and body."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import math
from typing import Any

import httpx

from services.kit.telemetry import Clock
from services.publisher.accounts import WebhookAccount
from services.publisher.channels import NotSent, Publication, Refused, Unknown
from services.publisher.gate import Cleared
from services.publisher.ledger import Capabilities

TIMEOUT_S = 10.0
CONNECTIONS = 20
RETRY_LATER = frozenset({408, 425, 429})
SERVER_ERRORS = 500


class Webhook:
    """One receiver. A retraction is an event of its own, `post.retracted`."""

    def __init__(self, account: WebhookAccount, clock: Clock) -> None:
        self.account, self.clock = account, clock
        self.capabilities = Capabilities(
            idempotent_s=math.inf if account.deduplicates else 0, can_delete=True
        )
        self.client = httpx.AsyncClient(
            timeout=TIMEOUT_S, limits=httpx.Limits(max_connections=CONNECTIONS)
        )

    async def publish(self, cleared: Cleared, *, key: str) -> Publication:
        post = cleared.post
        body = self._body("post.published", post.model_dump(mode="json", exclude_none=True))
        headers = self._headers(key, body)
        cleared.check(self.clock.monotonic_s())
        await self._deliver(headers, body)
        return Publication(key)

    async def retract(self, publication: Publication) -> None:
        body = self._body("post.retracted", {"publication": publication.id})
        await self._deliver(self._headers(f"{publication.id}.retracted", body), body)

    async def aclose(self) -> None:
        await self.client.aclose()

    def _body(self, kind: str, data: dict[str, Any]) -> bytes:
        at = self.clock.now().isoformat()
        return json.dumps({"type": kind, "timestamp": at, "data": data}).encode()

    def _headers(self, message_id: str, body: bytes) -> dict[str, str]:
        stamp = str(int(self.clock.now().timestamp()))
        secret = self.account.secret.get_secret_value()
        return {
            "content-type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": stamp,
            "webhook-signature": sign(secret, message_id=message_id, stamp=stamp, body=body),
        }

    async def _deliver(self, headers: dict[str, str], body: bytes) -> None:
        try:
            answer = await self.client.post(self.account.url, content=body, headers=headers)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise NotSent(f"no connection: {error}") from error
        except httpx.HTTPError as error:
            raise Unknown(f"{type(error).__name__}: {error}") from error
        if answer.is_success:
            return
        said = f"HTTP {answer.status_code}: {answer.text[:200]}"
        if answer.status_code in RETRY_LATER:
            after = answer.headers.get("retry-after", "0")
            raise NotSent(said, retry_after_s=float(after) if after.isdigit() else 0)
        if answer.status_code >= SERVER_ERRORS:
            raise Unknown(said)  # It may have failed after it took the post.
        raise Refused(said)


def sign(secret: str, *, message_id: str, stamp: str, body: bytes) -> str:
    """Return the `webhook-signature` header (Standard Webhooks 1.0, "Signature scheme")."""
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    content = f"{message_id}.{stamp}.".encode() + body
    digest = hmac.new(key, content, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"
