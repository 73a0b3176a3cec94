"""Interlock's own feed: the public page and the Atom feed that the publisher serves."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

from sqlalchemy.exc import DBAPIError, OperationalError

from schemas.channels import MediaLimit
from schemas.posts import Post
from services.publisher.channels import NotSent, Publication, Retracted, Unknown
from services.publisher.clearance import Clearance
from services.publisher.ledger import Capabilities

# A link each: the page loads nothing from elsewhere.
_MEDIA = MediaLimit(most=4, bytes=0, alt=1_000, video_bytes=0)
PARALLEL = 4  # As many as leave connections of the pool to others.


class FeedRows(Protocol):
    """Where the feed's posts are kept; adding and removing are the same the second time."""

    async def show_in_feed(self, post: Post, *, last: Callable[[], None]) -> None:
        """Add the post; `last` is called right before the row is written, and may raise."""

    async def is_in_feed(self, post_id: str) -> bool: ...

    async def remove_from_feed(self, post_id: str) -> None: ...


class Feed:
    """Our own page: every try of one post is one row."""

    capabilities = Capabilities(
        idempotent_s=math.inf, can_delete=True, reads_back="exact", media=_MEDIA, parallel=PARALLEL
    )

    def __init__(self, rows: FeedRows) -> None:
        self.rows = rows

    async def publish(self, clearance: Clearance, *, key: str) -> Publication:
        try:
            await self.rows.show_in_feed(clearance.post, last=clearance.check)
        except OperationalError as error:
            raise NotSent(f"no database: {error.orig}") from error
        except DBAPIError as error:
            raise Unknown(str(error.orig)) from error
        return _publication(clearance.post)

    async def look_up(self, post: Post, *, key: str, age_s: float) -> Publication | None:
        return _publication(post) if await self.rows.is_in_feed(post.post_id) else None

    async def retract(self, publication: Publication) -> Retracted:
        await self.rows.remove_from_feed(publication.id)
        return Retracted()

    async def aclose(self) -> None:
        return


def _publication(post: Post) -> Publication:
    return Publication(post.post_id, f"/#{post.post_id}")
