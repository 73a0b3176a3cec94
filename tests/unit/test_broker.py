"""Kafka as services use it, where it is told apart: what is no longer ours, and goodbyes.

Records fetched before a rebalance were found by the simulation (its mutant `stale_records`): one that was handed on
behind it let the group commit past offers that nobody had settled.
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import Fetcher
from aiokafka.errors import NotLeaderForPartitionError

from schemas.topics import DUE
from services.kit import broker as kafka
from services.kit.broker import still_ours
from services.publisher.queues import Queues
from services.publisher.turns import InOrder
from tests.simulation.log import Stored

TOPIC = "posts.due"


class Consumer:
    """A consumer as far as it is asked."""

    def __init__(self, positions: dict[int, int]) -> None:
        self.positions = positions

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(TOPIC, partition) for partition in self.positions}

    async def position(self, tp: TopicPartition) -> int:
        return self.positions[tp.partition]


def a_record(partition: int, offset: int) -> Any:
    return Stored(
        topic=TOPIC, partition=partition, offset=offset, timestamp=0, key=None, value=b"", headers=()
    )  # fmt: skip


async def test_what_a_seek_has_fetched_again_behind_it_is_handed_on_once_and_in_its_order() -> None:
    """It was in a hand when its consumer was sent back: what was to be read again came behind it."""
    records = [a_record(0, 9), a_record(0, 5), a_record(1, 2), a_record(0, 7), a_record(0, 9)]
    found = await still_ours(Consumer({0: 10, 1: 3}), records)
    assert [(r.partition, r.offset) for r in found] == [(0, 5), (1, 2), (0, 7), (0, 9)]


@pytest.mark.parametrize(
    ("positions", "kept"),
    [
        ({0: 6, 1: 3}, [(0, 5), (1, 2)]),  # As it was fetched.
        ({1: 3}, [(1, 2)]),  # The partition went to another member.
        ({0: 2, 1: 3}, [(1, 2)]),  # It came back, and is read again from where it was committed.
        ({}, []),
    ],
)
async def test_only_what_was_passed_is_handed_on(
    positions: dict[int, int], kept: list[tuple[int, int]]
) -> None:
    records = [a_record(0, 5), a_record(1, 2)]
    found = await still_ours(Consumer(positions), records)
    assert [(r.partition, r.offset) for r in found] == kept


@pytest.mark.parametrize("is_leader", [True, False])
async def test_who_is_not_the_leader_any_more_is_not_asked_for_offsets_again(
    is_leader: bool,
) -> None:
    """Found by a campaign: a leader changed while records were deleted, and detectors stood still for half a minute."""
    looks: list[None] = []
    answer = [(TOPIC, [(0, 0 if is_leader else NotLeaderForPartitionError.errno, -1, 7)])]

    class Client:
        async def send(self, *_: Any) -> Any:
            return SimpleNamespace(topics=answer, API_VERSION=1)

        def force_metadata_update(self) -> None:
            looks.append(None)

    fetcher: Any = SimpleNamespace(_client=Client(), _isolation_level=0)
    asked = Fetcher._proc_offset_request(fetcher, 1, {TOPIC: [(0, -2)]})
    if is_leader:
        assert await asked == {TopicPartition(TOPIC, 0): (7, -1)}
    else:
        with pytest.raises(NotLeaderForPartitionError):
            await asked
    assert len(looks) == (0 if is_leader else 1)


async def test_a_goodbye_that_nobody_answers_is_not_waited_for() -> None:
    """Over TLS uvloop waits half a minute for the broker's, and a rebalance would be as silent."""
    left = asyncio.Event()

    async def goodbye() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.set()

    await kafka.leave(goodbye, patience_s=0.01)
    assert left.is_set()


async def test_what_went_to_another_publisher_is_neither_taken_nor_committed() -> None:
    """A record that came behind the rebalance made every commit fail, of all partitions, for good."""
    committed: list[dict[TopicPartition, int]] = []

    class Committer:
        async def commit(self, offsets: dict[TopicPartition, int]) -> None:
            committed.append(offsets)

    async def nothing(*_: Any) -> None:
        return

    queues = Queues(DUE, group="g", crash=lambda *_: None)
    queues.turns = InOrder(nothing, crash=lambda *_: None)
    queues.subscription = SimpleNamespace(consumer=Committer())  # type: ignore[assignment]
    await queues._on_assigned([0, 1])
    queues.take(a_record(0, 5), [], attempt=1, traceparent="")
    await queues._on_revoked([0, 1])
    queues.take(a_record(0, 6), [], attempt=1, traceparent="")
    queues.keep(a_record(0, 7))()
    await queues._on_assigned([1])
    queues.take(a_record(1, 2), [], attempt=1, traceparent="")
    await queues._commit()
    assert committed == [{TopicPartition(TOPIC, 0): 6}, {TopicPartition(TOPIC, 1): 3}]
