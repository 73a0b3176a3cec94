"""The ledger as evidence: moves the database guards, attempts, the archive."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from ops.embedded.system import System
from schemas.posts import Post
from services.kit import database
from services.kit.telemetry import Clock
from services.publisher.app import VERSIONS
from services.publisher.archive import Archive
from services.publisher.ledger import BEGINS, FOLLOWS, UNSENT, Attempt, State
from services.publisher.store import SCHEMA, Sent, Store
from tests.builders import a_post
from tests.migrating import down_and_up


@pytest.fixture
async def store(system: System) -> AsyncIterator[Store]:
    engine = database.new_engine(system.database, schema=SCHEMA)
    yield Store(engine, publisher="ledger")
    await engine.dispose()


async def a_row(store: Store, state: State = "intent") -> Post:
    """Write a post into the ledger and bring it to a state by allowed moves."""
    post = a_post(post_id=uuid.uuid4().hex)
    assert await store.record_intent(post, attempt=1, fence=7, at=Clock().now())
    way: list[State] = {
        "intent": [],
        "retracting": ["sent", "retracting"],
        "retracted": ["sent", "retracting", "retracted"],
        "retraction_failed": ["sent", "retracting", "retraction_failed"],
    }.get(state, [state])  # type: ignore[assignment]
    for step in way:
        assert await store.record(post.post_id, step, done_at=Clock().now())
    return post


async def move(store: Store, post: Post, later: State, *, attempt: int = 1) -> None:
    statement = text("UPDATE ledger SET state = :later, attempt = :attempt WHERE post_id = :id")
    async with store.engine.begin() as connection:
        values = {"later": later, "attempt": attempt, "id": post.post_id}
        await connection.execute(statement, values)


async def test_the_database_has_the_same_table_of_moves(store: Store) -> None:
    async with store.engine.connect() as connection:
        rows = await connection.execute(text("SELECT before, later FROM ledger_moves"))
        found = {(row.before, row.later) for row in rows}
    moves = {(before, later) for before, all_ in FOLLOWS.items() for later in all_}
    assert found == moves | {("", later) for later in BEGINS}


async def test_migrations_go_down_and_up_on_a_filled_ledger(system: System) -> None:
    schema = f"ledger_{uuid.uuid4().hex[:8]}"
    engine = database.new_engine(system.database, schema=schema)
    await database.migrate(engine, schema=schema, versions=VERSIONS)
    store = Store(engine, publisher="ledger")
    rows = {state: await a_row(store, state) for state in FOLLOWS}
    await down_and_up(engine, VERSIONS)
    found = {state: await store.find(post.post_id) for state, post in rows.items()}
    assert {state for state, entry in found.items() if entry and entry.state == state} == (
        FOLLOWS.keys() - {"withdrawn"}
    ), "of these version 1 knew nothing"
    await test_the_database_has_the_same_table_of_moves(store)
    async with engine.begin() as connection:
        await connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    await engine.dispose()


@pytest.mark.parametrize("later", FOLLOWS)
@pytest.mark.parametrize("state", FOLLOWS)
async def test_the_database_refuses_every_other_move_whoever_asks(
    store: Store, state: State, later: State
) -> None:
    post = await a_row(store, state)
    if later == state or later in FOLLOWS[state]:
        await move(store, post, later)
        return
    with pytest.raises(DBAPIError, match="may not follow"):
        await move(store, post, later)
    known = await store.find(post.post_id)
    assert known is not None
    assert known.state == state


@pytest.mark.parametrize("later", FOLLOWS)
@pytest.mark.parametrize("state", FOLLOWS)
async def test_a_later_attempt_begins_behind_what_was_not_sent(
    store: Store, state: State, later: State
) -> None:
    post = await a_row(store, state)
    if later in (BEGINS if state in UNSENT else FOLLOWS[state] | {state}):
        await move(store, post, later, attempt=2)
        return
    with pytest.raises(DBAPIError, match=r"may not follow|does not begin as"):
        await move(store, post, later, attempt=2)


@pytest.mark.parametrize("state", sorted(FOLLOWS.keys() - BEGINS))
async def test_a_post_begins_as_an_intent_or_is_certainly_not_sent(
    store: Store, state: State
) -> None:
    with pytest.raises(DBAPIError, match="does not begin as"):
        async with store.engine.begin() as connection:
            await connection.execute(
                text(
                    "INSERT INTO ledger (post_id, kind, account, state, attempt, publisher, labels,"
                    " intent_at) VALUES ('x', 'offer', 'a', :state, 1, 'p', '{}', now())"
                ),
                {"state": state},
            )


def an_attempt(at: datetime, answer: str) -> Attempt:
    begun_at = at - timedelta(milliseconds=100)
    return Attempt(at=at, publisher="ledger", answer=answer, fence=7, fence_begun_at=begun_at)


async def test_each_attempt_is_kept_with_the_fence_it_relied_on(store: Store) -> None:
    post, at = await a_row(store), Clock().now()
    for number in range(25):
        await store.record_attempt(post.post_id, an_attempt(at, f"not sent: {number}"))
    sent = Sent(
        post_id=post.post_id, at=at, attempt=an_attempt(at, "published"), publication="1", url=None
    )
    assert await store.record_sent(sent)
    entry = await store.find(post.post_id)
    assert entry is not None
    assert [one["answer"] for one in entry.attempts] == [
        *(f"not sent: {number}" for number in range(5, 25)),
        "published",
    ]
    assert (entry.fence, entry.begun_at) == (7, at)
    assert entry.fence_begun_at == at - timedelta(milliseconds=100)
    assert not await store.record_sent(sent), "once"


async def test_posts_written_together_are_answered_each(store: Store) -> None:
    import asyncio

    one, two = a_post(post_id=uuid.uuid4().hex), a_post(post_id=uuid.uuid4().hex)
    found = await asyncio.gather(
        *(store.record_intent(p, attempt=1, fence=1, at=Clock().now()) for p in (one, two, one))
    )
    assert found == [True, True, False]


async def test_what_was_settled_long_ago_moves_into_a_partition_and_is_found_there(
    store: Store,
) -> None:
    old, new, open_ = await a_row(store, "sent"), await a_row(store, "sent"), await a_row(store)
    long_ago = Clock().now() - timedelta(days=70)
    async with store.engine.begin() as connection:
        await connection.execute(
            text("UPDATE ledger SET done_at = :at WHERE post_id = :id"),
            {"at": long_ago, "id": old.post_id},
        )
    archive = Archive(store.engine, clock=Clock(), days=8)
    while await archive.move():
        pass
    assert await store.find(old.post_id) is None
    entry = await archive.find(old.post_id)
    assert entry is not None
    assert (entry.state, entry.done_at) == ("sent", long_ago)
    assert await store.find(new.post_id) is not None
    assert await store.find(open_.post_id) is not None
    async with store.engine.connect() as connection:
        where = "SELECT tableoid::regclass::text FROM ledger_archive WHERE post_id = :id"
        rows = await connection.execute(text(where), {"id": old.post_id})
        assert [row[0] for row in rows] == [f"ledger_archive_{long_ago:%Y_%m}"]


async def test_who_was_told_is_forgotten_and_the_feed_keeps_a_quarter_year(store: Store) -> None:
    name = uuid.uuid4().hex
    rows = {
        "deliveries": "INSERT INTO deliveries (post_id, recipient, state, at) VALUES (:id, 'a', 'sent', :at)",
        "feed": "INSERT INTO feed (post_id, account, kind, text, published_at) VALUES (:id, 'a', 'offer', 'a', :at)",
    }
    now = Clock().now()
    ages = {"new": 1, "old": 9, "ancient": 91}
    async with store.engine.begin() as connection:
        for age, days in ages.items():
            for statement in rows.values():
                values = {"id": f"{name}-{age}", "at": now - timedelta(days=days)}
                await connection.execute(text(statement), values)
    archive = Archive(store.engine, clock=Clock(), days=8)
    while await archive.forget():
        pass
    left = {}
    async with store.engine.connect() as connection:
        for table in rows:
            statement = f"SELECT post_id FROM {table} WHERE post_id LIKE :name"  # noqa: S608  # Ours.
            found = await connection.execute(text(statement), {"name": f"{name}%"})
            left[table] = {row.post_id.removeprefix(f"{name}-") for row in found}
    assert left == {"deliveries": {"new"}, "feed": {"new", "old"}}
