"""Kafka in and out of the detector: read a record, fold it, emit what it causes, remember.

| topic | consumed by | what happens |
| --- | --- | --- |
| ops.disruptions | `on_disruptions` | folded per partition, in order; outputs and echoes emitted |

All outputs so far are acknowledged before an echo is emitted, and they and all echoes before a
snapshot is written (`outbox.py`).
"""

from __future__ import annotations

import asyncio
from collections import Counter as CountOf
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import MessageSizeTooLargeError, RecordListTooLargeError
from aiokafka.partitioner import murmur2
from aiokafka.structs import RecordMetadata
from faststream.kafka import KafkaBroker
from prometheus_client import CollectorRegistry, Counter

from schemas import envelope
from schemas.base import Record
from schemas.disruptions import Deadline, Disruption, Fence, SourceRead
from schemas.holds import FencePassed
from schemas.signing import SigningKeys
from schemas.topics import DISRUPTIONS, key_of
from services.detector.deadlines import Deadlines
from services.detector.fold import fold, lost
from services.detector.outbox import Outbox
from services.detector.state import Entry, State, Step
from services.detector.store import SOURCE, Texts, read_snapshots, write_snapshot
from services.kit import broker as kafka
from services.kit.cluster import Cluster
from services.kit.telemetry import Clock, trace_id

GROUP = "detector"
SNAPSHOT_EVERY_S = 2.0  # A commit costs about 6 ms, and a replay of two seconds costs less.
READY_LAG_RECORDS = 1_000
SNAPSHOT_PART = 20  # A twentieth of the time, at most, is spent on them,
SNAPSHOT_LATEST_S = 30.0  # but a Kafka that was away does not put them off for long.
CLOCK_EVERY_S = 0.2
DEADLINE_AGAIN_S = 2.0  # A deadline that the fold did not act on is written again.
log = structlog.get_logger()


@dataclass(slots=True)
class Partition:
    """One partition in our hands: the state behind all records before `offset`."""

    state: State
    offset: int
    saved_offset: int
    deadlines: Deadlines = field(default_factory=Deadlines)
    looked_at: State | None = None  # For its deadlines, of which this is the first:
    next_at: datetime | None = None
    texts: Texts = field(default_factory=Texts)  # Of the last snapshot.

    def is_due(self, now: datetime) -> bool:
        """Say whether a deadline is due. All of them are looked at when the state has changed."""
        if self.looked_at is not self.state:
            self.looked_at, self.next_at = self.state, self.deadlines.first(self.state)
        return self.next_at is not None and self.next_at <= now


class Stream:
    """The detector's consumers and producers."""

    def __init__(
        self,
        broker: KafkaBroker,
        *,
        cluster: Cluster,
        instance: str,
        clock: Clock,
        registry: CollectorRegistry,
        crash: kafka.Crash,
        signing: SigningKeys | None = None,
    ) -> None:
        self.broker, self.cluster, self.clock, self.crash = broker, cluster, clock, crash
        self.signing = signing or SigningKeys()
        self.partitions: dict[int, Partition] = {}
        self.assigned_once, self.started_at = False, clock.now()
        self.losses = 0  # How often records were gone before we read them.
        self._folded: CountOf[str] = CountOf()
        self._one_at_a_time = asyncio.Lock()
        self._deadlines_written: dict[tuple[str, str], float] = {}
        self._writing: set[asyncio.Task[RecordMetadata]] = set()
        self.outbox = Outbox(broker, clock=clock, registry=registry, crash=crash)
        self.records = Counter(
            "interlock_detector_records_total", "Records folded.", ["type"], registry=registry
        )
        self.disruptions = kafka.subscribe(
            broker,
            DISRUPTIONS.name,
            self.on_disruptions,
            group=GROUP,
            instance=instance,
            busy=True,
            crash=crash,
            listener=kafka.Rebalance(
                assigned=self.on_assigned, revoked=self.on_revoked, crash=crash
            ),
        )

    async def on_disruptions(self, records: Sequence[kafka.Record]) -> None:
        async with self._one_at_a_time:
            fresh = await self._still_ours(records)
            await self._see_losses(fresh)
            echoes: list[tuple[FencePassed, str]] = []
            for record in fresh:
                step, found = await self._fold(record)
                for number, output in enumerate(step.outputs):
                    event_id = f"{record.partition}-{record.offset}-{number}"
                    if isinstance(output, FencePassed):
                        echoes.append((output, event_id))
                        continue
                    await self.outbox.emit(output, event_id, traceparent=found.traceparent)
                    await asyncio.sleep(0)  # A hold is on its way before the next is encoded.
                _log(record, found, step)
            self._count()
            if self.outbox.is_full:
                await self.outbox.settled()
            for echo, event_id in echoes:
                self.outbox.echo(echo, event_id)

    async def _still_ours(self, records: Sequence[kafka.Record]) -> list[kafka.Record]:
        """Return the records that come next; a rebalance may have passed while we waited for our turn."""
        passed = await kafka.still_ours(self.disruptions.consumer, records)
        ours = self.partitions
        return [r for r in passed if r.partition in ours and r.offset >= ours[r.partition].offset]

    async def _see_losses(self, records: Sequence[kafka.Record]) -> None:
        """Say so where Kafka went on behind records that are gone: its client does not."""
        for partition, first in {r.partition: r for r in reversed(records)}.items():
            ours, tp = self.partitions[partition], TopicPartition(DISRUPTIONS.name, partition)
            if first.offset == ours.offset:
                continue
            start = (await self.disruptions.consumer.beginning_offsets([tp]))[tp]
            if start > ours.offset:
                await self._say_lost(partition, ours, start=start, at=_appended_at(first))

    async def _fold(
        self, record: kafka.Record
    ) -> tuple[Step, envelope.Envelope | envelope.Unreadable]:
        ours = self.partitions[record.partition]
        read = envelope.read(record.headers, record.value, allowed=DISRUPTIONS.records)
        at = _appended_at(record)
        found = self.signing.proven(read, record.headers, record.value, appended_at=at)
        entry = Entry(
            partition=record.partition,
            offset=record.offset,
            at=at,
            body=found if isinstance(found, envelope.Unreadable) else found.record,
            event_id=found.event_id,
            source=found.source,
        )
        if isinstance(found, envelope.Unreadable):
            await self.outbox.dead_letter(record, found)
        step = fold(ours.state, entry)
        ours.state, ours.offset = step.state, record.offset + 1
        self._folded[type(entry.body).__name__] += 1
        return step, found

    def _count(self) -> None:
        """Tell the metrics what was folded: per batch, since a label costs as much as a fold."""
        for name, count in self._folded.items():
            self.records.labels(name).inc(count)
        self._folded.clear()

    async def on_assigned(self, partitions: Collection[int]) -> None:
        async with self._one_at_a_time:
            await self._restore({p for p in partitions if p not in self.partitions})
        self.assigned_once = True

    async def _restore(self, partitions: set[int]) -> None:
        if not partitions:
            return
        consumer = self.disruptions.consumer
        snapshots = await read_snapshots(self.cluster, partitions)
        starts = await consumer.beginning_offsets(
            [TopicPartition(DISRUPTIONS.name, p) for p in partitions]
        )
        for tp, start in starts.items():
            restored = snapshots.get(tp.partition)
            state, offset = (restored.state, restored.offset) if restored else (State(), 0)
            ours = Partition(state=state, offset=offset, saved_offset=offset)
            self.partitions[tp.partition] = ours
            # What is gone is seen with what comes.
            self.disruptions.seek(tp.partition, max(offset, start))
            log.info("restored", partition=tp.partition, offset=offset, start=start)

    async def _say_lost(self, partition: int, ours: Partition, *, start: int, at: datetime) -> None:
        """Hold everything since `at`, when what comes behind the gap was appended: our own clock may be anything."""
        self.losses += 1
        log.error("records lost", partition=partition, first=ours.offset, end=start)
        gone = envelope.Unreadable(error=f"{ours.offset} to {start} are gone")
        ours.offset = start
        # Its id comes from where the gap ends: a second detector that sees it says the same.
        entry = Entry(
            partition=partition,
            offset=start,
            at=at,
            body=gone,
            named_at=datetime.fromtimestamp(0, UTC),
        )
        if entry.new_id("hold") in ours.state.other_holds:
            return
        step = lost(ours.state, entry)
        ours.state = step.state
        for number, output in enumerate(step.outputs):
            await self.outbox.emit(output, f"lost-{partition}-{ours.offset}-{number}")

    async def on_revoked(self, partitions: Collection[int]) -> None:
        async with self._one_at_a_time:
            await self.outbox.so_far()
            for partition in partitions:
                if ours := self.partitions.get(partition):
                    await self._save(partition, ours.state, ours.offset)
                    del self.partitions[partition]

    async def keep_snapshots(self) -> None:
        """Write a snapshot of what has changed, every two seconds or, if it is large, less often, for ever."""
        took_s = 0.0
        while True:
            await asyncio.sleep(snapshot_pause_s(took_s))
            async with self._one_at_a_time:  # Between batches.
                said = self.outbox.so_far()
                taken = {p: (ours.state, ours.offset) for p, ours in self.partitions.items()}
            await said  # A lost broker stands in the way of the snapshot, and of no disruption.
            begun_s = self.clock.monotonic_s()
            for partition, (state, offset) in taken.items():
                await self._save(partition, state, offset)
            took_s = self.clock.monotonic_s() - begun_s

    async def _save(self, partition: int, state: State, offset: int) -> None:
        ours = self.partitions.get(partition)
        if ours is None or offset <= ours.saved_offset:
            return
        try:
            await write_snapshot(
                self.broker, partition=partition, offset=offset, state=state, texts=ours.texts,
                at=self.clock.now(),
            )  # fmt: skip
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:
            # Without it a restart replays more; to end here would be to restart for ever.
            log.error("the state is too large for a snapshot", partition=partition, why=str(error))
            return
        ours.saved_offset = offset
        tp = TopicPartition(DISRUPTIONS.name, partition)
        try:  # Only for whoever watches the group's lag: a restore reads the snapshot's offset.
            await self.disruptions.consumer.commit({tp: offset})
        except Exception as error:  # Any of aiokafka's: the group may be between two members.
            log.info("not committed", partition=partition, why=str(error))

    async def keep_time(self) -> None:
        """Write each deadline into the log when it is due, for ever."""
        while True:
            await asyncio.sleep(CLOCK_EVERY_S)
            for partition, ours in list(self.partitions.items()):
                if ours.is_due(self.clock.now()):
                    await self._write_due_deadlines(partition, ours)

    async def _write_due_deadlines(self, partition: int, ours: Partition) -> None:
        now, now_s = self.clock.now(), self.clock.monotonic_s()
        written = self._deadlines_written
        for deadline in ours.deadlines.until(ours.state, now):
            event_id = f"{deadline.kind}-{deadline.due_at.isoformat()}"
            name = (deadline.subject, event_id)
            if written.get(name, -DEADLINE_AGAIN_S) + DEADLINE_AGAIN_S > now_s:
                continue
            written[name] = now_s
            writing = asyncio.create_task(
                self.write(deadline, event_id=event_id, source=SOURCE, partition=partition)
            )
            self._writing.add(writing)  # A lost broker stands in the way of its own only.
            writing.add_done_callback(self._on_written)
        recent = now_s - 2 * DEADLINE_AGAIN_S
        self._deadlines_written = {k: v for k, v in written.items() if v > recent}

    def _on_written(self, writing: asyncio.Task[RecordMetadata]) -> None:
        self._writing.discard(writing)
        if not writing.cancelled() and writing.exception() is not None:
            self.crash("a deadline could not be written", writing.exception())

    async def write(
        self,
        record: Record,
        *,
        event_id: str,
        source: str,
        traceparent: str = "",
        partition: int | None = None,
    ) -> RecordMetadata:
        """Append a record to the log; the answer comes when the brokers acknowledged it."""
        at = self.clock.now()
        headers = envelope.write_headers(
            record, event_id=event_id, source=source, traceparent=traceparent, at=at
        )
        value = envelope.write_value(record)
        signed = self.signing.headers_of(record, value, event_id=event_id, source=source, at=at)
        future = await kafka.emit(
            self.broker,
            DISRUPTIONS.name,
            value,
            headers=headers | signed,
            key=key_of(record),
            partition=partition,
        )
        return await future

    def owns(self, network: str) -> bool:
        """Say whether the partition of a network is in our hands, by Kafka's own partitioner."""
        number = (murmur2(network.encode()) & 0x7FFFFFFF) % DISRUPTIONS.partitions
        return number in self.partitions

    async def not_ready(self) -> dict[str, str]:
        """Return what is missing before disruptions are folded as they come, with the reason.

        What is told of holds and incidents (`views.py`) waits by itself: events come first.
        """
        if not self.assigned_once:
            return {"assignment": "waiting for the group to hand out partitions"}
        lag = await self.disruptions.lag()
        return {"lag": f"{lag} records behind"} if lag > READY_LAG_RECORDS else {}


def _appended_at(record: kafka.Record) -> datetime:
    return datetime.fromtimestamp(record.timestamp / 1000, UTC)


def snapshot_pause_s(took_s: float) -> float:
    """Return how long to wait for the next snapshots when the last ones took so long."""
    return min(max(SNAPSHOT_EVERY_S, took_s * SNAPSHOT_PART), SNAPSHOT_LATEST_S)


def _log(record: kafka.Record, found: envelope.Envelope | envelope.Unreadable, step: Step) -> None:
    """Write one line about a record, behind its outputs; a system that says the same says too much."""
    body = found if isinstance(found, envelope.Unreadable) else found.record
    is_of_a_system = isinstance(body, Disruption | SourceRead | Deadline)
    if isinstance(body, Fence) or (is_of_a_system and not step.outputs):
        return
    log.info(
        "folded",
        record=type(body).__name__,
        partition=record.partition,
        offset=record.offset,
        outputs=[type(output).__name__ for output in step.outputs],
        trace=trace_id(found.traceparent),
    )
