"""What the detector remembers across a restart: its state at an offset, in a compacted topic."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from faststream.kafka import KafkaBroker
from pydantic import ValidationError
from rpds import HashTrieMap

from schemas import envelope
from schemas.snapshots import Snapshot
from schemas.topics import SNAPSHOTS, key_of
from services.detector.state import PerStory, State, dump, dump_story, load
from services.kit import broker as kafka
from services.kit.cluster import Cluster

READ_RECORDS = 100
GOODBYE_S = 0.1
SOURCE = "/detector"


@dataclass(frozen=True, slots=True)
class Restored:
    """The state behind all records before `offset`."""

    state: State
    offset: int


class Texts:
    """States as JSON, one after another: what is written down of a story is written anew where it has changed."""

    def __init__(self) -> None:
        self._of_stories = PerStory(lambda story: orjson.Fragment(dump_story(story)))

    def of(self, snapshot: Snapshot, state: State) -> bytes:
        """Return a snapshot with this state in it."""
        known = dump(replace(state, stories=HashTrieMap())) | {
            "stories": dict(self._of_stories.of(state))
        }
        return orjson.dumps(snapshot.model_dump(mode="json") | {"state": known})


async def write_snapshot(
    broker: KafkaBroker, *, partition: int, offset: int, state: State, texts: Texts, at: datetime
) -> None:
    """Write a snapshot; returns when the brokers acknowledged it."""
    snapshot = Snapshot(partition=partition, offset=offset, taken_at=at, state={})
    headers = envelope.write_headers(snapshot, event_id=f"{partition}-{offset}", source=SOURCE)
    # A state never changes: it is written down in a thread, while records go on being folded.
    value = await asyncio.to_thread(texts.of, snapshot, state)
    future = await kafka.emit(
        broker,
        SNAPSHOTS.name,
        value,
        headers=headers,
        key=key_of(snapshot),
    )
    await future


async def read_snapshots(cluster: Cluster, partitions: set[int]) -> dict[int, Restored]:
    """Return the newest snapshot of each partition that has one.

    Newest is the one at the highest offset: a detector that was paused may write an older one late.
    A snapshot that cannot be read raises: to begin without the state would be to forget holds.
    """
    consumer = AIOKafkaConsumer(
        **cluster.options(),
        group_id=None,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    newest: dict[int, Snapshot] = {}
    try:
        tp = TopicPartition(SNAPSHOTS.name, 0)
        consumer.assign([tp])
        end = (await consumer.end_offsets([tp]))[tp]
        await consumer.seek_to_beginning(tp)
        while await consumer.position(tp) < end:
            batch = await consumer.getmany(tp, timeout_ms=1_000, max_records=READ_RECORDS)
            for record in batch.get(tp, ()):
                snapshot = _read(record)
                known = newest.get(snapshot.partition)
                if known is None or snapshot.offset >= known.offset:
                    newest[snapshot.partition] = snapshot
    finally:
        # Nobody is served until we are through, and by its heartbeats the group waits for us.
        await kafka.leave(consumer.stop, patience_s=GOODBYE_S)
    return {p: _restored(newest[p]) for p in sorted(partitions & newest.keys())}


def _read(record: kafka.Record) -> Snapshot:
    found = envelope.read(record.headers, record.value, allowed=(Snapshot,))
    if isinstance(found, envelope.Unreadable):
        raise TypeError(f"{SNAPSHOTS.name}, offset {record.offset}: {found.error}")
    assert isinstance(found.record, Snapshot)
    return found.record


def _restored(snapshot: Snapshot) -> Restored:
    try:
        return Restored(load(snapshot.state), snapshot.offset)
    except ValidationError as error:
        raise TypeError(
            f"the snapshot of partition {snapshot.partition} is of another version: "
            f"{envelope.in_words(error)}"
        ) from error
