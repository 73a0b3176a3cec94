"""Bluesky, and any AT Protocol server.

- `com.atproto.repo.createRecord` with a record key of our choice (atproto.com/specs/record-key, type
  `tid`), derived from the post: a second try finds the key taken, and the record is looked at. So a
  post appears once, for ever.
- Sessions: `com.atproto.server.createSession`, then `refreshSession` when the access token has expired
  (`ExpiredToken`, HTTP 400), for logins are limited to 30 in five minutes.
- `app.bsky.feed.post`: 300 graphemes and 3,000 bytes; links and tags are facets with byte offsets
  (docs.bsky.app/docs/advanced-guides/post-richtext).
- Pictures: `com.atproto.repo.uploadBlob`, four of a million bytes each (app.bsky.embed.images), or a video of a
  hundred million (app.bsky.embed.video; docs.bsky.app/docs/tutorials/video, "Simple method": people see it some
  seconds later than the words); a link
  is shown as the post's card says (app.bsky.embed.external), for the network does not look by itself.
- Limits: `RateLimit-*`, an epoch; creations and deletions draw on the same points
  (docs.bsky.app/docs/advanced-guides/rate-limits).
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from datetime import datetime
from typing import Any, Final

import httpx
import regex

from schemas.channels import LINK, MediaLimit, TextLimit
from schemas.posts import Post
from services.kit.telemetry import Clock
from services.publisher.accounts import BlueskyAccount
from services.publisher.channels import (
    NotSent,
    Publication,
    Refused,
    Retracted,
    Unknown,
    as_documented,
)
from services.publisher.channels.http import ask, failure, new_client, told_by
from services.publisher.channels.media import Attachment, Attachments
from services.publisher.channels.threads import Part, Threads
from services.publisher.clearance import Clearance
from services.publisher.ledger import Capabilities
from services.publisher.rates import Told

UPLOAD_S: Final = 60.0  # Until it answers, behind the last byte.
COLLECTION: Final = "app.bsky.feed.post"
_LIMIT: Final = TextLimit(most=300, unit="graphemes", bytes=3_000)
_MEDIA: Final = MediaLimit(most=4, bytes=1_000_000, alt=1_000, video_bytes=100_000_000)
_TAG: Final = regex.compile(r"(?<=^|\s)#(\p{L}[\p{L}\p{N}_]{0,63})")
_BASE32: Final = "234567abcdefghijklmnopqrstuvwxyz"
_TID_CHARS: Final = 13
KEPT: Final = 200
_READ_HERE: Final = frozenset({400, 401, 500})  # What they mean stands in the answer.


class Bluesky(Threads):
    """One account."""

    capabilities = Capabilities(
        idempotent_s=math.inf,
        can_delete=True,
        reads_back="exact",
        text=_LIMIT,
        media=_MEDIA,
        threads=True,
        has_rate=True,
        delete_bucket="create",
    )

    def __init__(self, account: BlueskyAccount, clock: Clock) -> None:
        self.account, self.clock = account, clock
        self.client = new_client(base_url=account.url)
        self.attachments = Attachments(_MEDIA, allowed=account.picture_hosts)
        self.session: dict[str, str] = {}
        self.cids: dict[str, str] = {}  # Of what was posted last, by address.
        self.login = asyncio.Lock()

    async def _send(self, clearance: Clearance, part: Part) -> Publication:
        post = clearance.post
        uploaded = await self.attachments.of(post, self._upload) if part.number == 0 else []
        await self._sign_in()
        record = self._record(post, part.text)
        if part.number == 0 and (embed := _embed(post, uploaded)):
            record["embed"] = embed
        if part.above:
            root, parent = await self._ref(part.above[0]), await self._ref(part.above[-1])
            record["reply"] = {"root": root, "parent": parent}
        rkey = record_key(post, part.key, part.number)
        ref, told = await self._create(record, rkey, clearance)
        self._keep(ref)
        return Publication(ref["uri"], self._url(ref["uri"]), told)

    async def _ref(self, uri: str) -> dict[str, str]:
        """Return how another post names one of ours; another publisher may have made it."""
        if uri not in self.cids:
            answer, _ = await self._call("GET", "com.atproto.repo.getRecord", params=self._at(uri))
            self._keep(answer.json())
        return {"uri": uri, "cid": self.cids[uri]}

    def _keep(self, ref: dict[str, str]) -> None:
        self.cids[ref["uri"]] = ref["cid"]
        while len(self.cids) > KEPT:
            del self.cids[next(iter(self.cids))]

    async def look_up(self, post: Post, *, key: str, age_s: float) -> Publication | None:
        found = []
        for number, text in enumerate(self.texts(post)):
            ref = await self._get(record_key(post, key, number), text)
            if ref is None:
                return None
            found.append(ref)
        return Publication(" ".join(ref["uri"] for ref in found), self._url(found[0]["uri"]))

    async def retract(self, publication: Publication) -> Retracted:
        told: Told | None = None
        for uri in reversed(publication.id.split()):
            body = {"collection": COLLECTION, "rkey": uri.rsplit("/", 1)[1]}
            _, told = await self._call("POST", "com.atproto.repo.deleteRecord", json=body)
        return Retracted(told=told)

    async def _upload(self, attachment: Attachment) -> dict[str, Any]:
        headers = {"content-type": attachment.media.type, "content-length": str(attachment.size)}
        answer, _ = await self._call(
            "POST",
            "com.atproto.repo.uploadBlob",
            content=attachment,
            headers=headers,
            timeout=UPLOAD_S,
        )
        kind = "video" if attachment.media.is_video else "image"
        return {"alt": attachment.media.alt, kind: answer.json()["blob"]}

    async def aclose(self) -> None:
        await self.client.aclose()
        await self.attachments.aclose()

    def _record(self, post: Post, text: str) -> dict[str, Any]:
        record: dict[str, Any] = {
            "$type": COLLECTION,
            "text": text,
            "createdAt": self.clock.now().isoformat().replace("+00:00", "Z"),
        }
        if post.language:
            record["langs"] = [post.language]
        if found := facets(text):
            record["facets"] = found
        return record

    async def _create(
        self, record: dict[str, Any], rkey: str, clearance: Clearance
    ) -> tuple[dict[str, str], Told | None]:
        body = {"collection": COLLECTION, "rkey": rkey, "record": record}
        try:
            answer, told = await self._call(
                "POST", "com.atproto.repo.createRecord", json=body, clearance=clearance
            )
        except (Refused, Unknown) as error:  # The key may be taken: by the try before this one.
            known = await self._get(rkey, record["text"])
            if known is None:
                raise error from None
            return known, None
        made = answer.json()
        return {"uri": made["uri"], "cid": made["cid"]}, told

    async def _get(self, rkey: str, text: str) -> dict[str, str] | None:
        await self._sign_in()
        params = self._at(rkey)
        try:
            answer, _ = await self._call("GET", "com.atproto.repo.getRecord", params=params)
        except Refused:
            return None  # RecordNotFound.
        found = answer.json()
        if found["value"].get("text") != text:
            raise Refused(f"the record {rkey} is another post")
        return {"uri": found["uri"], "cid": found["cid"]}

    def _at(self, uri: str) -> dict[str, str]:
        rkey = uri.rsplit("/", 1)[-1]
        return {"repo": self.session["did"], "collection": COLLECTION, "rkey": rkey}

    def _url(self, uri: str) -> str:
        rkey = uri.rsplit("/", 1)[1]
        return f"https://bsky.app/profile/{self.account.handle}/post/{rkey}"

    async def _sign_in(self) -> None:
        async with self.login:
            if not self.session:
                secret = self.account.password.get_secret_value()
                body = {"identifier": self.account.handle, "password": secret}
                try:
                    answer, _ = await ask(
                        self.client,
                        "POST",
                        "/xrpc/com.atproto.server.createSession",
                        now=self.clock.now(),
                        json=body,
                    )
                except Refused as error:
                    raise NotSent(f"no session: {error}") from error  # A person's matter.
                self.session = _session(answer)

    async def _refresh(self, expired: str) -> None:
        async with self.login:
            if self.session.get("accessJwt") != expired:
                return  # Somebody else has done it.
            headers = {"authorization": f"Bearer {self.session['refreshJwt']}"}
            answer, _ = await ask(
                self.client,
                "POST",
                "/xrpc/com.atproto.server.refreshSession",
                now=self.clock.now(),
                headers=headers,
                allowed=frozenset({400, 401}),
            )
            self.session = _session(answer) if answer.is_success else {}
        await self._sign_in()

    async def _call(
        self, method: str, name: str, **values: Any
    ) -> tuple[httpx.Response, Told | None]:
        await self._sign_in()
        given = values.pop("headers", {})
        for is_last in (False, True):
            token = self.session["accessJwt"]
            if "json" in values:
                values["json"] = values["json"] | {"repo": self.session["did"]}
            answer, told = await ask(
                self.client,
                method,
                f"/xrpc/{name}",
                now=self.clock.now(),
                hear=_hear,
                allowed=_READ_HERE,
                headers=given | {"authorization": f"Bearer {token}"},
                **values,
            )
            if answer.is_success:
                break
            if is_last or _error(answer) not in ("ExpiredToken", "InvalidToken"):
                raise failure(answer, told, self.clock.now())
            await self._refresh(token)
        return answer, told


def _session(answer: httpx.Response) -> dict[str, str]:
    """Return the session of an answer; without one nothing was sent."""
    with as_documented(NotSent):
        found = answer.json()
        return {name: str(found[name]) for name in ("did", "accessJwt", "refreshJwt")}


def _embed(post: Post, uploaded: list[dict[str, Any]]) -> dict[str, Any] | None:
    if uploaded and "video" in uploaded[0]:
        return {"$type": "app.bsky.embed.video"} | uploaded[0]
    if uploaded:
        return {"$type": "app.bsky.embed.images", "images": uploaded}
    if post.card is None:
        return None
    card = {"uri": post.card.url, "title": post.card.title, "description": post.card.description}
    return {"$type": "app.bsky.embed.external", "external": card}


def _hear(answer: httpx.Response, now: datetime) -> Told | None:
    return told_by(answer, now, prefix="ratelimit")


def _error(answer: httpx.Response) -> str:
    try:
        return str(answer.json().get("error", ""))
    except (ValueError, AttributeError):
        return ""


def record_key(post: Post, key: str, number: int) -> str:
    """Return the record key of one part of a post: a TID of its due second, and of its own key.

    Thirty bits are of the key: of a hundred posts due in one second two meet once in 200,000 times,
    and then the second one is refused.
    """
    digest = int.from_bytes(hashlib.sha256(f"{key}.{number}".encode()).digest()[:8])
    second = int(post.due_at.timestamp())
    value = ((second * 1_000_000 + digest % (1 << 20) % 1_000_000) << 10) | (digest >> 54)
    return "".join(_BASE32[(value >> 5 * place) & 31] for place in reversed(range(_TID_CHARS)))


def facets(text: str) -> list[dict[str, Any]]:
    """Return the links and tags of a text, by their byte offsets in UTF-8."""
    found = [
        (match.span(), {"$type": "app.bsky.richtext.facet#link", "uri": match.group()})
        for match in LINK.finditer(text)
    ]
    found += [
        (match.span(), {"$type": "app.bsky.richtext.facet#tag", "tag": match.group(1)})
        for match in _TAG.finditer(text)
    ]
    return [
        {
            "index": {
                "byteStart": len(text[:begin].encode()),
                "byteEnd": len(text[:end].encode()),
            },
            "features": [feature],
        }
        for (begin, end), feature in sorted(found, key=lambda one: one[0])
    ]
