"""Discord: a bot in a channel, or an incoming webhook.

- Bot: `POST /channels/{id}/messages` (discord.com/developers/docs/resources/message#create-message)
  with `nonce` and `enforce_nonce`: within "the past few minutes" the same nonce is the same message.
  Later the channel's newest hundred messages are searched for the words.
- Webhook: `POST …?wait=true` (resources/webhook#execute-webhook) answers with the message, knows no
  nonce and cannot be read: a lost answer stays unknown.
- Both delete (`DELETE …/messages/{id}`). Limits: `X-RateLimit-*` of a bucket (topics/rate-limits);
  2,000 characters, counted here in UTF-16, which is never less.
- Pictures, or a video, go with the message, as `files[n]` beside `payload_json` (reference#uploading-files): 10 MiB,
  1,024 characters each to describe it. A link is unfurled by Discord itself.
- Nobody is mentioned: `allowed_mentions` is empty.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

import httpx

from schemas.channels import MediaLimit, TextLimit
from schemas.posts import Post
from services.kit.telemetry import Clock
from services.publisher.accounts import DiscordAccount
from services.publisher.channels import Publication, Retracted
from services.publisher.channels.http import ask, is_within, new_client, told_by
from services.publisher.channels.media import Attachment, Attachments, as_it_is
from services.publisher.channels.threads import Part, Threads
from services.publisher.clearance import Clearance
from services.publisher.ledger import Capabilities
from services.publisher.rates import Told

NONCE_S = 120.0
NONCE_CHARS = 25
NEWEST = 100
_MEDIA = MediaLimit(most=4, bytes=10 * 1024 * 1024, alt=1_024, video_bytes=10 * 1024 * 1024)
_LIMIT = TextLimit(most=2_000, unit="utf16")
_GONE = frozenset({404})


class Discord(Threads):
    """One channel, by a bot or by a webhook."""

    def __init__(self, account: DiscordAccount, clock: Clock) -> None:
        self.account, self.clock = account, clock
        self.is_bot = account.webhook is None
        self.capabilities = Capabilities(
            idempotent_s=NONCE_S if self.is_bot else 0,
            can_delete=True,
            reads_back="search" if self.is_bot else "none",
            text=_LIMIT,
            media=_MEDIA,
            threads=True,
            has_rate=True,
        )
        self.attachments = Attachments(_MEDIA, allowed=account.picture_hosts)
        if account.webhook is not None:
            self.path, self.headers = account.webhook.get_secret_value(), {}
        else:
            assert account.token is not None
            self.path = f"{account.url}/api/v10/channels/{account.channel_id}"
            self.headers = {"authorization": f"Bot {account.token.get_secret_value()}"}
        self.client = new_client(keeps=self.is_bot)

    async def _send(self, clearance: Clearance, part: Part) -> Publication:
        where = f"{self.path}/messages" if self.is_bot else f"{self.path}?wait=true"
        body: dict[str, Any] = {"content": part.text, "allowed_mentions": {"parse": []}}
        if self.is_bot:
            nonce = hashlib.sha256(f"{part.key}.{part.number}".encode()).hexdigest()[:NONCE_CHARS]
            body |= {"nonce": nonce, "enforce_nonce": True}
        first = part.number == 0
        attachments = await self.attachments.of(clearance.post, as_it_is) if first else []
        values = _with_files(body, attachments)
        answer, told = await self._ask("POST", where, clearance=clearance, **values)
        return Publication(str(answer.json()["id"]), None, told)

    async def look_up(self, post: Post, *, key: str, age_s: float) -> Publication | None:
        me, _ = await self._ask("GET", f"{self.account.url}/api/v10/users/@me")
        answer, told = await self._ask("GET", f"{self.path}/messages", params={"limit": NEWEST})
        mine = {
            message["content"]: str(message["id"])
            for message in answer.json()
            if message["author"]["id"] == me.json()["id"]
            and is_within(answer, message["timestamp"], age_s=age_s, now=self.clock.now())
        }
        texts = self.texts(post)
        if not all(text in mine for text in texts):
            return None
        return Publication(" ".join(mine[text] for text in texts), None, told)

    async def retract(self, publication: Publication) -> Retracted:
        told: Told | None = None
        for message_id in reversed(publication.id.split()):
            _, told = await self._ask(
                "DELETE", f"{self.path}/messages/{message_id}", bucket="delete", allowed=_GONE
            )
        return Retracted(told=told)

    async def aclose(self) -> None:
        await self.client.aclose()
        await self.attachments.aclose()

    async def _ask(
        self, method: str, url: str, *, bucket: str = "create", **values: Any
    ) -> tuple[httpx.Response, Told | None]:
        def hear(answer: httpx.Response, now: datetime) -> Told | None:
            if method == "GET":
                return None
            return told_by(answer, now, prefix="x-ratelimit", bucket=bucket)

        return await ask(
            self.client,
            method,
            url,
            now=self.clock.now(),
            hear=hear,
            headers=self.headers,
            **values,
        )


def _with_files(body: dict[str, Any], attachments: list[Attachment]) -> dict[str, Any]:
    if not attachments:
        return {"json": body}
    described = [{"id": n, "description": one.media.alt} for n, one in enumerate(attachments)]
    files = {
        f"files[{n}]": (one.name, one.content, one.media.type) for n, one in enumerate(attachments)
    }
    return {"data": {"payload_json": json.dumps(body | {"attachments": described})}, "files": files}
