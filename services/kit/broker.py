"""Kafka as every service uses it: one producer, subscribers in order, nothing left to defaults.

FastStream owns the clients' lives. Records are handed on as they came (the codec is the caller's),
in batches of what has already arrived. A handler that fails ends the process: going on would pass
over a record, and the log is there to be read again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Sequence,
)
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.structs import RecordMetadata
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from services.kit.cluster import Cluster
from services.kit.gaps import Gaps
from services.kit.mends import mend_aiokafka

BATCH_RECORDS: Final = 500
SESSION_MS: Final = 6_000  # The broker's least: a killed member's partitions move on after it.
HEARTBEAT_MS: Final = 300  # So soon a member hears that another has gone, and takes its partitions.
REQUEST_MS: Final = 30_000
RETRY_MS: Final = 50
LONGEST_HANDLING_MS: Final = 300_000
FETCH_WAIT_MS: Final = 500  # Only how long an idle fetch may hang; data answers it at once.
BUSY_WAIT_MS: Final = 25  # aiokafka asks a broker for one thing at a time: while it waits for news
# of idle partitions, a busy one that was just read empty waits too.
PARTITION_BYTES: Final = 4 * 1_048_576  # A few thousand records: fewer such moments in a backlog.
VIEW_WAIT_MS: Final = 100  # A view may be this late, and leaves the cores to who must be quick.
VIEW_BYTES: Final = 1_048_576
GOODBYE_S: Final = 3.0
LOOK_S: Final = 0.05
REQUEST_BYTES: Final = 8 * 1_048_576

Record: TypeAlias = ConsumerRecord[Any, Any]
Handler = Callable[[Sequence[Record]], Awaitable[None]]
Crash = Callable[[str, BaseException | None], None]


def new_broker(cluster: Cluster, *, client_id: str) -> KafkaBroker:
    """Return a broker with one idempotent producer that waits for all replicas."""
    return KafkaBroker(
        cluster.servers.split(","),
        client_id=client_id,
        security=cluster.security,
        acks="all",  # An acknowledgement is a promise to the emitter.
        enable_idempotence=True,  # Keeps the order of what is in flight, and each record once.
        linger_ms=0,  # Latency is the product.
        request_timeout_ms=REQUEST_MS,
        retry_backoff_ms=RETRY_MS,
        max_request_size=REQUEST_BYTES,
        metadata_max_age_ms=30_000,  # A changed number of partitions is seen within half a minute.
        logger=None,  # It would log each message.
        apply_types=False,  # Injection runs parts of a handler in threads: a third of the latency.
        graceful_timeout=5.0,
    )


@asynccontextmanager
async def connected(broker: KafkaBroker) -> AsyncIterator[None]:
    """Connect; at the end stop every subscriber, and the producer when it has sent all."""
    await broker.connect()
    try:
        yield
    finally:
        await leave(broker.stop, patience_s=GOODBYE_S)


async def leave(goodbye: Callable[[], Awaitable[None]], *, patience_s: float) -> None:
    """Stop a client without waiting for ever: uvloop waits up to 30 s for the other end of TLS."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(patience_s):
            await goodbye()


def subscribe(
    broker: KafkaBroker,
    topic: str,
    handler: Handler,
    *,
    crash: Crash,
    group: str | None = None,
    instance: str = "",
    listener: Rebalance | None = None,
    view: bool = False,
    busy: bool = False,
    batch_records: int = BATCH_RECORDS,
) -> Subscription:
    """Read a topic: in a consumer group, or without one all of it from its beginning.

    A `view` is for people to look at: it takes what has come every tenth of a second. A `busy`
    one has several partitions and must be quick on each of them.
    """
    subscriber = broker.subscriber(
        topic,
        group_id=group,
        group_instance_id=f"{instance}-{topic}" if group and instance else None,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.MANUAL,  # Committed by whoever knows what is settled.
        isolation_level="read_uncommitted",  # There are no transactions on our topics.
        session_timeout_ms=SESSION_MS,
        heartbeat_interval_ms=HEARTBEAT_MS,
        max_poll_interval_ms=LONGEST_HANDLING_MS,
        fetch_max_wait_ms=VIEW_WAIT_MS if view else BUSY_WAIT_MS if busy else FETCH_WAIT_MS,
        max_partition_fetch_bytes=PARTITION_BYTES,
        fetch_min_bytes=VIEW_BYTES if view else 1,
        listener=listener,
        decoder=_as_it_came,
    )
    subscription = Subscription(subscriber, topic, Gaps(from_start=group is None))
    if listener is not None:
        listener.forget = subscription.gaps.forget

    async def on_first(message: KafkaMessage) -> None:
        # FastStream's own batches sleep after an empty poll, which would be the pause latency: so
        # it waits for one record, and what else has arrived by then is taken along.
        subscription.in_hand = True
        try:
            consumer = subscription.consumer
            first = message.raw_message
            assert not isinstance(first, tuple)
            more = await consumer.getmany(timeout_ms=0, max_records=batch_records - 1)
            records = [first, *(r for found in more.values() for r in found)]
            ours = await still_ours(consumer, records) if group else records
            if follow := subscription.gaps.see(consumer, ours):
                await handler(follow)
            await asyncio.sleep(0)  # What waits already comes at once: others have their turn.
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # FastStream would log it and go on behind the record.
            crash(f"a handler of {topic} failed", error)
        finally:
            subscription.in_hand = False

    subscriber(on_first)
    return subscription


async def still_ours(consumer: Any, records: Sequence[Record]) -> list[Record]:
    """Return the records that a consumer has indeed passed: a rebalance may have come since, or a seek.

    What was sought back will come again, or has come in the same batch; what went to another member is its own.
    """
    assigned = {tp.partition: tp for tp in consumer.assignment()}
    passed = {
        partition: await consumer.position(assigned[partition])
        for partition in {record.partition for record in records} & assigned.keys()
    }
    ours, next_ = list[Record](), dict[int, int]()
    for record in reversed(records):
        partition, offset = record.partition, record.offset
        if offset < min(passed.get(partition, 0), next_.get(partition, offset + 1)):
            ours.append(record)
            next_[partition] = offset
    return ours[::-1]


class Subscription:
    """One subscriber's consumer: to commit, to seek, to see how far it is."""

    def __init__(self, subscriber: Any, topic: str, gaps: Gaps) -> None:
        self._subscriber, self.topic, self.gaps = subscriber, topic, gaps
        self.in_hand = False  # Between a batch's arrival and the end of its handler.

    @property
    def consumer(self) -> Any:
        """Return the AIOKafkaConsumer; only while the broker runs."""
        consumer = self._subscriber.consumer
        assert consumer is not None, "the broker is not started"
        return consumer

    async def start(self) -> None:
        """Begin to read, where the broker had started before; may be tried again where Kafka does not answer."""
        try:
            await self._subscriber.start()
        except BaseException:
            await self._subscriber.stop()
            raise

    def seek(self, partition: int, offset: int) -> None:
        """Go on from there, where the partition is ours."""
        tp = TopicPartition(self.topic, partition)
        if tp in self.consumer.assignment():
            self.consumer.seek(tp, offset)
            self.gaps.goes_on(partition, offset)

    async def lag(self) -> int:
        """Return how many records are there that were not handed on yet."""
        ends = await self.consumer.end_offsets(self.consumer.assignment())
        return sum([max(0, end - await self.consumer.position(tp)) for tp, end in ends.items()])

    async def read_up(self) -> None:
        """Wait until what there is now has been handled, however much comes meanwhile."""
        while not self.consumer.assignment():  # noqa: ASYNC110  # aiokafka has no event for it.
            await asyncio.sleep(LOOK_S)
        for tp, end in (await self.consumer.end_offsets(self.consumer.assignment())).items():
            while await self.consumer.position(tp) < end or self.in_hand:  # noqa: ASYNC110  # Nor for this.
                await asyncio.sleep(LOOK_S)


class Rebalance(ConsumerRebalanceListener):
    """A rebalance listener from two functions, each handed partition numbers."""

    def __init__(
        self,
        *,
        assigned: Callable[[Collection[int]], Awaitable[None]],
        revoked: Callable[[Collection[int]], Awaitable[None]],
        crash: Crash,
    ) -> None:
        self._assigned, self._revoked, self._crash = assigned, revoked, crash
        self.forget: Callable[[], None] = lambda: None  # Where one was.

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self.forget()
        await self._run(self._assigned, assigned)

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._run(self._revoked, revoked)

    async def _run(
        self,
        act: Callable[[Collection[int]], Awaitable[None]],
        partitions: Iterable[TopicPartition],
    ) -> None:
        try:
            await act(sorted(tp.partition for tp in partitions))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # aiokafka would log it and go on without our state.
            self._crash("a rebalance failed", error)


async def emit(
    broker: KafkaBroker,
    topic: str,
    value: bytes,
    *,
    headers: dict[str, str],
    key: str | None = None,
    partition: int | None = None,
) -> asyncio.Future[RecordMetadata]:
    """Hand one record to the producer; the future is done when the brokers acknowledged it."""
    return await broker.publish(
        value,
        topic,
        key=None if key is None else key.encode(),
        partition=partition,
        headers=headers,
        no_confirm=True,
        correlation_id=headers.get("ce_id"),  # Else it draws a random one for each record.
    )


@asynccontextmanager
async def background(crash: Crash, *loops: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    """Run endless loops beside a service: cancelled at its end; one that ends before, ends it."""

    async def run(loop: Coroutine[Any, Any, Any]) -> None:
        try:
            await loop
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            crash(f"the loop {getattr(loop, '__qualname__', loop)} failed", error)

    tasks = [asyncio.create_task(run(loop)) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _as_it_came(message: Any) -> Any:
    return message


mend_aiokafka()
logging.getLogger("aiokafka").setLevel(logging.ERROR)
