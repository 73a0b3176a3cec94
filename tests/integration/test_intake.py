"""Offers that many requests queue in the same moment: each has its own answer, as if it were alone."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from fastapi import Response
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ops.embedded.system import System
from schemas.vocabulary import Vocabulary
from services.kit.settings import Watched
from services.kit.web import Problem
from services.scheduler import desk
from services.scheduler.answers import Key, recall_answer
from services.scheduler.bodies import PostBody
from services.scheduler.intake import Asked, Intake
from services.scheduler.post_desk import PostDesk
from tests.queues import Queue, new_queue

REQUESTS = 30
PATIENCE_S = 20.0


@dataclass
class Door:
    """An intake at a queue of its own; `groups` is how many offers were written at once."""

    queue: Queue
    intake: Intake
    groups: list[int] = field(default_factory=list)

    def asked(self, campaign: str = "", **values: Any) -> Asked:
        known = {"account": "social-en", "text": uuid.uuid4().hex, "due_at": "2099-01-01T00:00:00Z"}
        special = {name: values.pop(name) for name in ("key", "is_list") if name in values}
        body = PostBody.model_validate(known | values)
        return Asked(campaign or self.queue.campaign, [body], "ada", **special)

    async def add(self, *asked: Asked) -> list[Any]:
        """Ask all in one moment."""
        calls = (self.intake.add(one) for one in asked)
        return list(await asyncio.gather(*calls, return_exceptions=True))

    async def count(self, table: str) -> int:
        async with self.queue.engine.connect() as connection:
            found: int = (
                await connection.execute(text(f"SELECT count(*) FROM {table}"))  # noqa: S608  # Ours.
            ).scalar_one()
        return found


@pytest.fixture
async def door(system: System, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    queue = await new_queue(system)
    made = Door(queue, Intake(PostDesk(queue.lanes, {}, Watched(None, Vocabulary))))
    insert = desk.insert_and_read

    async def counted(connection: Any, posts: Any) -> Any:
        made.groups.append(len(posts))
        return await insert(connection, posts)

    monkeypatch.setattr(desk, "insert_and_read", counted)
    yield made
    await queue.close()


def told(answer: Any) -> Any:
    assert isinstance(answer, Response), answer
    assert answer.status_code == 201
    return json.loads(bytes(answer.body))


async def test_who_asks_meanwhile_is_written_together_and_answered_alone(door: Door) -> None:
    asked = [door.asked(labels={"line": str(n % 3)}) for n in range(REQUESTS)]
    answers = [told(answer) for answer in await door.add(*asked)]
    assert [one["text"] for one in answers] == [one.bodies[0].text for one in asked]
    assert door.groups == [REQUESTS]
    assert await door.count("posts") == REQUESTS
    assert await door.count("audit WHERE action = 'posts.added'") == REQUESTS
    async with asyncio.timeout(PATIENCE_S):  # Said behind the answers.
        while await door.count("lanes WHERE next_due_at IS NOT NULL") < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_what_is_wrong_with_one_is_said_to_that_one_alone(door: Door) -> None:
    key = Key("ada", "k", "digest")
    late = {"latest_at": "2098-01-01T00:00:00Z"}
    good, wrong, nowhere, other = await door.add(
        door.asked(), door.asked(key=key, **late), door.asked("cmp-none"), door.asked(is_list=True)
    )
    assert told(good)["version"] == 1
    assert len(told(other)) == 1
    assert isinstance(wrong, Problem)
    assert wrong.errors == [{"pointer": "/0/latest_at", "detail": "must be later than due_at"}]
    assert isinstance(nowhere, Problem)
    assert nowhere.status_code == 404
    assert door.groups == [2]
    assert await door.count("answers") == 0, "a key that came to nothing is free again"


async def test_a_key_counts_once_and_its_answer_is_kept(door: Door) -> None:
    key = Key("ada", "k", "digest")
    first, second = await door.add(door.asked(key=key), door.asked(key=key))
    assert second is None, "it is done alone, and finds the answer"
    async with door.queue.engine.begin() as connection:
        assert await recall_answer(connection, key) == ("digest", 201, told(first))
    (again,) = await door.add(door.asked(key=key))
    assert again is None
    assert await door.count("posts") == 1


async def test_an_external_id_is_queued_once_of_two_in_one_moment(door: Door) -> None:
    first, second = await door.add(door.asked(external_id="crm-1"), door.asked(external_id="crm-1"))
    assert told(first)["external_id"] == "crm-1"
    assert told(second) == []


async def test_a_budget_is_counted_alone(door: Door) -> None:
    other = door.queue.campaign
    campaign = await door.queue.new_campaign(budget=1)
    alone, among = await door.add(door.asked(campaign), door.asked(other))
    assert (alone, told(among)["campaign_id"]) == (None, other)
    assert await door.count("posts") == 1


async def test_where_the_transaction_fails_each_is_done_alone(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any) -> Any:
        raise DBAPIError("INSERT", None, Exception("deadlock detected"))

    monkeypatch.setattr(desk, "insert_and_read", fails)
    assert await door.add(door.asked(key=Key("ada", "k", "d")), door.asked()) == [None, None]
    assert await door.count("answers") == 0


class InDoubt:
    """An engine whose commit is done and not answered."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        async with self.engine.begin() as connection:
            yield connection
        raise DBAPIError("COMMIT", None, Exception("the connection broke"))


async def test_where_the_commit_is_in_doubt_only_a_key_is_tried_again(door: Door) -> None:
    door.intake.post_desk.engine = cast("AsyncEngine", InDoubt(door.queue.engine))
    key = Key("ada", "k", "digest")
    unknown, keyed, wrong = await door.add(
        door.asked(), door.asked(key=key), door.asked(latest_at="2098-01-01T00:00:00Z")
    )
    assert isinstance(unknown, Problem)
    assert (unknown.status_code, "nobody knows" in str(unknown.detail)) == (503, True)
    assert keyed is None, "it is done alone, and finds its answer"
    assert wrong is None
    assert await door.count("posts") == 2
    async with door.queue.engine.begin() as connection:
        _, status, answer = await recall_answer(connection, key)
    assert (status, answer["version"]) == (201, 1)
