"""X, by API v2 and OAuth 1.0a (RFC 5849) as the account itself.

- `POST /2/tweets` (docs.x.com/x-api/posts/create-post) knows no key, but refuses a text that the account
  has posted just before: 403, "duplicate content". Behind a lost answer that refusal is evidence that the
  post is there, though under an id that nobody told us: it cannot be taken back.
- `DELETE /2/tweets/:id` (docs.x.com/x-api/posts/delete-post). Limits: `x-rate-limit-*`, an epoch.
- Pictures: `POST /2/media/upload`, with their words; a video in segments, to be waited for
  (docs.x.com/x-api/media/quickstart/media-upload-chunked), and without: X takes words for pictures only.
- 280 weighted characters; a link counts 23 (docs.x.com/fundamentals/counting-characters).
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any, Final, Literal

import httpx
from oauthlib.oauth1 import Client

from schemas.channels import MediaLimit, TextLimit
from services.kit.telemetry import Clock
from services.publisher.accounts import XAccount
from services.publisher.channels import (
    Duplicate,
    NotSent,
    Publication,
    Refused,
    Retracted,
    Uncertain,
)
from services.publisher.channels.http import ask, new_client, told_by
from services.publisher.channels.media import Attachment, Attachments
from services.publisher.channels.threads import Part, Threads
from services.publisher.clearance import Clearance
from services.publisher.ledger import Capabilities
from services.publisher.rates import Told

_LIMIT: Final = TextLimit(most=280, unit="weighted", link=23)
_MEDIA: Final = MediaLimit(most=4, bytes=5 * 1024 * 1024, alt=1_000, video_bytes=100_000_000)
SEGMENT_BYTES: Final = 4 * 1024 * 1024
LOOKS: Final = 60
LOOK_AFTER_S: Final = 5.0  # Where it does not say,
LONGEST_LOOK_S: Final = 30.0  # or says more than this: a send waits.
_GONE: Final = frozenset({404})


class X(Threads):
    """One account."""

    capabilities = Capabilities(
        idempotent_s=0,
        can_delete=True,
        refuses_duplicates=True,
        text=_LIMIT,
        media=_MEDIA,
        threads=True,
        has_rate=True,
    )

    def __init__(self, account: XAccount, clock: Clock) -> None:
        self.account, self.clock = account, clock
        self.client = new_client(keeps=False)
        self.attachments = Attachments(_MEDIA, allowed=account.picture_hosts)
        self.signer = Client(
            account.consumer_key,
            client_secret=account.consumer_secret.get_secret_value(),
            resource_owner_key=account.token.get_secret_value(),
            resource_owner_secret=account.token_secret.get_secret_value(),
        )

    async def _send(self, clearance: Clearance, part: Part) -> Publication:
        body: dict[str, Any] = {"text": part.text}
        if part.number == 0 and (media := await self.attachments.of(clearance.post, self._upload)):
            body["media"] = {"media_ids": media}
        if part.above:
            body["reply"] = {"in_reply_to_tweet_id": part.above[-1]}
        try:
            answer, told = await self._ask("POST", "/2/tweets", json=body, clearance=clearance)
        except Refused as error:
            if "duplicate" not in str(error).lower():
                raise
            if part.of > 1:  # Without its id the rest cannot hang on it.
                raise Uncertain(f"a part of a thread is there already: {error}") from error
            raise Duplicate(str(error)) from error
        made = str(answer.json()["data"]["id"])
        return Publication(made, f"https://x.com/i/status/{made}", told)

    async def retract(self, publication: Publication) -> Retracted:
        told: Told | None = None
        for post_id in reversed(publication.id.split()):
            path = f"/2/tweets/{post_id}"
            _, told = await self._ask("DELETE", path, bucket="delete", allowed=_GONE)
        return Retracted(told=told)

    async def _upload(self, attachment: Attachment) -> str:
        if attachment.media.is_video:
            return await self._upload_video(attachment)
        sent = {"media": (attachment.name, attachment.read(), attachment.media.type)}
        kind = "tweet_gif" if attachment.media.type == "image/gif" else "tweet_image"
        answer, _ = await self._ask(
            "POST", "/2/media/upload", bucket="media", files=sent, data={"media_category": kind}
        )
        media_id = str(answer.json()["data"]["id"])
        described = {"id": media_id, "metadata": {"alt_text": {"text": attachment.media.alt}}}
        await self._ask("POST", "/2/media/metadata", bucket="media", json=described)
        return media_id

    async def _upload_video(self, video: Attachment) -> str:
        wanted = {
            "media_type": video.media.type, "media_category": "tweet_video", "total_bytes": video.size,
        }  # fmt: skip
        made, _ = await self._ask("POST", "/2/media/upload/initialize", bucket="media", json=wanted)
        media_id, number = str(made.json()["data"]["id"]), 0
        async for segment in video.chunks(SEGMENT_BYTES):
            await self._ask(
                "POST", f"/2/media/upload/{media_id}/append", bucket="media",
                files={"media": (video.name, segment, video.media.type)}, data={"segment_index": str(number)},
            )  # fmt: skip
            number += 1
        answer, _ = await self._ask("POST", f"/2/media/upload/{media_id}/finalize", bucket="media")
        for _ in range(LOOKS):
            state = answer.json()["data"].get("processing_info", {"state": "succeeded"})
            if state["state"] == "succeeded":
                return media_id
            if state["state"] == "failed":
                raise Refused(f"X cannot use the video: {state.get('error', state)}")
            after_s = float(state.get("check_after_secs", LOOK_AFTER_S))
            await asyncio.sleep(min(after_s, LONGEST_LOOK_S))
            query = f"/2/media/upload?command=STATUS&media_id={media_id}"
            answer, _ = await self._ask("GET", query, bucket="media")
        raise NotSent("X is still at work on a video")

    async def aclose(self) -> None:
        await self.client.aclose()
        await self.attachments.aclose()

    async def _ask(
        self,
        method: Literal["GET", "POST", "DELETE"],
        path: str,
        *,
        bucket: str = "create",
        **values: Any,
    ) -> tuple[httpx.Response, Told | None]:
        def hear(answer: httpx.Response, now: datetime) -> Told | None:
            return told_by(answer, now, prefix="x-rate-limit", bucket=bucket)

        url = f"{self.account.url}{path}"
        _, headers, _ = self.signer.sign(
            url, http_method=method
        )  # Neither JSON nor multipart is signed.
        return await ask(
            self.client, method, url, now=self.clock.now(), hear=hear, headers=headers, **values
        )
