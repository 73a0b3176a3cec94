"""What the services rely on of Kafka, asked of a real broker and of the one in memory alike.

The simulation is worth what its log is worth: it may be crueller than Kafka, and never kinder.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol, Self

import pytest
from aiokafka import TopicPartition
from aiokafka.partitioner import murmur2
from kafka import KafkaAdminClient

from schemas.topics import Topic
from services.kit import broker as kafka
from services.kit.cluster import Cluster as Reached
from services.kit.topics import create_topics
from tests.engines import Engines
from tests.simulation.clients import Broker
from tests.simulation.log import Log
from tests.simulation.loop import Loop, Process

PARTITIONS = 3
PATIENCE_S = 30.0
Records = list[kafka.Record]


class Cluster(Protocol):
    """Where a scenario runs."""

    topic: str

    def run(self, scenario: Coroutine[Any, Any, None]) -> None: ...

    def member(self) -> Any: ...

    async def leave(self, member: Any) -> None: ...

    async def delete(self, partition: int, before: int) -> None: ...


class InMemory:
    """The simulation's."""

    def __init__(self) -> None:
        self.topic, self.loop = "contract", Loop()
        self.log = Log(self.loop, random.Random(7), {self.topic: PARTITIONS})

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        try:
            self.loop.run_until_complete(scenario)
        finally:
            self.loop.end()

    def member(self) -> Any:
        return Broker(self.log, Process(uuid.uuid4().hex))

    async def leave(self, member: Any) -> None:
        member.process.is_alive = False

    async def delete(self, partition: int, before: int) -> None:
        self.log.delete(self.topic, partition, before)


class Real:
    """A broker that runs."""

    def __init__(self, servers: str) -> None:
        self.servers, self.topic = servers, f"contract-{uuid.uuid4().hex[:8]}"
        spec = Topic(
            name=self.topic, key="", partitions=PARTITIONS, records=(), writers=(), readers=()
        )
        create_topics(Reached(servers), [spec], replicas=1)

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        asyncio.run(scenario)

    def member(self) -> Any:
        return kafka.new_broker(Reached(self.servers), client_id="contract")

    async def leave(self, member: Any) -> None:
        await member.stop()

    async def delete(self, partition: int, before: int) -> None:
        def act() -> None:
            admin: Any = KafkaAdminClient(bootstrap_servers=self.servers)
            admin.delete_records({TopicPartition(self.topic, partition): before})
            admin.close()

        await asyncio.to_thread(act)


@pytest.fixture(params=["in memory", "real"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if request.param == "in memory":
        yield InMemory()
        return
    engines: Engines = request.getfixturevalue("test_engines")
    servers = engines.kafka or request.getfixturevalue("system").kafka
    yield Real(servers)


class Reader:
    """A subscriber and what it was handed."""

    def __init__(self, cluster: Cluster, *, group: str | None = None, instance: str = "") -> None:
        self.cluster, self.member = cluster, cluster.member()
        self.records: Records = []
        self.assigned: set[int] = set()
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.subscription = kafka.subscribe(
            self.member, cluster.topic, self._take, crash=_crash, group=group, instance=instance,
            listener=kafka.Rebalance(assigned=self._on, revoked=self._off, crash=_crash)
            if group else None,
        )  # fmt: skip

    async def _take(self, records: Sequence[kafka.Record]) -> None:
        await self.may_go_on.wait()
        self.records += records

    async def _on(self, partitions: Any) -> None:
        self.assigned = set(partitions)

    async def _off(self, partitions: Any) -> None:
        self.assigned = set()

    async def __aenter__(self) -> Self:
        await self.member.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cluster.leave(self.member)

    def values(self, partition: int) -> list[bytes]:
        return [r.value or b"" for r in self.records if r.partition == partition]


def _has_read(reader: Reader, count: int) -> bool:
    return len(reader.records) == count


def _crash(why: str, error: BaseException | None = None) -> None:
    raise AssertionError(why) from error


async def until(look: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not look():  # noqa: ASYNC110  # What it looks at has no event.
            await asyncio.sleep(0.02)


@asynccontextmanager
async def a_writer(cluster: Cluster) -> AsyncIterator[Any]:
    member = cluster.member()
    await member.start()
    yield member
    await cluster.leave(member)


async def write(cluster: Cluster, member: Any, *numbers: int, partition: int = 0) -> list[int]:
    """Write records without waiting between them; returns the offsets that were acknowledged."""
    futures = [
        await kafka.emit(
            member, cluster.topic, b"%d" % n, headers={"n": str(n)}, partition=partition
        )
        for n in numbers
    ]
    return [(await future).offset for future in futures]


def in_order(*numbers: int) -> list[bytes]:
    return [b"%d" % n for n in numbers]


def test_one_producer_keeps_its_order_and_offsets_count_on(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with a_writer(cluster) as writer, Reader(cluster) as reader:
            assert await write(cluster, writer, 1, 2, 3, 4, 5) == [0, 1, 2, 3, 4]
            assert await write(cluster, writer, 6) == [5]
            await until(lambda: len(reader.records) == 6)
            assert reader.values(0) == in_order(1, 2, 3, 4, 5, 6)

    cluster.run(scenario())


def test_without_a_group_all_is_read_from_the_beginning(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with a_writer(cluster) as writer:
            for partition in range(PARTITIONS):
                await write(cluster, writer, 1, 2, partition=partition)
            async with Reader(cluster) as one, Reader(cluster) as other:
                for reader in (one, other):
                    await until(partial(_has_read, reader, 2 * PARTITIONS))
                    assert all(reader.values(p) == in_order(1, 2) for p in range(PARTITIONS))

    cluster.run(scenario())


def test_what_there_was_is_handled_before_it_counts_as_read(cluster: Cluster) -> None:
    """Whoever tells people what is open may not begin in the middle of what there was."""

    async def scenario() -> None:
        async with a_writer(cluster) as writer:
            for partition in range(PARTITIONS):
                await write(cluster, writer, 1, 2, partition=partition)
            reader = Reader(cluster)
            reader.may_go_on.clear()
            async with reader:
                read_up = asyncio.create_task(reader.subscription.read_up())
                await until(lambda: reader.subscription.in_hand)
                await asyncio.sleep(0.2)
                assert not read_up.done()
                reader.may_go_on.set()
                await read_up
                assert len(reader.records) == 2 * PARTITIONS

    cluster.run(scenario())


def test_a_key_has_one_partition_and_both_agree_which(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with a_writer(cluster) as writer:
            partitions = []
            for key in ("northlink", "southlink", "social-en", "n7"):
                future = await kafka.emit(writer, cluster.topic, b"", headers={}, key=key)
                partitions.append((await future).partition)
            expected = [_murmur(key) for key in ("northlink", "southlink", "social-en", "n7")]
            assert partitions == expected

    cluster.run(scenario())


def _murmur(key: str) -> int:
    found: int = (murmur2(key.encode()) & 0x7FFFFFFF) % PARTITIONS
    return found


def test_a_group_divides_and_goes_on_from_what_was_committed(cluster: Cluster) -> None:
    async def scenario() -> None:
        every = set(range(PARTITIONS))
        async with a_writer(cluster) as writer:
            for partition in every:
                await write(cluster, writer, 1, 2, 3, partition=partition)
            first = Reader(cluster, group="g", instance="first")
            await first.member.start()
            await until(lambda: len(first.records) == 3 * PARTITIONS)
            async with Reader(cluster, group="g", instance="second") as second:
                await until(
                    lambda: first.assigned and second.assigned
                    and first.assigned | second.assigned == every
                )  # fmt: skip
                assert not first.assigned & second.assigned
                mine = min(first.assigned)
                tp = TopicPartition(cluster.topic, mine)
                await first.subscription.consumer.commit({tp: 2})
                await cluster.leave(first.member)
                await until(lambda: second.assigned == every)
                await until(lambda: b"3" in second.values(mine))
                assert second.values(mine) == in_order(3), "what was committed came again"

    cluster.run(scenario())


def test_what_was_sought_back_comes_again(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with a_writer(cluster) as writer, Reader(cluster, group="g", instance="i") as reader:
            await until(lambda: reader.assigned)
            await write(cluster, writer, 1, 2, 3)
            await until(lambda: len(reader.records) == 3)
            tp = TopicPartition(cluster.topic, 0)
            reader.subscription.consumer.seek(tp, 1)
            await until(lambda: len(reader.records) == 5)
            assert reader.values(0) == in_order(1, 2, 3, 2, 3)
            assert await reader.subscription.consumer.position(tp) == 3

    cluster.run(scenario())


def test_a_reader_goes_on_behind_what_was_deleted_without_a_word(cluster: Cluster) -> None:
    async def scenario() -> None:
        async with a_writer(cluster) as writer:
            await write(cluster, writer, 1, 2, 3, 4)
            await cluster.delete(0, 2)
            async with Reader(cluster) as reader:
                await until(lambda: len(reader.records) == 2)
                assert reader.values(0) == in_order(3, 4)
                tp = TopicPartition(cluster.topic, 0)
                starts = await reader.subscription.consumer.beginning_offsets([tp])
                assert starts[tp] == 2

    cluster.run(scenario())
