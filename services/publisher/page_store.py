"""The posts of our own page: SQL, and nothing decided."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Column, DateTime, MetaData, String, Table, delete, select
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.posts import Post
from services.publisher.page import Said

FEED_ROWS = 200
FEED = Table(
    "feed",
    MetaData(),
    Column("post_id", String, primary_key=True),
    Column("account", String),
    Column("kind", String),
    Column("language", String),
    Column("text", String),
    Column("incident_id", String),
    Column("published_at", DateTime(timezone=True)),
    Column("media", JSONB),
)


class PageStore:
    """The page's table. `on_change` is told when it has changed."""

    def __init__(
        self, engine: AsyncEngine, *, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self.engine, self.on_change = engine, on_change

    async def show_in_feed(self, post: Post, *, last: Callable[[], None]) -> None:
        """Put a post into the feed; again is the same. `last` is called when all is at hand."""
        values = {
            "post_id": post.post_id,
            "account": post.account,
            "kind": post.kind,
            "language": post.language,
            "text": post.text,
            "incident_id": post.incident_id,
            "media": [{"url": one.url, "alt": one.alt} for one in post.media],
        }
        async with self.engine.begin() as connection:
            last()
            await connection.execute(insert(FEED).values(values).on_conflict_do_nothing())
        self.on_change()

    async def is_in_feed(self, post_id: str) -> bool:
        """Say whether a post stands there."""
        statement = select(FEED.c.post_id).where(FEED.c.post_id == post_id)
        async with self.engine.connect() as connection:
            return (await connection.execute(statement)).first() is not None

    async def remove_from_feed(self, post_id: str) -> None:
        """Take a post out of the feed; again is the same."""
        async with self.engine.begin() as connection:
            await connection.execute(delete(FEED).where(FEED.c.post_id == post_id))
        self.on_change()

    async def read_feed(self) -> list[Said]:
        """Return the newest posts of the feed."""
        statement = select(FEED).order_by(FEED.c.published_at.desc()).limit(FEED_ROWS)
        async with self.engine.connect() as connection:
            return [
                Said(
                    post_id=row.post_id,
                    kind=row.kind,
                    language=row.language or "",
                    text=row.text,
                    incident_id=row.incident_id,
                    at=row.published_at,
                    media=tuple((one["url"], one["alt"]) for one in row.media),
                )
                for row in await connection.execute(statement)
            ]
