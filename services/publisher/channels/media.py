"""A post's pictures, or its video, on their way: fetched, looked at, and uploaded before the post is created.

An upload publishes nothing, and takes longer than a clearance holds. So it is kept by the post: when the
clearance has run out behind it, the next try has it already. What fails here is never unknown. A video goes from its
address to the network by way of the disk: many accounts may have one at once.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final

import httpx

from schemas.channels import MediaLimit
from schemas.posts import Media, Post
from services.kit import outbound
from services.publisher.channels import NotSent, Refused, Unknown, as_documented

KEPT: Final = 4  # Of posts: an account sends one offer at a time, and a picture may be 16 MB.
FETCH_S: Final = 30.0
VIDEO_S: Final = 300.0
IN_MEMORY_BYTES: Final = 16_000_000
CHUNK_BYTES: Final = 65_536
SERVER_ERRORS: Final = 500
_SIGNS: Final = {  # Where each begins with what.
    "image/jpeg": (0, b"\xff\xd8\xff"), "image/png": (0, b"\x89PNG\r\n\x1a\n"), "image/gif": (0, b"GIF8"),
    "image/webp": (0, b"RIFF"),
    "video/mp4": (4, b"ftyp"),  # ISO/IEC 14496-12, 4.3.
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Attachment:
    """What was fetched."""

    media: Media
    file: IO[bytes]
    size: int

    @property
    def name(self) -> str:
        kind, _, form = self.media.type.partition("/")
        return f"{'video' if kind == 'video' else 'picture'}.{form}"

    @property
    def content(self) -> bytes | IO[bytes]:
        """Return what a form may carry: a large one is read bit by bit."""
        return self.read() if self.size <= IN_MEMORY_BYTES else self.file

    def read(self) -> bytes:
        self.file.seek(0)
        return self.file.read()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.chunks(CHUNK_BYTES)

    async def chunks(self, size: int) -> AsyncIterator[bytes]:
        """Read it from its beginning, each time."""
        self.file.seek(0)
        while chunk := self.file.read(size):
            yield chunk


class Attachments:
    """What one account's posts have attached. `allowed`: hosts that may be at private addresses."""

    def __init__(self, limit: MediaLimit, *, allowed: frozenset[str] = frozenset()) -> None:
        self.limit = limit
        self.client = outbound.new_client(allowed=allowed)
        self._known: dict[str, list[Any]] = {}

    async def of(self, post: Post, upload: Callable[[Attachment], Awaitable[Any]]) -> list[Any]:
        """Return what the network calls each attachment of a post; raises NotSent or Refused."""
        if not post.media:
            return []
        if post.post_id not in self._known:
            try:
                self._known[post.post_id] = await self._fetch_and_upload(post, upload)
            except Unknown as error:
                raise NotSent(f"a {_what(post)} was not uploaded: {error}") from error
            while len(self._known) > KEPT:
                del self._known[next(iter(self._known))]
        return self._known[post.post_id]

    async def _fetch_and_upload(
        self, post: Post, upload: Callable[[Attachment], Awaitable[Any]]
    ) -> list[Any]:
        patience_s = VIDEO_S if post.media[0].is_video else FETCH_S
        with ExitStack() as files:
            try:
                async with asyncio.timeout(patience_s):
                    found = [await self._fetch(one, files) for one in post.media]
            except TimeoutError as error:
                raise NotSent(f"a {_what(post)} did not come within {patience_s:.0f} s") from error
            with as_documented(NotSent):
                return [await upload(one) for one in found]

    async def _fetch(self, media: Media, files: ExitStack) -> Attachment:
        most = (self.limit.video_bytes or 0) if media.is_video else self.limit.bytes
        file = SpooledTemporaryFile(IN_MEMORY_BYTES)  # noqa: SIM115  # Until it is uploaded.
        files.callback(file.close)
        try:
            async with self.client.stream("GET", media.url) as answer:
                if answer.status_code >= SERVER_ERRORS:
                    raise NotSent(f"{media.url}: HTTP {answer.status_code}")
                if not answer.is_success:
                    raise Refused(f"{media.url}: HTTP {answer.status_code}")
                async for chunk in answer.aiter_bytes():
                    file.write(chunk)
                    if file.tell() > most:
                        raise Refused(f"{media.url}: more than {most} bytes")
        except (outbound.Forbidden, httpx.InvalidURL) as error:
            raise Refused(f"{media.url}: {error}") from error
        except httpx.HTTPError as error:
            raise NotSent(f"{media.url}: {str(error) or type(error).__name__}") from error
        size, (place, sign) = file.tell(), _SIGNS[media.type]
        file.seek(place)
        if file.read(len(sign)) != sign:
            raise Refused(f"{media.url} is no {media.type}")
        return Attachment(media, file, size)

    async def aclose(self) -> None:
        await self.client.aclose()


async def as_it_is(attachment: Attachment) -> Attachment:
    """Upload nothing: it goes with the post, and is kept in memory until then."""
    return replace(attachment, file=io.BytesIO(attachment.read()))


def _what(post: Post) -> str:
    return "video" if post.media[0].is_video else "picture"
