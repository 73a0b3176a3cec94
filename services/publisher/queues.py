"""Posts in hand, and commits; `turns.py` says whose turn it is.

Where ten thousand offers of an account are in hand, more of them are passed over until there is room (`passed.py`); where
so many updates are, the partitions that feed it rest.
A record is committed when all its posts are settled, so that a publisher that dies loses none. One that ends, or
hands partitions to another, lets what it has begun to send come to its end: nobody else could know what became of it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Final

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from faststream.kafka import KafkaBroker

from schemas.posts import Post
from schemas.topics import Topic
from services.kit import broker as kafka
from services.publisher.job import Job
from services.publisher.offsets import Offsets
from services.publisher.passed import Passed
from services.publisher.turns import Turns

COMMIT_EVERY_S: Final = 1.0
JOIN_AGAIN_S: Final = 1.0
QUEUE_JOBS: Final = 10_000  # In hand of one queue; then it is full.
BATCH_RECORDS: Final = 100  # Read in one go: the loop belongs to others as well.
RESUME_JOBS: Final = 5_000  # Then it has room again.
HAND_OVER_S: Final = 1.0  # So long a group waits for sends: nearly all take less.
END_S: Final = 8.0  # And so long an end does; whoever kills it sooner leaves doubts.
log = structlog.get_logger()


class Queues:
    """One topic with a group: its records in hand, until whoever gives them their turn has settled them."""

    subscription: kafka.Subscription
    _subscribe: Callable[[], kafka.Subscription]

    def __init__(self, topic: Topic, *, group: str, crash: kafka.Crash) -> None:
        self.topic, self.group, self.crash = topic, group, crash
        self.turns: Turns
        self.leave: Callable[[Job], Awaitable[None]]
        self.passes_over = False  # A record makes one post, and its key is the queue's name.
        self.assigned_once = False
        self._offsets = Offsets()
        self._ours: set[int] = set()
        self._is_ending = False
        self._jobs: dict[int, set[Job]] = {}
        self._in_hand: defaultdict[str, set[Job]] = defaultdict(set)  # By account, until settled.
        self._passed: defaultdict[int, Passed] = defaultdict(Passed)
        self._resting: dict[str, set[int]] = {}  # An account to paused partitions.

    def read(
        self, broker: KafkaBroker, handler: kafka.Handler, *, instance: str, at_once: bool
    ) -> None:
        """Join the group when the broker starts, or by `join`. Else the queues stay empty, and the topic is others'."""
        rebalance = kafka.Rebalance(
            assigned=self._on_assigned, revoked=self._on_revoked, crash=self.crash
        )
        self._subscribe = partial(
            kafka.subscribe, broker, self.topic.name, handler, group=self.group, instance=instance,
            batch_records=BATCH_RECORDS, listener=rebalance, crash=self.crash,
        )  # fmt: skip
        if at_once:
            self.subscription = self._subscribe()

    async def join(self) -> None:
        """Join the group as soon as Kafka answers: what we carry besides goes on meanwhile."""
        self.subscription = self._subscribe()
        while True:
            try:
                await self.subscription.start()
            except KafkaConnectionError as error:
                log.warning("Kafka does not answer", topic=self.topic.name, error=str(error))
                await asyncio.sleep(JOIN_AGAIN_S)
            else:
                return

    def take(
        self, record: kafka.Record, posts: list[Post], *, attempt: int, traceparent: str
    ) -> None:
        """Queue a record's posts; the record is settled when all of them are.

        One of a partition that went to another while it was on its way to us is that one's.
        """
        partition, offset = record.partition, record.offset
        if partition not in self._ours or self._is_ending:
            return
        if self.passes_over and not self._admits(record, posts[0].account):
            return
        done = self._offsets.begin(partition, offset)
        if not posts:
            done()
        left = len(posts)

        def settled(job: Job) -> None:
            nonlocal left
            left -= 1
            if not left:
                done()
            self._jobs.get(partition, set()).discard(job)
            self._let_go(job.post.account, {job})

        for post in posts:
            job = Job(post, attempt, settled, traceparent, steps_aside=True)
            self._jobs.setdefault(partition, set()).add(job)
            self._in_hand[post.account].add(job)
            self.turns.put(job)
            self._rest(post.account, partition)

    def _admits(self, record: kafka.Record, name: str) -> bool:
        passed = self._passed[record.partition]
        if _name_in(record) != name:  # By its key it would not be found again.
            return passed.is_new(record.offset)
        return passed.admits(name, record.offset, has_room=len(self._in_hand[name]) < QUEUE_JOBS)

    def is_new(self, record: kafka.Record) -> bool:
        """Say whether a record comes for the first time, and not again for what was passed over."""
        return self._passed[record.partition].is_new(record.offset)

    def wants(self, record: kafka.Record) -> bool:
        """Say whether a record has to be looked at."""
        return self.is_new(record) or _name_in(record) in self._passed[record.partition].floors

    def went_by(self, record: kafka.Record) -> None:
        """Note that a record was looked at, whatever it was; where a reading ends early, go on where we were."""
        if record.partition not in self._ours or self._is_ending:
            return  # It was not taken, whatever room there was.
        go_on = self._passed[record.partition].went_by(record.offset)
        if go_on is not None:
            self.subscription.seek(record.partition, go_on)

    def read_again(self) -> None:
        """Read once more what was passed over, where there is room; between two batches, for a place is changed."""
        if not self._ours or self._is_ending or self.subscription.in_hand:
            return
        for tp in self.subscription.consumer.assignment():
            begin = self._passed[tp.partition].begin_again(
                lambda name: len(self._in_hand[name]) <= RESUME_JOBS
            )
            if begin is not None:
                self.subscription.seek(tp.partition, begin)

    def keep(self, record: kafka.Record) -> Callable[[], None]:
        """Keep a record that makes no post until the function that is returned is called."""
        if record.partition not in self._ours or self._is_ending:
            return lambda: None
        return self._offsets.begin(record.partition, record.offset)

    def _rest(self, name: str, partition: int) -> None:
        if self.passes_over or len(self._in_hand[name]) < QUEUE_JOBS:
            return
        self._resting.setdefault(name, set()).add(partition)
        self.subscription.consumer.pause(TopicPartition(self.topic.name, partition))

    def _let_go(self, name: str, jobs: set[Job]) -> None:
        """Have these no longer in hand; what rests goes on where there is room again."""
        self._in_hand[name] -= jobs
        if not self._resting.get(name) or len(self._in_hand[name]) > RESUME_JOBS:
            return
        rested = self._resting.pop(name)
        still = set().union(*self._resting.values())
        consumer = self.subscription.consumer
        back = {TopicPartition(self.topic.name, p) for p in rested - still}
        consumer.resume(*(back & consumer.assignment()))

    async def keep_commits(self) -> None:
        """Commit what is settled, and look for room for what was passed over, every second, for ever."""
        while True:
            await asyncio.sleep(COMMIT_EVERY_S)
            await self._commit()
            self.read_again()

    async def _commit(self) -> None:
        offsets = self._offsets.committable(lambda partition: self._passed[partition].floor)
        if not offsets:
            return
        try:
            await self.subscription.consumer.commit(
                {TopicPartition(self.topic.name, p): offset for p, offset in offsets.items()}
            )
        except Exception as error:  # Any of aiokafka's: whoever has the partition reads it again.
            log.warning("not committed", topic=self.topic.name, why=str(error))
        else:
            self._offsets.committed(offsets)

    async def _on_assigned(self, partitions: Collection[int]) -> None:
        self.assigned_once, self._ours = True, set(partitions)
        self._passed.clear()  # They are read from where they were committed.
        log.info("assigned", topic=self.topic.name, partitions=list(partitions))

    async def _on_revoked(self, partitions: Collection[int]) -> None:
        self._ours -= set(partitions)
        await self._hand_over(partitions, patience_s=HAND_OVER_S)
        await self._commit()
        for partition in partitions:
            self._offsets.forget(partition)
            self._passed.pop(partition, None)
            for rested in self._resting.values():
                rested.discard(partition)

    async def _hand_over(self, partitions: Collection[int], *, patience_s: float) -> None:
        """Begin no more of these partitions' sends, and let those under way come to their end."""
        jobs = [job for partition in partitions for job in self._jobs.pop(partition, set())]
        under_way = [job for job in jobs if job.under_way]
        rest = asyncio.Semaphore(0)
        for job in jobs:
            job.dropped, job.on_rest = True, rest.release
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                for _ in under_way:
                    await rest.acquire()
        for job in jobs:
            await self.leave(job)
        for name in list(self._in_hand):
            self._let_go(name, set(jobs))

    async def end(self) -> None:
        """Take no more, and let what is under way come to its end; fences must still come."""
        self._is_ending = True
        await self._hand_over(list(self._jobs), patience_s=END_S)

    async def stop(self) -> None:
        """End the tasks and commit what they settled."""
        await self.turns.stop()
        await self._commit()


def _name_in(record: kafka.Record) -> str:
    return (record.key or b"").decode(errors="replace")
