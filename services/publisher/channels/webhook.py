"""Signed webhooks, as Standard Webhooks 1.0 has them: HMAC-SHA256 over id, time and body.

While a secret is changed both sign, the new one first ("Signature scheme", zero downtime rotation). A
receiver that has seen a `webhook-id` is to pass it over; one that cannot says `deduplicates: false`.
"""

from __future__ import annotations

import json
import math
from typing import Any

from schemas.channels import MediaLimit
from services.kit.outbound import signed_headers
from services.kit.telemetry import Clock
from services.publisher.accounts import WebhookAccount
from services.publisher.channels import Publication, Retracted
from services.publisher.channels.http import BESIDE_OFFERS, ask, new_client
from services.publisher.clearance import Clearance
from services.publisher.ledger import Capabilities

CONNECTIONS = 40
_MEDIA = MediaLimit(
    most=4, bytes=0, alt=1_000, video_bytes=0
)  # The receiver is told where they are.


class Webhook:
    """One receiver. A retraction is an event of its own, `post.retracted`."""

    def __init__(self, account: WebhookAccount, clock: Clock) -> None:
        self.account, self.clock = account, clock
        self.capabilities = Capabilities(
            idempotent_s=math.inf if account.deduplicates else 0,
            can_delete=True,
            media=_MEDIA,
            threads=True,  # All of it in one message.
            parallel=CONNECTIONS - BESIDE_OFFERS,
            has_rate=True,
        )
        self.client = new_client(connections=CONNECTIONS, keeps=account.deduplicates)

    async def publish(self, clearance: Clearance, *, key: str) -> Publication:
        post = clearance.post
        body = self._body("post.published", post.model_dump(mode="json", exclude_none=True))
        headers = self._headers(key, body)
        await self._deliver(headers, body, clearance)
        return Publication(key)

    async def retract(self, publication: Publication) -> Retracted:
        body = self._body("post.retracted", {"publication": publication.id})
        await self._deliver(self._headers(f"{publication.id}.retracted", body), body)
        return Retracted()

    async def aclose(self) -> None:
        await self.client.aclose()

    def _body(self, kind: str, data: dict[str, Any]) -> bytes:
        at = self.clock.now().isoformat()
        return json.dumps({"type": kind, "timestamp": at, "data": data}).encode()

    def _headers(self, message_id: str, body: bytes) -> dict[str, str]:
        secrets = [
            one.get_secret_value()
            for one in (self.account.secret, self.account.old_secret)
            if one is not None
        ]
        return signed_headers(secrets, message_id=message_id, at=self.clock.now(), body=body)

    async def _deliver(
        self, headers: dict[str, str], body: bytes, clearance: Clearance | None = None
    ) -> None:
        await ask(
            self.client,
            "POST",
            self.account.url,
            now=self.clock.now(),
            clearance=clearance,
            content=body,
            headers=headers,
        )
