"""A post's pictures on their way: fetched, looked at, and uploaded before the post is created.

An upload publishes nothing, and takes longer than a clearance holds. So it is kept by the post: when the
clearance has run out behind it, the next try has it already. What fails here is never unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx

from schemas.channels import MediaLimit
from schemas.posts import Media, Post
from services.kit import outbound
from services.publisher.channels import NotSent, Refused, Unknown, as_documented

KEPT: Final = 4  # Of posts: an account sends one offer at a time, and a picture may be 16 MB.
FETCH_S: Final = 30.0
SERVER_ERRORS: Final = 500
_SIGNS: Final = {
    "image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG\r\n\x1a\n",
    "image/gif": b"GIF8", "image/webp": b"RIFF",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Picture:
    """What was fetched."""

    media: Media
    content: bytes

    @property
    def name(self) -> str:
        return f"picture.{self.media.type.partition('/')[2]}"


class Pictures:
    """The pictures of one account's posts. `allowed`: hosts that may be at private addresses."""

    def __init__(self, limit: MediaLimit, *, allowed: frozenset[str] = frozenset()) -> None:
        self.limit = limit
        self.client = outbound.new_client(allowed=allowed)
        self._known: dict[str, list[Any]] = {}

    async def of(self, post: Post, upload: Callable[[Picture], Awaitable[Any]]) -> list[Any]:
        """Return what the network calls each picture of a post; raises NotSent or Refused."""
        if not post.media:
            return []
        if post.post_id not in self._known:
            try:
                async with asyncio.timeout(FETCH_S):
                    found = [await self._fetch(one) for one in post.media]
                with as_documented(NotSent):
                    self._known[post.post_id] = [await upload(one) for one in found]
            except Unknown as error:
                raise NotSent(f"a picture was not uploaded: {error}") from error
            except TimeoutError as error:
                raise NotSent(f"a picture did not come within {FETCH_S:.0f} s") from error
            while len(self._known) > KEPT:
                del self._known[next(iter(self._known))]
        return self._known[post.post_id]

    async def _fetch(self, media: Media) -> Picture:
        content = bytearray()
        try:
            async with self.client.stream("GET", media.url) as answer:
                if answer.status_code >= SERVER_ERRORS:
                    raise NotSent(f"{media.url}: HTTP {answer.status_code}")
                if not answer.is_success:
                    raise Refused(f"{media.url}: HTTP {answer.status_code}")
                async for chunk in answer.aiter_bytes():
                    content += chunk
                    if len(content) > self.limit.bytes:
                        raise Refused(f"{media.url}: more than {self.limit.bytes} bytes")
        except (outbound.Forbidden, httpx.InvalidURL) as error:
            raise Refused(f"{media.url}: {error}") from error
        except httpx.HTTPError as error:
            raise NotSent(f"{media.url}: {str(error) or type(error).__name__}") from error
        if not content.startswith(_SIGNS[media.type]):
            raise Refused(f"{media.url} is no {media.type}")
        return Picture(media, bytes(content))

    async def aclose(self) -> None:
        await self.client.aclose()


async def as_it_is(picture: Picture) -> Picture:
    """Upload nothing: the picture goes with the post."""
    return picture
