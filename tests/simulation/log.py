"""Kafka in memory: what its contract says, and the delays and faults that it allows.

With `clients.py` it stands where aiokafka and FastStream's broker stand, so that `services.kit.broker`
runs as it is.
One leader per partition, one order; an idempotent producer keeps its own order; a group hands each
partition to one member, which another may believe to be its own until it hears of it.
`tests/contracts/test_log.py` asks the same of this and of a real broker.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from tests.simulation.loop import EPOCH, Loop, Process

SLOW: Final = 0.05  # How often something takes long.
SESSION_S: Final = 1.0  # Shorter than in life, so that a schedule sees what follows.


@dataclass(slots=True, kw_only=True)
class Stored:
    """One record of the log, with the fields of aiokafka's ConsumerRecord that are read."""

    topic: str
    partition: int
    offset: int
    timestamp: int  # Milliseconds.
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


@dataclass(slots=True)
class Partition:
    """One partition; compaction leaves holes, retention moves `start`."""

    records: list[Stored | None] = field(default_factory=list)
    start: int = 0

    @property
    def end(self) -> int:
        return len(self.records)


class Log:
    """The cluster: its topics, groups, and how long things take."""

    def __init__(self, loop: Loop, chance: random.Random, topics: Mapping[str, int]) -> None:
        self.loop, self.chance = loop, chance
        self.topics = {name: [Partition() for _ in range(n)] for name, n in topics.items()}
        self.groups: dict[tuple[str, str], Group] = {}
        self.waiting: dict[str, list[asyncio.Future[None]]] = {name: [] for name in topics}
        self.on_append: Callable[[Stored], None] = lambda _: None
        self.is_up = True
        self.cut_off: set[Process] = set()
        self.slow = SLOW
        self.fails = 0.0  # How often a batch cannot be written, for good.

    def delay_s(self) -> float:
        """Draw how long one step of the network or a disk takes."""
        if self.chance.random() < self.slow:
            return self.chance.uniform(0.01, 1.5)
        return self.chance.uniform(0.0003, 0.004)

    def reaches(self, process: Process | None) -> bool:
        """Say whether a process and the brokers hear of each other."""
        return self.is_up and process not in self.cut_off

    def append(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None,
        headers: tuple[tuple[str, bytes], ...],
    ) -> Stored:  # fmt: skip
        """Append a record; the log's own time is the only one a record has."""
        found = self.topics[topic][partition]
        at = EPOCH.timestamp() + self.loop.now_s
        stored = Stored(
            topic=topic, partition=partition, offset=found.end, timestamp=int(at * 1000),
            key=key, value=value, headers=headers,
        )  # fmt: skip
        found.records.append(stored)
        waiting, self.waiting[topic] = self.waiting[topic], []
        for one in waiting:
            if not one.done():
                one.set_result(None)
        self.on_append(stored)
        return stored

    def compact(self, topic: str, *, older_than_s: float) -> int:
        """Run the cleaner: of equal keys that are old enough the last stays. Returns how many went."""
        before_ms = int((EPOCH.timestamp() + self.loop.now_s - older_than_s) * 1000)
        gone = 0
        for partition in self.topics[topic]:
            newest = {
                r.key: r.offset
                for r in partition.records
                if r and r.key and r.timestamp < before_ms
            }
            for offset, record in enumerate(partition.records):
                if record and record.key and newest.get(record.key, offset) > offset:
                    partition.records[offset] = None
                    gone += 1
        return gone

    def delete(self, topic: str, partition: int, before: int) -> None:
        """Let retention remove what stands before an offset."""
        found = self.topics[topic][partition]
        found.start = max(found.start, before)
        found.records[: found.start] = [None] * found.start


class Member(Protocol):
    """Whoever reads in a group."""

    name: str
    process: Process
    generation: int


class Group:
    """One consumer group's coordinator: a rebalance waits for all members, or for their sessions."""

    def __init__(self, log: Log, topic: str) -> None:
        self.log, self.topic = log, topic
        self.members: dict[str, Member] = {}
        self.heard_s: dict[str, float] = {}
        self.joined: dict[str, asyncio.Future[list[int]]] = {}
        self.committed: dict[int, int] = {}
        self.generation = 0
        log.loop.outside(SESSION_S / 2, self._look)

    def hear(self, consumer: Member) -> int:
        """Take a heartbeat; the answer is the generation that there is now."""
        if self.members.get(consumer.name) is consumer:
            self.heard_s[consumer.name] = self.log.loop.now_s
        return self.generation

    def join(self, consumer: Member) -> asyncio.Future[list[int]]:
        """Take a member in. One of the same instance is a restart, and takes the other's place."""
        if self.members.get(consumer.name) is not consumer:
            self.members[consumer.name] = consumer
            self._begin()
        self.heard_s[consumer.name] = self.log.loop.now_s
        self.joined[consumer.name] = self.log.loop.create_future()
        answer = self.joined[consumer.name]
        self._maybe_hand_out()
        return answer

    def _begin(self) -> None:
        """Begin a rebalance: who has joined waits for those who have not heard of it yet."""
        self.generation += 1

    def _look(self) -> None:
        gone = [name for name in self.members if self._is_gone(name)]
        for name in gone:
            del self.members[name]
            self.joined.pop(name, None)
        if gone:
            self._begin()
            self._maybe_hand_out()
        self.log.loop.outside(SESSION_S / 2, self._look)

    def _is_gone(self, name: str) -> bool:
        if name in self.joined and self.members[name].process.is_alive:
            return False  # Whoever waits for the others to join is not asked for heartbeats.
        return self.log.loop.now_s - self.heard_s[name] > SESSION_S

    def _maybe_hand_out(self) -> None:
        if set(self.joined) != set(self.members):
            return
        names, count = sorted(self.members), len(self.log.topics[self.topic])
        waiting, self.joined = self.joined, {}
        for number, name in enumerate(names):
            mine = [p for p in range(count) if p % len(names) == number]
            self.members[name].generation = self.generation
            if not waiting[name].done():
                waiting[name].set_result(mine)
