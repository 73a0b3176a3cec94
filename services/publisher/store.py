"""The ledger: what was intended, what was sent, what was taken back. SQL, and nothing decided."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.posts import Kind, Post
from services.publisher.ledger import State, before

SCHEMA = "publisher"
TAKE_BACK_ROWS = 10_000
FEED_ROWS = 100
_META = MetaData()
_AT = DateTime(timezone=True)

LEDGER = Table(
    "ledger",
    _META,
    Column("post_id", String, primary_key=True),
    Column("kind", String),
    Column("account", String),
    Column("state", String),
    Column("attempt", Integer),
    Column("publisher", String),
    Column("fence", BigInteger),
    Column("labels", JSONB),
    Column("incident_id", String),
    Column("intent_at", _AT),
    Column("done_at", _AT),
    Column("changed_at", _AT),
    Column("publication", String),
    Column("url", String),
    Column("hold_id", String),
    Column("detail", String),
)
FEED = Table(
    "feed",
    _META,
    Column("post_id", String, primary_key=True),
    Column("account", String),
    Column("kind", String),
    Column("language", String),
    Column("text", String),
    Column("incident_id", String),
    Column("published_at", _AT),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the ledger."""

    post_id: str
    kind: Kind
    account: str
    state: State
    attempt: int
    labels: dict[str, str]
    incident_id: str | None
    intent_at: datetime
    done_at: datetime | None
    publication: str | None
    url: str | None
    detail: str
    hold_id: str | None


class Store:
    """The publisher's tables."""

    def __init__(self, engine: AsyncEngine, *, publisher: str) -> None:
        self.engine, self.publisher = engine, publisher

    async def find(self, post_id: str) -> Entry | None:
        """Return the post's row, if there is one."""
        async with self.engine.connect() as connection:
            found = await connection.execute(select(LEDGER).where(LEDGER.c.post_id == post_id))
            row = found.one_or_none()
        return None if row is None else _entry(row)

    async def record_intent(
        self, post: Post, *, attempt: int, fence: int | None, at: datetime
    ) -> bool:
        """Write that a send is about to begin. False: the post has a row that forbids it."""
        values = {
            "post_id": post.post_id,
            "kind": post.kind,
            "account": post.account,
            "state": "intent",
            "attempt": attempt,
            "publisher": self.publisher,
            "fence": fence,
            "labels": post.labels,
            "incident_id": post.incident_id,
            "intent_at": at,
        }
        again = {k: values[k] for k in ("state", "attempt", "publisher", "fence", "intent_at")}
        statement = (
            insert(LEDGER)
            .values(values)
            .on_conflict_do_update(
                index_elements=[LEDGER.c.post_id],
                set_=again | {"changed_at": func.now()},
                where=LEDGER.c.state.in_(before("intent")) & (LEDGER.c.attempt < attempt),
            )
        )
        async with self.engine.begin() as connection:
            return bool((await connection.execute(statement)).rowcount)

    async def withdraw_intent(self, post_id: str) -> None:
        """Take back an intent of ours that was certainly not sent; one that was adopted stays."""
        mine = (
            (LEDGER.c.post_id == post_id)
            & (LEDGER.c.state == "intent")
            & (LEDGER.c.publisher == self.publisher)
        )
        async with self.engine.begin() as connection:
            await connection.execute(delete(LEDGER).where(mine))

    async def adopt_intent(self, post_id: str) -> None:
        """Make an intent that another publisher left behind ours: it may not withdraw it now."""
        left = (LEDGER.c.post_id == post_id) & (LEDGER.c.state == "intent")
        async with self.engine.begin() as connection:
            await connection.execute(update(LEDGER).where(left).values(publisher=self.publisher))

    async def record(self, post_id: str, state: State, **values: Any) -> bool:
        """Move a row to a state that may follow its own; False where it may not."""
        allowed = (LEDGER.c.post_id == post_id) & LEDGER.c.state.in_(before(state))
        statement = (
            update(LEDGER).where(allowed).values(state=state, changed_at=func.now(), **values)
        )
        async with self.engine.begin() as connection:
            return bool((await connection.execute(statement)).rowcount)

    async def sent_since(self, since: datetime) -> list[Entry]:
        """Return offers that were sent since then, the newest first."""
        statement = (
            select(LEDGER)
            .where(LEDGER.c.kind == "offer", LEDGER.c.state == "sent", LEDGER.c.done_at >= since)
            .order_by(LEDGER.c.done_at.desc())
            .limit(TAKE_BACK_ROWS)
        )
        async with self.engine.connect() as connection:
            return [_entry(row) for row in await connection.execute(statement)]

    async def left_retracting(self, before_at: datetime) -> list[Entry]:
        """Return retractions that somebody began and nobody ended."""
        statement = select(LEDGER).where(
            LEDGER.c.state == "retracting", LEDGER.c.changed_at < before_at
        )
        async with self.engine.connect() as connection:
            return [_entry(row) for row in await connection.execute(statement)]

    async def list_entries(self, *, state: str | None, limit: int) -> list[Entry]:
        """Return rows of the ledger, the last changed first."""
        statement = select(LEDGER).order_by(LEDGER.c.changed_at.desc()).limit(limit)
        if state:
            statement = statement.where(LEDGER.c.state == state)
        async with self.engine.connect() as connection:
            return [_entry(row) for row in await connection.execute(statement)]

    async def show_in_feed(self, post: Post, *, last: Callable[[], None]) -> None:
        """Put a post into the feed; again is the same. `last` is called when all is at hand."""
        values = {
            "post_id": post.post_id,
            "account": post.account,
            "kind": post.kind,
            "language": post.language,
            "text": post.text,
            "incident_id": post.incident_id,
        }
        async with self.engine.begin() as connection:
            last()
            await connection.execute(insert(FEED).values(values).on_conflict_do_nothing())

    async def remove_from_feed(self, post_id: str) -> None:
        """Take a post out of the feed; again is the same."""
        async with self.engine.begin() as connection:
            await connection.execute(delete(FEED).where(FEED.c.post_id == post_id))

    async def read_feed(self) -> list[Row[Any]]:
        """Return the newest posts of the feed."""
        statement = select(FEED).order_by(FEED.c.published_at.desc()).limit(FEED_ROWS)
        async with self.engine.connect() as connection:
            return list(await connection.execute(statement))


def _entry(row: Row[Any]) -> Entry:
    names = Entry.__dataclass_fields__
    return Entry(**{name: row._mapping[name] for name in names})  # noqa: SLF001  # SQLAlchemy's own.
