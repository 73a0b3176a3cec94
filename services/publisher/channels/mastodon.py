"""Mastodon, and servers that speak its API: GoToSocial, Pleroma, Pixelfed.

- `POST /api/v1/statuses` (docs.joinmastodon.org/methods/statuses/#create): an `Idempotency-Key` is kept
  for an hour, and written behind the create: a crash of the server between the two makes a second one.
  Later the account's newest statuses are searched for the words.
- Not all who speak the API keep keys: GoToSocial 0.20 passes them over; Pixelfed 0.11 refuses a second try, whatever
  became of the first. Which server it is NodeInfo says (nodeinfo.diaspora.software/protocol); where it is none that
  keeps them, none is sent, and the words are searched for at once.
- `POST /api/v2/media` (methods/media/#v2): four pictures, 16 MB and 1,500 characters each to describe
  it, or one video of 99 MB; 202 says that it is still worked on, and `GET /api/v1/media/:id` answers 206 until it is done.
- `DELETE /api/v1/statuses/:id` (#delete) answers with the status, and so with what it had: replies and
  reshares of other people stay.
- Limits (docs.joinmastodon.org/api/rate-limits): `X-RateLimit-*`, the reset in ISO 8601; deletions
  have a bucket of their own, 30 in 30 minutes.
- A status has 500 characters, or as the server says; a link counts 23, of a mention only `@who`
  (docs.joinmastodon.org/user/posting/#text).
"""

from __future__ import annotations

import asyncio
import html
import re
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

import httpx

from schemas.channels import MediaLimit, TextLimit
from schemas.posts import Post
from services.kit.telemetry import Clock
from services.publisher.accounts import MastodonAccount
from services.publisher.channels import (
    NotSent,
    Publication,
    Refused,
    Retracted,
    Unknown,
    as_documented,
)
from services.publisher.channels.http import ask, is_within, new_client, told_by
from services.publisher.channels.media import Attachment, Attachments
from services.publisher.channels.threads import Part, Threads
from services.publisher.clearance import Clearance
from services.publisher.ledger import Capabilities
from services.publisher.rates import Told

IDEMPOTENT_S = 3_600 - 60  # By our clock and theirs.
LINK_CHARS = 23
NEWEST = 40  # As many as one answer has.
KEEPS_KEYS = frozenset({"mastodon", "pleroma", "akkoma", "hollo"})
LEARN_S = 2.0
LOOKS, VIDEO_LOOKS, LOOK_EVERY_S = 20, 600, 0.5
UPLOAD_S = 60.0  # Until it answers, behind the last byte.
_MEDIA = MediaLimit(most=4, bytes=16_000_000, alt=1_500, video_bytes=99 * 1024 * 1024)
_GONE = frozenset({404})


class Mastodon(Threads):
    """One account on one server."""

    def __init__(self, account: MastodonAccount, clock: Clock) -> None:
        self.account, self.clock = account, clock
        limit = TextLimit(
            most=account.characters, unit="graphemes", link=LINK_CHARS, short_mentions=True
        )
        self.capabilities = Capabilities(
            idempotent_s=0,  # As long as it is not known which server this is.
            can_delete=True,
            reads_back="search",
            text=limit,
            media=_MEDIA,
            threads=True,
            has_rate=True,
        )
        self.attachments = Attachments(_MEDIA, allowed=account.picture_hosts)
        self.client = new_client(base_url=account.url)
        self.software: str | None = None  # None: it did not say yet.

    async def _send(self, clearance: Clearance, part: Part) -> Publication:
        post = clearance.post
        form: dict[str, Any] = {"status": part.text, "visibility": self.account.visibility}
        if part.number == 0 and (media := await self.attachments.of(post, self._upload)):
            form["media_ids[]"] = media
        await self.learn()
        if post.language:
            form["language"] = post.language[:2]
        if part.above:
            form["in_reply_to_id"] = part.above[-1]
        headers = self._headers(f"{part.key}.{part.number + 1}" if part.of > 1 else part.key)
        answer, told = await self._ask(
            "POST", "/api/v1/statuses", data=form, headers=headers, clearance=clearance
        )
        made = answer.json()
        return Publication(str(made["id"]), made.get("url"), told)

    async def look_up(self, post: Post, *, key: str, age_s: float) -> Publication | None:
        await self.learn()
        texts, now = self.texts(post), self.clock.now()
        me, _ = await self._ask("GET", "/api/v1/accounts/verify_credentials")
        path = f"/api/v1/accounts/{me.json()['id']}/statuses"
        answer, told = await self._ask("GET", path, params={"limit": NEWEST})
        known = {
            _plain(status["content"]): status
            for status in answer.json()
            if is_within(answer, status["created_at"], age_s=age_s, now=now)
        }
        found = [known[_words(text)] for text in texts if _words(text) in known]
        if len(found) < len(texts):
            return None
        return Publication(" ".join(str(s["id"]) for s in found), found[0].get("url"), told)

    async def retract(self, publication: Publication) -> Retracted:
        remains, told = {"replies": 0, "reshares": 0}, None
        for status_id in reversed(publication.id.split()):
            path = f"/api/v1/statuses/{status_id}"
            answer, told = await self._ask("DELETE", path, bucket="delete", allowed=_GONE)
            if answer.is_success:
                gone = answer.json()
                remains["replies"] += int(gone.get("replies_count") or 0)
                remains["reshares"] += int(gone.get("reblogs_count") or 0)
        said = ", ".join(f"{count} {what}" for what, count in remains.items() if count)
        return Retracted(f"{said} of others were there" if said else "", told)

    async def _upload(self, attachment: Attachment) -> str:
        answer, _ = await self._ask(
            "POST", "/api/v2/media", bucket="media",
            files={"file": (attachment.name, attachment.content, attachment.media.type)},
            data={"description": attachment.media.alt}, timeout=UPLOAD_S,
        )  # fmt: skip
        path = f"/api/v1/media/{answer.json()['id']}"
        for _ in range(VIDEO_LOOKS if attachment.media.is_video else LOOKS):
            if answer.status_code == HTTPStatus.OK:
                return str(answer.json()["id"])
            await asyncio.sleep(LOOK_EVERY_S)
            answer, _ = await self._ask("GET", path)
        raise NotSent("the server is still at work on what was uploaded")

    async def learn(self) -> None:
        """Ask once which server this is: what becomes of a second try depends on it."""
        if self.software is not None:
            return
        try:
            async with asyncio.timeout(LEARN_S):
                with as_documented():
                    self.software = await self._software()
        except Refused:
            self.software = ""  # It keeps it to itself.
        except (TimeoutError, NotSent, Unknown):
            return  # The next post asks again.
        if self.software in KEEPS_KEYS:
            self.capabilities = replace(self.capabilities, idempotent_s=IDEMPOTENT_S)

    async def _software(self) -> str:
        links, _ = await self._ask("GET", "/.well-known/nodeinfo")
        path = urlsplit(links.json()["links"][-1]["href"]).path
        about, _ = await self._ask("GET", path)
        return str(about.json()["software"]["name"])

    async def aclose(self) -> None:
        await self.client.aclose()
        await self.attachments.aclose()

    def _headers(self, key: str = "") -> dict[str, str]:
        headers = {"authorization": f"Bearer {self.account.token.get_secret_value()}"}
        is_kept = self.software is None or self.software in KEEPS_KEYS
        return headers | ({"idempotency-key": key} if key and is_kept else {})

    async def _ask(
        self, method: str, path: str, *, bucket: str = "create", **values: object
    ) -> tuple[httpx.Response, Told | None]:
        def hear(answer: httpx.Response, now: datetime) -> Told | None:
            if method == "GET":
                return None  # Reading has a limit of its own, which we do not come near.
            return told_by(answer, now, prefix="x-ratelimit", reset="iso", bucket=bucket)

        values.setdefault("headers", self._headers())
        return await ask(
            self.client,
            method,
            path,
            now=self.clock.now(),
            hear=hear,
            **values,  # type: ignore[arg-type]
        )


def _plain(content: str) -> str:
    return _words(html.unescape(re.sub(r"<[^>]*>", " ", content)))


def _words(text: str) -> str:
    return "".join(text.split())
