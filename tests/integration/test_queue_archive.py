"""What was settled long ago leaves the queue, and is still there to be read, counted and exported."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from ops.embedded.system import System
from schemas.posts import Outcome
from schemas.vocabulary import Vocabulary
from services.kit.settings import Watched
from services.kit.web import Problem
from services.scheduler import counts, desk
from services.scheduler.answers import Key, forget_answers, keep_answers, recall_answer
from services.scheduler.app import VERSIONS
from services.scheduler.archive import Archive
from services.scheduler.file_api import EXPORT
from services.scheduler.outcome_store import record_outcomes
from services.scheduler.post_desk import PostDesk
from tests.migrating import move
from tests.queues import Queue, new_queue

DAY = timedelta(days=1)


@pytest.fixture
async def queue(system: System) -> AsyncIterator[Queue]:
    made = await new_queue(system)
    yield made
    await made.close()


async def settled(queue: Queue, *ages: timedelta) -> list[str]:
    """Queue offers, let them be published, and make them so old."""
    ids = await queue.add(*(-0.1 * timedelta(seconds=1) for _ in ages))
    await queue.claim_all()
    at = datetime.now(UTC)
    await record_outcomes(
        queue.store.engine,
        [
            Outcome(post_id=one, kind="offer", account="a", attempt=1, result="published", at=at)
            for one in ids
        ],
    )
    for post_id, age in zip(ids, ages, strict=True):
        await queue.run(
            "UPDATE posts SET due_at = due_at - CAST(:age AS interval), latest_at = latest_at - CAST(:age AS interval),"
            " changed_at = changed_at - CAST(:age AS interval) WHERE post_id = :id",
            age=age, id=post_id,
        )  # fmt: skip
    return ids


async def in_queue(queue: Queue) -> set[str]:
    async with queue.engine.connect() as connection:
        rows = await connection.execute(text("SELECT post_id FROM posts"))
        return {row.post_id for row in rows}


async def move_all(queue: Queue) -> int:
    moved, archive = 0, Archive(queue.engine, days=30)
    while found := await archive.move():
        moved += found
    return moved


async def test_old_offers_are_archived_and_stay_readable(queue: Queue) -> None:
    old, older, young = await settled(queue, 40 * DAY, 200 * DAY, 20 * DAY)
    (waiting,) = await queue.add(-100 * DAY, expect=False)  # Not settled, however old.
    async with queue.engine.connect() as connection:
        before = await counts.by_state(connection, queue.campaign)
    assert await move_all(queue) == 2
    assert await in_queue(queue) == {young, waiting}
    async with queue.engine.connect() as connection:
        assert await counts.by_state(connection, queue.campaign) == before
        assert await desk.count_posts(connection, queue.campaign) == 4
        for post_id in (old, older):
            found = await desk.read_post(connection, post_id)
            assert found is not None
            assert found["state"] == "published"
            (outcome,) = await desk.read_outcomes(connection, post_id)
            assert outcome["result"] == "published"
        rows = await connection.execute(text(EXPORT), {"id": queue.campaign})
        assert [row.post_id for row in rows] == [old, older, young, waiting]
        listed = await desk.list_posts(connection, {}, after=0, limit=10, archived=True)
        assert [row["post_id"] for row in listed] == [old, older]
        post_desk = PostDesk(queue.lanes, {}, Watched(None, Vocabulary))
        with pytest.raises(Problem, match="was published, and archived since"):
            await post_desk.lock(connection, old)


async def test_what_was_archived_comes_back_with_an_older_version(queue: Queue) -> None:
    ids = await settled(queue, 40 * DAY, 200 * DAY)
    assert await move_all(queue) == 2
    await move(queue.engine, VERSIONS, "0005", down=True)
    assert await in_queue(queue) == set(ids)
    async with queue.engine.connect() as connection:
        rows = await connection.execute(text("SELECT post_id FROM outcomes"))
        assert {row.post_id for row in rows} == set(ids)
        found = await counts.by_state(connection, queue.campaign)
    assert found == {"published": 2}, "nothing was counted twice"
    await move(queue.engine, VERSIONS, "head", down=False)
    assert await move_all(queue) == 2


async def test_answers_are_kept_for_a_week(queue: Queue) -> None:
    old, new = (Key("ada", name, "r") for name in ("old", "new"))
    async with queue.engine.begin() as connection:
        for key in (old, new):
            assert await recall_answer(connection, key) == ("r", None, None)
            await keep_answers(connection, [(key, b'{"id": 1}')], status=201)
        await connection.execute(
            text("UPDATE answers SET created_at = now() - interval '8 days' WHERE key = 'old'")
        )
        assert await recall_answer(connection, old) == ("r", 201, {"id": 1})
        await forget_answers(connection)
        assert await recall_answer(connection, new) == ("r", 201, {"id": 1})
        assert await recall_answer(connection, old) == ("r", None, None)
