"""What the services ask of Kafka's clients, answered by the log in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from tests.simulation.log import Group, Log, Stored
from tests.simulation.loop import Process

HEARTBEAT_S: Final = 0.2
RETRY_S: Final = 0.05
FETCH_RECORDS: Final = 50
DAWDLES: Final = 0.05  # How often a process stands still with a record in its hand, and how long.
DAWDLES_S: Final = 0.5
PASSES_OVER: Final = 0.01  # How often a client goes on a little behind where it should.
LOST_WITH_SENDER: Final = 0.5  # What a process had sent when it was killed may not have left it.


class Consumer:
    """What the services ask of an AIOKafkaConsumer."""

    def __init__(
        self, log: Log, process: Process, topic: str, *, name: str, group: str | None, listener: Any
    ) -> None:
        self.log, self.process, self.topic, self.name = log, process, topic, name
        self.listener, self.generation = listener, -1
        self.group = None
        if group is not None:
            self.group = log.groups.setdefault((group, topic), Group(log, topic))
        self.positions: dict[int, int] = {}
        self.fetched: dict[int, list[Stored]] = {}
        self.paused: set[int] = set()
        self.placed: set[int] = (
            set()
        )  # Where it is, who reads it knows: behind its first record in a group.
        self.passed_over: set[tuple[int, int]] = set()
        self.is_rejoining = False
        self._changed: asyncio.Future[None] = log.loop.create_future()

    async def run(self, hand_on: Callable[[Stored], Coroutine[Any, Any, None]]) -> None:
        """Read for ever."""
        if self.group is None:
            self.positions = dict.fromkeys(range(len(self.log.topics[self.topic])), 0)
        else:
            await self._join()
            self.log.loop.spawn(self.process, self._keep_membership())
        while True:
            record = self._next()
            if record is None:
                await self._fetch()
                continue
            if self.log.chance.random() < DAWDLES:  # A rebalance may come in between.
                await asyncio.sleep(self.log.chance.uniform(0, DAWDLES_S))
            await hand_on(record)

    async def _join(self) -> None:
        assert self.group is not None
        await self._ask()
        numbers = await self.group.join(self)
        await asyncio.sleep(self.log.delay_s())
        self.positions = {p: self.group.committed.get(p, 0) for p in numbers}
        self.fetched.clear()
        self.placed.clear()
        self.is_rejoining = False
        self._wake()
        await self.listener.on_partitions_assigned(self._named(numbers))

    async def _keep_membership(self) -> None:
        assert self.group is not None
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            if not self.log.reaches(self.process):
                continue
            if self.group.hear(self) != self.generation or self.name not in self.group.members:
                self.is_rejoining = True
                await self.listener.on_partitions_revoked(self._named(self.positions))
                await self._join()

    def _named(self, numbers: Iterable[int]) -> list[TopicPartition]:
        return [TopicPartition(self.topic, p) for p in sorted(numbers)]

    def _wake(self) -> None:
        if not self._changed.done():
            self._changed.set_result(None)

    def _next(self) -> Stored | None:
        if self.is_rejoining:  # As aiokafka: nothing of the old assignment is handed on.
            return None
        for partition, records in list(self.fetched.items()):
            if partition not in self.positions or partition in self.paused:
                continue
            while records:
                record = records.pop(0)
                if record.offset >= self.positions[partition]:
                    self.positions[partition] = record.offset + 1
                    self.placed.add(partition)
                    return record
        return None

    async def _fetch(self) -> None:
        """Wait for news, and take what is there when the answer is made."""
        if not self._behind():
            await self._news()
        await asyncio.sleep(self.log.delay_s())
        if not self.log.reaches(self.process):
            await asyncio.sleep(RETRY_S)
            return
        taken = {partition: self._take(partition) for partition in self._behind()}
        await asyncio.sleep(self.log.delay_s())
        for partition, (begin, records) in taken.items():
            if self.positions.get(partition) == begin:  # It was not sought elsewhere meanwhile.
                is_known = self.group is None or partition in self.placed
                if records and is_known and self._passes_over(records[0]):
                    records = records[1:]  # noqa: PLW2901
                self.fetched[partition] = records

    def _passes_over(self, record: Stored) -> bool:
        """Say whether a record is passed over, as aiokafka was seen to do once; when it is read again, it comes."""
        place = (record.partition, record.offset)
        if place in self.passed_over or self.log.chance.random() >= PASSES_OVER:
            return False
        self.passed_over.add(place)
        return True

    async def _news(self) -> None:
        """Wait for a record of the topic, or for another assignment."""
        if self._changed.done():
            self._changed = self.log.loop.create_future()
        self.log.waiting[self.topic].append(self._changed)
        await self._changed

    def _take(self, partition: int) -> tuple[int, list[Stored]]:
        found = self.log.topics[self.topic][partition]
        begin = self.positions[partition]
        if begin < found.start:  # auto_offset_reset: earliest.
            begin = self.positions[partition] = found.start
        records = [r for r in found.records[begin : begin + FETCH_RECORDS] if r]
        if not records:  # All of them were compacted.
            begin = self.positions[partition] = min(found.end, begin + FETCH_RECORDS)
        return begin, records

    def _behind(self) -> list[int]:
        if self.is_rejoining:
            return []
        found = self.log.topics[self.topic]
        return [p for p, at in self.positions.items() if at < found[p].end and p not in self.paused]

    async def getmany(
        self, *, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[Stored]]:
        assert timeout_ms == 0, "only what is here"
        while self.is_rejoining:  # noqa: ASYNC110  # As aiokafka, which looks now and then.
            await asyncio.sleep(HEARTBEAT_S)
        found: dict[TopicPartition, list[Stored]] = {}
        for _ in range(max_records):
            record = self._next()
            if record is None:
                break
            found.setdefault(TopicPartition(self.topic, record.partition), []).append(record)
        return found

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(self.topic, p) for p in self.positions}

    async def position(self, tp: TopicPartition) -> int:
        return self.positions[tp.partition]

    def seek(self, tp: TopicPartition, offset: int) -> None:
        if tp.partition in self.positions:
            self.positions[tp.partition] = offset
            self.fetched.pop(tp.partition, None)
            self._wake()

    async def beginning_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        await self._ask()
        return {tp: self.log.topics[tp.topic][tp.partition].start for tp in tps}

    async def end_offsets(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        await self._ask()
        return {tp: self.log.topics[tp.topic][tp.partition].end for tp in tps}

    async def _ask(self) -> None:
        await asyncio.sleep(self.log.delay_s())
        while not self.log.reaches(self.process):  # noqa: ASYNC110  # It is a client that tries again.
            await asyncio.sleep(RETRY_S)

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        assert self.group is not None
        await self._ask()
        if (
            self.group.members.get(self.name) is not self
            or self.group.generation != self.generation
        ):
            raise RuntimeError("the group has moved on")
        self.group.committed |= {tp.partition: offset for tp, offset in offsets.items()}

    def pause(self, *tps: TopicPartition) -> None:
        self.paused |= {tp.partition for tp in tps}

    def resume(self, *tps: TopicPartition) -> None:
        self.paused -= {tp.partition for tp in tps}
        self._wake()


class _Subscriber:
    def __init__(self, broker: Broker, consumer: Consumer) -> None:
        self.broker, self.consumer = broker, consumer
        self.handler: Callable[[Any], Coroutine[Any, Any, None]]

    def __call__(self, handler: Callable[[Any], Coroutine[Any, Any, None]]) -> None:
        self.handler = handler

    async def start(self) -> None:
        self.broker.log.loop.spawn(self.broker.process, self.run())

    async def run(self) -> None:
        await self.consumer.run(self._hand_on)

    async def _hand_on(self, record: Stored) -> None:
        await self.handler(_Message(record))


@dataclass(slots=True)
class _Message:
    raw_message: Stored


class Broker:
    """What the services ask of FastStream's KafkaBroker: subscribers, and one idempotent producer."""

    def __init__(self, log: Log, process: Process) -> None:
        self.log, self.process = log, process
        self._subscribers: list[_Subscriber] = []
        self._queues: dict[tuple[str, int], list[tuple[Any, asyncio.Future[Stored]]]] = {}
        self._turn = 0

    def subscriber(self, topic: str, **given: Any) -> _Subscriber:
        name = given["group_instance_id"] or f"{self.process.name}-{topic}"
        consumer = Consumer(
            self.log, self.process, topic,
            name=name, group=given["group_id"], listener=given["listener"],
        )  # fmt: skip
        self._subscribers.append(_Subscriber(self, consumer))
        return self._subscribers[-1]

    async def start(self) -> None:
        for subscriber in self._subscribers:
            await subscriber.start()

    async def publish(
        self, value: bytes, topic: str, *, key: bytes | None, partition: int | None,
        headers: dict[str, str], no_confirm: bool, correlation_id: str | None,
    ) -> asyncio.Future[Stored]:  # fmt: skip
        assert no_confirm
        del correlation_id
        count = len(self.log.topics[topic])
        if partition is None:
            self._turn += 1
            partition = (
                (murmur2(key) & 0x7FFFFFFF) % count if key is not None else self._turn % count
            )
        future: asyncio.Future[Stored] = self.log.loop.create_future()
        written = tuple((name, text.encode()) for name, text in headers.items())
        queue = self._queues.setdefault((topic, partition), [])
        queue.append(((key, value, written), future))
        if len(queue) == 1:
            self.log.loop.outside(0, lambda: self._send(topic, partition))
        return future

    def _send(self, topic: str, partition: int) -> None:
        """Send all that waits for a partition as one batch; what a dead process queued stays unsent."""
        if self.process.is_alive and not self.process.is_stopped:
            batch = list(self._queues[topic, partition])
            self.log.loop.outside(self.log.delay_s(), lambda: self._land(topic, partition, batch))
        elif self.process.is_alive:
            self.log.loop.outside(RETRY_S, lambda: self._send(topic, partition))

    def _land(self, topic: str, partition: int, batch: list[Any]) -> None:
        if not self.process.is_alive and self.log.chance.random() < LOST_WITH_SENDER:
            return
        if not self.log.reaches(self.process):
            if self.process.is_alive:
                self.log.loop.outside(RETRY_S, lambda: self._land(topic, partition, batch))
            return
        if self.log.chance.random() < self.log.fails:
            self._fail(topic, partition, batch)
            return
        stored = [self.log.append(topic, partition, *record) for record, _ in batch]
        self.log.loop.outside(
            self.log.delay_s(), lambda: self._ack(topic, partition, batch, stored)
        )

    def _fail(self, topic: str, partition: int, batch: list[Any]) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(KafkaError("the batch has expired"))
        self._next(topic, partition, batch)

    def _ack(self, topic: str, partition: int, batch: list[Any], stored: list[Stored]) -> None:
        for (_, future), record in zip(batch, stored, strict=True):
            if not future.done():
                future.set_result(record)
        self._next(topic, partition, batch)

    def _next(self, topic: str, partition: int, batch: list[Any]) -> None:
        queue = self._queues[topic, partition]
        del queue[: len(batch)]
        if queue:
            self._send(topic, partition)


class SnapshotConsumer(Consumer):
    """As `detector/store.py` reads: assigned by hand, from the beginning to the end there is."""

    def __init__(self, log: Log, process: Process) -> None:
        super().__init__(log, process, "", name="", group=None, listener=None)

    async def start(self) -> None:
        await self._ask()

    async def stop(self) -> None:
        return

    def assign(self, tps: list[TopicPartition]) -> None:
        self.topic = tps[0].topic
        self.positions = {tp.partition: 0 for tp in tps}

    async def seek_to_beginning(self, tp: TopicPartition) -> None:
        self.positions[tp.partition] = self.log.topics[tp.topic][tp.partition].start

    async def getmany(  # type: ignore[override]
        self, tp: TopicPartition, *, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[Stored]]:
        del timeout_ms
        await self._ask()
        found = self.log.topics[tp.topic][tp.partition]
        begin = self.positions[tp.partition]
        self.positions[tp.partition] = end = min(found.end, begin + max_records)
        return {tp: [r for r in found.records[begin:end] if r]}


class Admin:
    """As the publisher counts partitions."""

    def __init__(self, log: Log) -> None:
        self.log = log

    async def start(self) -> None:
        return

    async def close(self) -> None:
        return

    async def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
        await asyncio.sleep(self.log.delay_s())
        return [{"partitions": list(range(len(self.log.topics[name])))} for name in names]
