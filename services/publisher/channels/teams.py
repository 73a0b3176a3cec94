"""Microsoft Teams: a workflow that posts what it is sent by webhook ("When a Teams webhook request is
received", support.microsoft.com, "Create incoming webhooks with Workflows").

The address is the secret. The workflow answers 202 before it posts, knows no key, and can neither be
read nor delete: a lost answer stays unknown, and a take-back is a person's task. A card may have 28 KB
(learn.microsoft.com, "Create and send messages").
"""

from __future__ import annotations

from typing import Final

from schemas.channels import MediaLimit, TextLimit
from services.kit.telemetry import Clock
from services.publisher.accounts import TeamsAccount
from services.publisher.channels import Publication, Refused, Retracted
from services.publisher.channels.http import ask, new_client
from services.publisher.channels.threads import Part, Threads
from services.publisher.clearance import Clearance
from services.publisher.ledger import Capabilities

_LIMIT: Final = TextLimit(most=20_000, unit="utf16", bytes=24_000)
_MEDIA: Final = MediaLimit(most=4, bytes=0, alt=1_000)  # Teams fetches them.
_CARD: Final = "application/vnd.microsoft.card.adaptive"


class Teams(Threads):
    """One workflow."""

    capabilities = Capabilities(
        idempotent_s=0,
        can_delete=False,
        text=_LIMIT,
        media=_MEDIA,
        threads=True,
        has_rate=True,
    )

    def __init__(self, account: TeamsAccount, clock: Clock) -> None:
        self.account, self.clock = account, clock
        self.client = new_client(keeps=False)

    async def _send(self, clearance: Clearance, part: Part) -> Publication:
        shown = clearance.post.media if part.number == 0 else ()
        card = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "body": [
                {"type": "TextBlock", "text": part.text, "wrap": True},
                *({"type": "Image", "url": m.url, "altText": m.alt} for m in shown),
            ],
        }
        attachment = {"contentType": _CARD, "contentUrl": None, "content": card}
        body = {"type": "message", "attachments": [attachment]}
        url = self.account.webhook.get_secret_value()
        await ask(self.client, "POST", url, now=self.clock.now(), clearance=clearance, json=body)
        return Publication(f"{part.key}.{part.number + 1}" if part.of > 1 else part.key)

    async def retract(self, publication: Publication) -> Retracted:
        raise Refused("a workflow cannot take back what it posted")

    async def aclose(self) -> None:
        await self.client.aclose()
