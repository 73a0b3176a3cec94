"""The queues of an account: what does not get through keeps few others waiting, and its own incident's in their order."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from schemas.posts import Post
from schemas.topics import DUE
from services.kit.broker import Subscription
from services.kit.gaps import Gaps
from services.publisher import stream
from services.publisher.job import Job
from services.publisher.queues import Queues
from services.publisher.stream import Stream
from services.publisher.turns import UPDATES_AT_ONCE, SideBySide
from tests.builders import a_post
from tests.channels import HTTP
from tests.unit.test_broker import a_record


def an_update(number: int, incident_id: str) -> Post:
    return a_post(post_id=f"{incident_id}-{number}", kind="update", incident_id=incident_id)


def side_by_side(settle: Any) -> SideBySide:
    return SideBySide(settle, parallel=lambda _: 1, crash=lambda *_: None)


@pytest.mark.parametrize("name", [name for name in HTTP if name != "apprise"])
def test_an_accounts_updates_find_a_connection_beside_all_its_offers(name: str) -> None:
    """They wait for none: four lines of updates, a take-back and a look-up, beside as many offers as may overlap."""
    channel: Any = HTTP[name][1]("http://127.0.0.1:1")
    room = channel.client._transport._pool._max_connections
    assert room >= channel.capabilities.parallel + UPDATES_AT_ONCE + 2


@pytest.mark.parametrize("knows", [True, False])
async def test_offers_are_read_behind_the_first_fence_or_a_little_later_without(
    knows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has just started took partitions over whose offers then waited until it had read all holds there were."""
    monkeypatch.setattr(stream, "OFFERS_LATEST_S", 30 if knows else 0.2)
    passed, joined = asyncio.Event(), asyncio.Event()

    async def join() -> None:
        joined.set()

    one: Any = SimpleNamespace(
        gate=SimpleNamespace(knows=passed.wait), due=SimpleNamespace(join=join)
    )
    reading = asyncio.create_task(Stream._read_offers(one))
    await asyncio.sleep(0.02)
    assert not joined.is_set()
    if knows:
        passed.set()
    async with asyncio.timeout(10):
        await reading
    assert joined.is_set()


async def test_what_stepped_aside_is_in_hand_and_lets_no_more_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The queue looked empty, and a network that took nothing filled the memory with what it was to be asked again."""
    monkeypatch.setattr("services.publisher.queues.QUEUE_JOBS", 3)
    monkeypatch.setattr("services.publisher.queues.RESUME_JOBS", 1)
    queues, consumer = Queues(DUE, group="g", crash=lambda *_: None), _Resting()
    queues.subscription = SimpleNamespace(consumer=consumer)  # type: ignore[assignment]
    aside = list[Job]()

    async def settle(job: Job) -> None:
        job.again_s = 60
        aside.append(job)

    queues.turns = side_by_side(settle)
    await queues._on_assigned([0])
    for offset in range(3):
        assert not consumer.resting
        queues.take(a_record(0, offset), [an_update(offset, "one")], attempt=1, traceparent="")
        async with asyncio.timeout(10):
            while len(aside) <= offset:  # noqa: ASYNC110  # A task of the queues'.
                await asyncio.sleep(0.02)
    assert consumer.resting == {0}
    aside[0].ends()
    assert consumer.resting == {0}
    aside[1].ends()
    assert not consumer.resting
    await queues.stop()


class Passing:
    """Queues that take two offers of an account in hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("services.publisher.queues.QUEUE_JOBS", 2)
        self.consumer = _Resting()
        self.queues, self.jobs = Queues(DUE, group="g", crash=lambda *_: None), list[Job]()
        self.queues.passes_over, self.queues.turns = True, side_by_side(self._settle)
        self.queues.leave = self._settle
        self.queues.subscription = Subscription(
            SimpleNamespace(consumer=self.consumer), DUE.name, Gaps(from_start=False)
        )

    async def _settle(self, job: Job) -> None:
        if job not in self.jobs:
            self.jobs.append(job)

    def look(self, offset: int, account: str = "social") -> None:
        record = replace(a_record(0, offset), key=account.encode())
        if self.queues.wants(record):
            post = a_post(post_id=str(offset), account=account)
            self.queues.take(record, [post], attempt=1, traceparent="")
        self.queues.went_by(record)

    async def taken(self) -> list[str]:
        await asyncio.sleep(0.02)
        return [job.post.post_id for job in self.jobs]


async def test_what_came_by_when_a_partition_was_not_ours_is_new_when_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = Passing(monkeypatch)
    await one.queues._on_assigned([0])
    await one.queues._on_revoked([0])
    one.look(0)
    await one.queues._on_assigned([0])
    one.look(0)
    assert await one.taken() == ["0"]
    await one.queues.stop()


async def test_an_end_in_the_middle_of_a_second_reading_commits_nothing_that_was_passed_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.publisher.queues.RESUME_JOBS", 1)
    one = Passing(monkeypatch)
    await one.queues._on_assigned([0])
    for offset in range(4):
        one.look(offset)
    one.look(4, "plain")
    assert await one.taken() == ["0", "1", "4"]
    for job in list(one.jobs):
        job.ends()
    one.queues.read_again()
    await one.queues.end()
    for offset in (2, 3):
        one.look(offset)
    one.look(4, "plain")
    await one.queues.stop()
    assert one.consumer.committed == {TopicPartition(DUE.name, 0): 2}


class _Resting:
    """A consumer of partition 0 that only rests and goes on."""

    def __init__(self) -> None:
        self.resting = set[int]()
        self.committed: dict[TopicPartition, int] = {}

    def pause(self, *partitions: TopicPartition) -> None:
        self.resting |= {one.partition for one in partitions}

    def resume(self, *partitions: TopicPartition) -> None:
        self.resting -= {one.partition for one in partitions}

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(DUE.name, 0)}

    def seek(self, _: TopicPartition, __: int) -> None:
        return

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.committed |= offsets
