"""The queues of an account: what does not get through keeps few others waiting, and its own incident's in their order."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from schemas.posts import Post
from schemas.topics import DUE, UPDATES
from services.kit.broker import Subscription
from services.kit.gaps import Gaps
from services.publisher import stream
from services.publisher.job import Job
from services.publisher.queues import Queues
from services.publisher.stream import UPDATE_QUEUES, Stream, queue_of_update
from tests.builders import a_post
from tests.channels import HTTP
from tests.unit.test_broker import a_record


def an_update(number: int, incident_id: str) -> Post:
    return a_post(post_id=f"{incident_id}-{number}", kind="update", incident_id=incident_id)


def test_an_incidents_updates_share_a_queue_and_an_account_has_a_few() -> None:
    updates = [an_update(n, f"inc-{n % 50}") for n in range(200)]
    names: dict[str, set[str]] = {}
    for update in updates:
        names.setdefault(update.incident_id or "", set()).add(queue_of_update(update))
    assert all(len(found) == 1 for found in names.values())
    assert len(set().union(*names.values())) == UPDATE_QUEUES


@pytest.mark.parametrize("name", [name for name in HTTP if name != "apprise"])
def test_an_accounts_updates_find_a_connection_beside_all_its_offers(name: str) -> None:
    """They wait for none: four queues of updates, a take-back and a look-up, beside as many offers as may overlap."""
    channel: Any = HTTP[name][1]("http://127.0.0.1:1")
    room = channel.client._transport._pool._max_connections
    assert room >= channel.capabilities.parallel + UPDATE_QUEUES + 2


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


async def test_an_update_that_does_not_get_through_stops_its_own_incident_and_not_all() -> None:
    """A network that answered one text with 500 was asked again and again, and all else it was to say stood behind."""
    queues = Queues(UPDATES, group="g", crash=lambda *_: None)
    queues.name_of, queues.subscription = queue_of_update, _Nothing()  # type: ignore[assignment]
    settled, stuck = list[str](), asyncio.Event()

    async def settle(job: Job) -> None:
        if job.post.post_id == "stuck-0":
            await stuck.wait()
        settled.append(job.post.post_id)
        job.ends()

    queues.settle = settle
    await queues._on_assigned([0])
    others = [an_update(0, f"inc-{n}") for n in range(8)]
    given = [an_update(0, "stuck"), an_update(1, "stuck"), *others]
    for offset, post in enumerate(given):
        queues.take(a_record(0, offset), [post], attempt=1, traceparent="")
    free = {p.post_id for p in others if queue_of_update(p) != queue_of_update(given[0])}
    async with asyncio.timeout(10):
        while not free <= set(settled):  # noqa: ASYNC110  # Tasks of the queues'.
            await asyncio.sleep(0.02)
        assert len(free) >= len(others) / 2
        assert not {"stuck-0", "stuck-1"} & set(settled)
        stuck.set()
        while len(settled) < len(given):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert settled.index("stuck-0") < settled.index("stuck-1")
    await queues.stop()


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

    queues.settle = settle
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
        self.queues.passes_over, self.queues.settle = True, self._settle
        self.queues.leave = self._settle
        self.queues.subscription = Subscription(
            SimpleNamespace(consumer=self.consumer), DUE.name, Gaps(compacted=False)
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


class _Nothing:
    """A subscription that nothing is committed to."""

    class _Consumer:
        async def commit(self, _: Any) -> None:
            return

    consumer = _Consumer()
