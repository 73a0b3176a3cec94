"""A database that was restored from a copy has forgotten sends; `interlock ledger recover` writes them down again."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import delete
from typer.testing import CliRunner

from ops.embedded.system import System
from schemas.posts import DuePost, Outcome, Post, Result
from schemas.topics import DUE, OUTCOMES
from services.cli import app
from services.commands.ledger import mend
from services.kit import database
from services.publisher.store import LEDGER, SCHEMA, Store
from tests.builders import a_hold, a_post
from tests.journey import Journey, wait_for


@pytest.fixture
async def store(system: System) -> AsyncIterator[Store]:
    engine = database.new_engine(system.database, schema=SCHEMA)
    yield Store(engine, publisher="test")
    await engine.dispose()


async def forget(store: Store, *post_ids: str) -> None:
    async with store.engine.begin() as connection:
        await connection.execute(delete(LEDGER).where(LEDGER.c.post_id.in_(post_ids)))


def an_outcome(post: Post, result: Result, **values: Any) -> Outcome:
    return Outcome(
        post_id=post.post_id, kind=post.kind, account=post.account, result=result,
        at=datetime.now(UTC), **values,
    )  # fmt: skip


async def recover(system: System, *given: str) -> str:
    command = ["ledger", "recover", "--since", "1h", "--kafka", system.kafka, "--database", system.database]  # fmt: skip
    done = await asyncio.to_thread(CliRunner().invoke, app, [*command, *given])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("mends", [True, False])
async def test_what_was_forgotten_goes_out_again_unless_it_is_written_down(
    mends: bool, journey: Journey, system: System, store: Store
) -> None:
    (post_id,) = journey.hand_over(1, account="partner")
    wait_for("the offer", lambda: (journey.ledger(post_id) or {}).get("state") == "sent")
    entry = await store.find(post_id)
    await forget(store, post_id)
    if mends:
        assert re.search(
            r"not in the ledger: .*[1-9] published; written", await recover(system, "--write")
        )
        again = await store.find(post_id)
        assert entry is not None
        assert again is not None
        assert (again.state, again.publication, again.labels) == (
            "sent",
            entry.publication,
            entry.labels,
        )
    journey.produce(DUE.name, DuePost(post=a_post(
        post_id=post_id, text=post_id, account="partner", labels=entry.labels if entry else {},
        due_at=datetime.now(UTC), latest_at=datetime(2090, 1, 1, tzinfo=UTC),
    ), attempt=1))  # fmt: skip
    (last,) = journey.hand_over(1, account="partner", labels={"network": journey.network, "line": "coast"})  # fmt: skip
    wait_for("one behind it", lambda: journey.seen("hook", among=[last]))
    wait_for("what is said of it", lambda: (journey.ledger(post_id) or {}).get("state") == "sent")
    assert len(journey.seen("hook", among=[post_id])) == (1 if mends else 2)


async def test_each_end_is_written_down_as_it_was_told_and_nothing_without_being_asked_to(
    journey: Journey, system: System, store: Store
) -> None:
    ends: dict[Result, str] = {
        "published": "sent", "uncertain": "uncertain", "retracted": "retracted",
        "retraction_failed": "retraction_failed",
    }  # fmt: skip
    posts = {result: a_post(post_id=f"forgotten-{uuid.uuid4().hex}") for result in ends}
    for result, post in posts.items():
        if result.startswith("retract"):
            journey.produce(OUTCOMES.name, an_outcome(post, "published", publication="p"))
        publication = None if result == "uncertain" else "p"
        journey.produce(OUTCOMES.name, an_outcome(post, result, publication=publication))
    journey.produce(OUTCOMES.name, an_outcome(a_post(post_id="held-one"), "held"))
    assert "--write does it" in await recover(system)
    assert [await store.find(post.post_id) for post in posts.values()] == [None] * 4
    await recover(system, "--write")
    found = [await store.find(post.post_id) for post in posts.values()]
    assert [entry.state for entry in found if entry] == list(ends.values())
    assert await store.find("held-one") is None
    assert "not in the ledger: none" in await recover(system, "--write")


async def test_what_the_ledger_knows_of_is_left_as_it_is(
    journey: Journey, system: System, store: Store
) -> None:
    post = a_post(post_id=f"known-{uuid.uuid4().hex}")
    journey.produce(OUTCOMES.name, an_outcome(post, "published", publication="p"))
    await recover(system, "--write")
    hold = a_hold()
    assert await store.record(post.post_id, "retracting", hold_id=hold.hold_id)
    assert await store.record(post.post_id, "retracted")
    found = await mend(system.database, system.cluster, journey.began_at, write=True)
    assert post.post_id not in found.outcomes
    entry = await store.find(post.post_id)
    assert entry is not None
    assert (entry.state, entry.hold_id) == ("retracted", hold.hold_id)
