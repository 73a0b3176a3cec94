"""The ledger: what was intended, what was sent, what was taken back. SQL, and nothing decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar, get_args

from pydantic_core import to_json
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    DateTime,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    cast,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.base import without_nul
from schemas.labels import Labels
from schemas.posts import Kind, Post
from services.kit.batches import Batches
from services.publisher.ledger import Attempt, Entry, State, before
from services.publisher.ledger_sql import ATTEMPT, INTENTS, SENTS, UNSENTS

SCHEMA = "publisher"
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
    Column("fence_begun_at", _AT),
    Column("begun_at", _AT),
    Column("attempts", JSONB),
)
ARCHIVE = LEDGER.to_metadata(MetaData(), name="ledger_archive")


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What is written down before a send is begun."""

    post: Post
    attempt: int
    fence: int | None
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """What is written down of an attempt that was certainly not sent; `is_ours`: its intent was written by us.

    It failed where the account can never take it, and is withdrawn where it was held or came too late.
    """

    post: Post
    attempt: int
    at: datetime
    why: str
    state: Literal["withdrawn", "failed"] = "withdrawn"
    hold_id: str | None = None
    is_ours: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What is written down behind a send that worked."""

    post_id: str
    at: datetime
    attempt: Attempt
    publication: str
    url: str | None
    detail: str = ""
    kind: Kind = "offer"


def _sent_between(
    since: datetime, until: datetime, *, account: str, labels: Sequence[Labels]
) -> ColumnElement[bool]:
    given = literal([to_json(one).decode() for one in labels], ARRAY(String))
    is_one_of_them = LEDGER.c.labels.in_(select(cast(func.unnest(given), JSONB)))
    sent = (LEDGER.c.kind == "offer") & (LEDGER.c.state == "sent") & (LEDGER.c.account == account)
    return sent & LEDGER.c.done_at.between(since, until) & is_one_of_them


P = TypeVar("P", Intent, Unsent)


class Store:
    """The publisher's ledger. What many posts need at once is written in one statement."""

    def __init__(self, engine: AsyncEngine, *, publisher: str) -> None:
        self.engine, self.publisher = engine, publisher
        # One statement is a transaction by itself: no begin and no commit go over the wire.
        self._alone = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._finds = Batches(self._find_all)
        # Each kind has its own: an update does not stand behind offers here either.
        self._intents = {kind: Batches(self._record_intents, at_once=2) for kind in get_args(Kind)}
        self._unsents = {kind: Batches(self._record_unsent) for kind in get_args(Kind)}
        self._sents = {kind: Batches(self._record_sents, at_once=2) for kind in get_args(Kind)}

    async def find(self, post_id: str) -> Entry | None:
        """Return the post's row, if there is one."""
        return await self._finds.add(post_id)

    async def _find_all(self, post_ids: list[str]) -> list[Entry | None]:
        async with self.engine.connect() as connection:
            rows = await connection.execute(select(LEDGER).where(LEDGER.c.post_id.in_(post_ids)))
            found = {row.post_id: entry_of(row) for row in rows}
        return [found.get(post_id) for post_id in post_ids]

    async def record_intent(
        self, post: Post, *, attempt: int, fence: int | None, at: datetime
    ) -> bool:
        """Write that a send is about to begin. False: the post has a row that forbids it."""
        return await self._intents[post.kind].add(
            Intent(post=post, attempt=attempt, fence=fence, at=at)
        )

    async def _record_intents(self, intents: list[Intent]) -> list[bool]:
        firsts = _firsts(intents)
        ordered = list(firsts.values())
        columns = (*self._columns(ordered), [one.fence for one in ordered])
        async with self._alone.connect() as connection:
            rows = await connection.exec_driver_sql(INTENTS, columns)
            written = {row.post_id for row in rows}
        return [one.post.post_id in written and firsts[one.post.post_id] is one for one in intents]

    async def record_unsent(self, one: Unsent) -> bool:
        """Write that an attempt was certainly not sent. False: the post has a row that forbids it."""
        return await self._unsents[one.post.kind].add(one)

    async def _record_unsent(self, given: list[Unsent]) -> list[bool]:
        firsts = _firsts(given)
        ordered = list(firsts.values())
        columns = (
            *self._columns(ordered),
            [one.state for one in ordered],
            [without_nul(one.why) for one in ordered],
            [one.hold_id for one in ordered],
            [one.is_ours for one in ordered],
        )
        async with self._alone.connect() as connection:
            rows = await connection.exec_driver_sql(UNSENTS, columns)
            written = {row.post_id for row in rows}
        return [one.post.post_id in written and firsts[one.post.post_id] is one for one in given]

    def _columns(self, ones: Sequence[Intent | Unsent]) -> tuple[list[Any], ...]:
        """Return what all attempts have, by column."""
        return (
            [one.post.post_id for one in ones],
            [one.post.kind for one in ones],
            [one.post.account for one in ones],
            [one.attempt for one in ones],
            [self.publisher] * len(ones),
            [to_json(one.post.labels).decode() for one in ones],
            [one.post.incident_id for one in ones],
            [one.at for one in ones],
        )

    async def adopt_intent(self, post_id: str, *, of: str) -> bool:
        """Make an intent of another publisher ours: it may not withdraw it now. False: somebody was quicker."""
        return await self._hand_intent(post_id, of=of, to=self.publisher)

    async def leave_intent(self, post_id: str) -> None:
        """Say of an intent of ours that nothing was sent: whoever adopts it may send."""
        await self._hand_intent(post_id, of=self.publisher, to="")

    async def _hand_intent(self, post_id: str, *, of: str, to: str) -> bool:
        its = (LEDGER.c.post_id == post_id) & (LEDGER.c.state == "intent")
        statement = update(LEDGER).where(its, LEDGER.c.publisher == of).values(publisher=to)
        async with self.engine.begin() as connection:
            return bool((await connection.execute(statement)).rowcount)

    async def record_sent(self, sent: Sent) -> bool:
        """Move a row to `sent`, with what proves that it was right; False: it is there, or there is none."""
        return await self._sents[sent.kind].add(sent)

    async def _record_sents(self, sents: list[Sent]) -> list[bool]:
        ordered = sorted(sents, key=lambda one: one.post_id)
        columns = (
            [one.post_id for one in ordered],
            [one.at for one in ordered],
            [one.attempt.at for one in ordered],
            [one.attempt.fence for one in ordered],
            [one.attempt.fence_begun_at for one in ordered],
            [without_nul(one.publication) for one in ordered],  # A network may have answered so.
            [without_nul(one.url) for one in ordered],
            [one.attempt.publisher for one in ordered],
            [without_nul(one.attempt.answer) for one in ordered],
            [without_nul(one.detail) for one in ordered],
        )
        async with self._alone.connect() as connection:
            rows = await connection.exec_driver_sql(SENTS, columns)
            written = {row.post_id for row in rows}
        return [one.post_id in written for one in sents]

    async def record_attempt(
        self,
        post_id: str,
        attempt: Attempt,
        *,
        publication: str | None = None,
        url: str | None = None,
    ) -> None:
        """Keep what became of one try that was not the last, and what of the post is out by now.

        The newest twenty tries are kept. What another publisher wrote down of what is out stays as it is.
        """
        async with self.engine.begin() as connection:
            await connection.exec_driver_sql(
                ATTEMPT,
                (
                    post_id, attempt.at, attempt.publisher, without_nul(attempt.answer), attempt.fence,
                    attempt.fence_begun_at, without_nul(publication), without_nul(url),
                ),
            )  # fmt: skip

    async def record(self, post_id: str, state: State, **values: Any) -> bool:
        """Move a row to a state that may follow its own; False where it may not."""
        allowed = (LEDGER.c.post_id == post_id) & LEDGER.c.state.in_(before(state))
        known = {name: without_nul(value) for name, value in values.items()}
        statement = (
            update(LEDGER).where(allowed).values(state=state, changed_at=func.now(), **known)
        )
        async with self.engine.begin() as connection:
            return bool((await connection.execute(statement)).rowcount)

    async def sent_labels(self, since: datetime) -> list[tuple[str, Labels]]:
        """Return the accounts and labels, each pair once, of offers that were sent since then."""
        sent = (LEDGER.c.kind == "offer", LEDGER.c.state == "sent", LEDGER.c.done_at >= since)
        statement = select(LEDGER.c.account, LEDGER.c.labels).where(*sent).distinct()
        async with self.engine.connect() as connection:
            return [(row.account, row.labels) for row in await connection.execute(statement)]

    async def sent_between(
        self,
        since: datetime,
        until: datetime,
        *,
        account: str,
        labels: Sequence[Labels],
        limit: int,
    ) -> list[Entry]:
        """Return so many of an account's offers with one of these labels, the newest first."""
        statement = (
            select(LEDGER)
            .where(_sent_between(since, until, account=account, labels=labels))
            .order_by(LEDGER.c.done_at.desc())
            .limit(limit)
        )
        async with self.engine.connect() as connection:
            return [entry_of(row) for row in await connection.execute(statement)]

    async def count_between(
        self, since: datetime, until: datetime, *, account: str, labels: Sequence[Labels]
    ) -> tuple[int, int]:
        """Return how many there are, and how many of them have a name on the network."""
        statement = select(func.count(), func.count(func.nullif(LEDGER.c.publication, ""))).where(
            _sent_between(since, until, account=account, labels=labels)
        )
        async with self.engine.connect() as connection:
            every, named = (await connection.execute(statement)).one()
            return every, named

    async def left_retracting(self, left_s: float) -> list[Entry]:
        """Return retractions of which nobody has said for so long, by the database's clock, that they are worked on."""
        statement = select(LEDGER).where(LEDGER.c.state == "retracting", _is_left(left_s))
        async with self.engine.connect() as connection:
            return [entry_of(row) for row in await connection.execute(statement)]

    async def adopt_retraction(self, post_id: str, *, left_s: float) -> bool:
        """Take a retraction over that was left for so long; False: somebody is at it."""
        mine = (LEDGER.c.post_id == post_id) & (LEDGER.c.state == "retracting") & _is_left(left_s)
        async with self.engine.begin() as connection:
            done = await connection.execute(
                update(LEDGER).where(mine).values(changed_at=func.now())
            )
            return bool(done.rowcount)

    async def keep_retracting(self, post_ids: Sequence[str]) -> None:
        """Say of retractions that somebody is at them."""
        ours = LEDGER.c.post_id.in_(post_ids) & (LEDGER.c.state == "retracting")
        async with self.engine.begin() as connection:
            await connection.execute(update(LEDGER).where(ours).values(changed_at=func.now()))

    async def taken_back(self, within_s: float, left_s: float) -> list[tuple[str, str]]:
        """Return the account and the hold of offers that were taken back not longer ago, nor less long."""
        taken = (LEDGER.c.state == "retracted") & LEDGER.c.hold_id.is_not(None)
        between = _is_left(left_s) & ~_is_left(within_s)
        statement = select(LEDGER.c.account, LEDGER.c.hold_id).where(taken, between).distinct()
        async with self.engine.connect() as connection:
            return [(row.account, row.hold_id) for row in await connection.execute(statement)]

    async def list_entries(self, *, state: str | None, limit: int) -> list[Entry]:
        """Return rows of the ledger, the last changed first."""
        statement = select(LEDGER).order_by(LEDGER.c.changed_at.desc()).limit(limit)
        if state:
            statement = statement.where(LEDGER.c.state == state)
        async with self.engine.connect() as connection:
            return [entry_of(row) for row in await connection.execute(statement)]


def _is_left(left_s: float) -> ColumnElement[bool]:
    return LEDGER.c.changed_at < func.now() - timedelta(seconds=left_s)


def _firsts(given: Sequence[P]) -> dict[str, P]:
    """Return one of each post, sorted, so that two publishers do not wait for each other's rows."""
    firsts = {one.post.post_id: one for one in reversed(given)}
    return {post_id: firsts[post_id] for post_id in sorted(firsts)}


def entry_of(row: Row[Any]) -> Entry:
    """Return a row of the ledger or its archive as a value."""
    names = Entry.__dataclass_fields__
    return Entry(**{name: row._mapping[name] for name in names})  # noqa: SLF001  # SQLAlchemy's own.
