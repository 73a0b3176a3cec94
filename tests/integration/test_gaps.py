"""A real consumer that goes on behind where it should: what lies between is handed on first, and all of it once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import pytest
from aiokafka import TopicPartition

from ops.embedded.system import System
from schemas.topics import DUE
from services.kit import broker as kafka
from services.kit.cluster import Cluster
from services.kit.topics import create_topics, new_admin

FIRST, ALL = 5, 10


def crash(why: str, error: BaseException | None = None) -> None:
    raise AssertionError(why) from error


@pytest.mark.parametrize("in_group", [True, False])
async def test_what_a_client_passed_over_is_handed_on_before_what_is_behind_it(
    system: System, in_group: bool
) -> None:
    topic, cluster, seen = f"gaps.{uuid.uuid4().hex}", Cluster(system.kafka), list[bytes | None]()

    async def handle(records: Sequence[kafka.Record]) -> None:
        seen.extend(record.value for record in records)

    async def emit(numbers: range) -> None:
        for number in numbers:
            await (await kafka.emit(broker, topic, str(number).encode(), headers={}))

    async def see(count: int) -> None:
        async with asyncio.timeout(60):
            while len(seen) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)

    made = replace(DUE, name=topic, partitions=1)
    await asyncio.to_thread(create_topics, cluster, [made], replicas=1)
    broker = kafka.new_broker(cluster, client_id=topic)
    reading = kafka.subscribe(broker, topic, handle, group=topic if in_group else None, crash=crash)
    async with kafka.connected(broker):
        await broker.start()
        await emit(range(FIRST))
        await see(FIRST)
        reading.consumer.pause(TopicPartition(topic, 0))
        await emit(range(FIRST, ALL))
        reading.consumer.seek(TopicPartition(topic, 0), FIRST + 2)  # Nobody tells the subscription.
        reading.consumer.resume(TopicPartition(topic, 0))
        await see(ALL)
    assert seen == [str(number).encode() for number in range(ALL)]


async def test_what_was_deleted_at_the_begin_of_a_topic_is_looked_for_once_and_passed(
    system: System,
) -> None:
    """Its first offset is sought, which is there no more: Kafka's client begins with what there is."""
    topic, cluster, seen = f"gaps.{uuid.uuid4().hex}", Cluster(system.kafka), list[bytes | None]()

    async def handle(records: Sequence[kafka.Record]) -> None:
        seen.extend(record.value for record in records)

    def delete() -> None:
        with closing(new_admin(cluster)) as admin:
            admin.delete_records({TopicPartition(topic, 0): FIRST})

    await asyncio.to_thread(
        create_topics, cluster, [replace(DUE, name=topic, partitions=1)], replicas=1
    )
    broker = kafka.new_broker(cluster, client_id=topic)
    kafka.subscribe(broker, topic, handle, crash=crash)
    async with kafka.connected(broker):
        for number in range(ALL):
            await (await kafka.emit(broker, topic, str(number).encode(), headers={}))
        await asyncio.to_thread(delete)
        await broker.start()
        async with asyncio.timeout(60):
            while len(seen) < ALL - FIRST:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await (await kafka.emit(broker, topic, b"more", headers={}))
        async with asyncio.timeout(60):
            while len(seen) < ALL - FIRST + 1:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert seen == [*(str(number).encode() for number in range(FIRST, ALL)), b"more"]
