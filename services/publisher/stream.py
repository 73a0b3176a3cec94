"""Kafka in and out of the publisher: fences out, holds and echoes in; due posts in, outcomes out.

| topic | consumed by | what happens |
| --- | --- | --- |
| ops.holds | `on_holds` | all of it, in order, without a group: holds and our fences' echoes |
| ops.incidents | `on_incidents` | the view behind the public page |
| posts.due | `on_due` | offers, settled by the delivery of their account, behind the gate |
| status.updates | `on_updates` | a subscriber and tasks of its own: nothing makes an update wait |

A record of the last two is committed when its posts are settled, and not before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from faststream.kafka import KafkaBroker
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from schemas import envelope
from schemas.base import Record
from schemas.disruptions import Fence as FenceRecord
from schemas.holds import FencePassed, HoldOpened, HoldReleased, OpenHolds
from schemas.incidents import Incident, StatusUpdate
from schemas.posts import DuePost, Post, RetractPost
from schemas.topics import (
    DISRUPTIONS,
    DUE,
    FENCE_KEY,
    HOLDS,
    INCIDENTS,
    UPDATES,
    Topic,
)
from services.kit import broker as kafka
from services.kit.cluster import Cluster
from services.kit.telemetry import Clock, trace_id
from services.publisher.accounts import AnyAccount, known_as, posts_of
from services.publisher.delivery import Delivery
from services.publisher.fence import VOID_AFTER_S, Fence, begin
from services.publisher.gate import Cleared, Passed, Verdict, Waiting, judge
from services.publisher.history import History
from services.publisher.job import Job
from services.publisher.outbox import Outbox
from services.publisher.page import Incidents
from services.publisher.partitions import Partitions
from services.publisher.queues import Queues

GROUP_DUE: Final = "publisher"
GROUP_UPDATES: Final = "publisher-updates"
HOLD_RECORDS: Final = 5_000  # At a start there may be a million.
FENCE_GAP_S: Final = 0.02  # Not more often than this, however many offers wait.
PROBE_S: Final = 2.0  # An idle system measures its pause latency by a fence all the same.
READY_FENCE_S: Final = 3 * PROBE_S
FENCE_RETRY_S: Final = 0.5
UNWRITTEN_S: Final = 60.0
RESUME_EVERY_S: Final = 15.0
RESUME_AFTER_S: Final = 60.0  # Longer than a retraction that is worked on rests and asks.
BUCKETS: Final = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
log = structlog.get_logger()


class Stream:
    """The publisher's consumers, its fences, and the queue of each account."""

    def __init__(
        self,
        broker: KafkaBroker,
        *,
        cluster: Cluster,
        publisher: str,
        instance: str,
        accounts: Mapping[str, AnyAccount],
        lease_s: float,
        clock: Clock,
        registry: CollectorRegistry,
        crash: kafka.Crash,
    ) -> None:
        self.broker, self.publisher, self.lease_s = broker, publisher, lease_s
        self.accounts, self.clock, self.crash = dict(accounts), clock, crash
        self.cluster = cluster
        self.counted = Partitions(cluster, DISRUPTIONS)
        self.delivery: Delivery
        self.holds = OpenHolds()
        self.history: History | None = History()  # Until our first echo is read.
        self.incidents = Incidents()
        self.on_change: Callable[[], None] = lambda: None
        self.fence: Fence | None = None
        self.passed: Passed | None = None
        self.waiting_count = 0
        self._number, self._written_s = 0, clock.monotonic_s()
        self._own_echo = f"{FENCE_KEY}{publisher}/".encode()
        self._bell = asyncio.Event()
        self._wanted = asyncio.Event()
        self._take_backs: set[asyncio.Task[None]] = set()
        self._saying: set[str] = set()
        self._add_metrics(registry)
        self.outbox = Outbox(broker, clock=clock, registry=registry)
        kafka.subscribe(broker, HOLDS.name, self.on_holds, crash=crash, batch_records=HOLD_RECORDS)
        kafka.subscribe(broker, INCIDENTS.name, self.on_incidents, view=True, crash=crash)
        groups: dict[str, Any] = {"instance": instance, "crash": crash}
        self.due = Queues(broker, DUE, self.on_due, group=GROUP_DUE, **groups)
        self.updates = Queues(broker, UPDATES, self.on_updates, group=GROUP_UPDATES, **groups)

    def _add_metrics(self, registry: CollectorRegistry) -> None:
        self.fence_seconds = Histogram(
            "interlock_fence_seconds", "Fence round trip.", buckets=BUCKETS, registry=registry
        )
        self.fences = Counter(
            "interlock_fences_total", "Fences by their end.", ["end"], registry=registry
        )
        self.hold_seconds = Histogram(
            "interlock_hold_seconds",
            "From a disruption's broker time to its hold in force here.",
            buckets=BUCKETS,
            registry=registry,
        )
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "interlock_waiting_offers": ("Offers at the gate.", lambda: self.waiting_count),
            "interlock_open_holds": ("Holds now open.", lambda: len(self.holds)),
            "interlock_fence_age_seconds": ("Since the last passed fence.", self.fence_age_s),
        }
        for name, (text, value) in gauges.items():
            Gauge(name, text, registry=registry).set_function(value)

    def deliver_by(self, delivery: Delivery) -> None:
        """Hand every post to this delivery, which asks us as its gate."""
        self.delivery = delivery
        for queues in (self.due, self.updates):
            queues.settle = delivery.settle
        # An incident's updates stay in their order; how many offers may overlap, the channel says.
        self.due.parallel = lambda account: (
            delivery.channels[account].capabilities.parallel if account in delivery.channels else 1
        )

    def say(self, post: Post) -> None:
        """Say an update of our own, which is in no topic: its reason and its intent are in the ledger."""
        if post.post_id not in self._saying:
            self._saying.add(post.post_id)
            self._spawn(self._say(post))

    async def _say(self, post: Post) -> None:
        try:
            await self.delivery.settle(Job(post, 1, lambda: None))
        finally:
            self._saying.discard(post.post_id)

    async def start(self) -> None:
        """Begin to read and write."""
        await self.broker.start()
        for name, channel in self.delivery.channels.items():
            await self.outbox.emit_account(
                known_as(name, self.accounts[name], channel.capabilities)
            )

    def judge(self, post: Post) -> Verdict:
        """Judge a post by what is known now; one that waits asks for a fence."""
        verdict = judge(
            post,
            open_holds=self.holds,
            passed=self.passed,
            now_s=self.clock.monotonic_s(),
            now=self.clock.now(),
            lease_s=self.lease_s,
        )
        if isinstance(verdict, Waiting) or self._is_half_spent(verdict):
            self._wanted.set()
        return verdict

    def _is_half_spent(self, verdict: Verdict) -> bool:
        # While offers flow the next fence is begun before this one is too old: none has to wait.
        return (
            isinstance(verdict, Cleared)
            and verdict.post.kind == "offer"
            and self.fence_age_s() > self.lease_s / 2
        )

    async def changed(self) -> None:
        """Wait until a fence has passed or a hold has opened or ended."""
        self.waiting_count += 1
        try:
            async with asyncio.timeout(PROBE_S):  # A latest useful time passes without a bell.
                await self._bell.wait()
        except TimeoutError:
            return
        finally:
            self.waiting_count -= 1

    def _ring(self) -> None:
        self._bell.set()
        self._bell = asyncio.Event()

    def fence_age_s(self) -> float:
        """Return seconds since the newest passed fence was begun; infinite where none has."""
        return self.clock.monotonic_s() - self.passed.begun_s if self.passed else float("inf")

    async def keep_fences(self) -> None:
        """Begin a fence whenever offers wait, and now and then, for ever."""
        while True:
            try:
                async with asyncio.timeout(PROBE_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            begun_s, begun_at = self.clock.monotonic_s(), self.clock.now()
            try:
                await self._one_fence(begun_s, begun_at)
            except Exception as error:  # Any of aiokafka's: without a fence offers wait.
                self.fences.labels("failed").inc()
                log.error("no fence", why=str(error) or type(error).__name__)
                if begun_s - self._written_s > UNWRITTEN_S:  # Our client may know no living broker.
                    self.crash(f"Kafka took no fence in {UNWRITTEN_S:.0f} s", error)
                await asyncio.sleep(FENCE_RETRY_S)
            await asyncio.sleep(max(0.0, begun_s + FENCE_GAP_S - self.clock.monotonic_s()))

    async def _one_fence(self, begun_s: float, begun_at: datetime) -> None:
        self._number += 1
        self.fence = begin(self._number, now_s=begun_s, partitions=DISRUPTIONS.partitions)
        # Behind its begin: is there a partition that no fence is written to?
        counted = asyncio.create_task(self.counted.must_be_as_declared())
        try:
            async with asyncio.timeout(VOID_AFTER_S):
                await self._write_fence()
                await counted
                while self.fence is not None and not self.fence.passed:
                    await self._bell.wait()
        finally:
            counted.cancel()
        fence, self.fence = self.fence, None
        now_s = self.clock.monotonic_s()
        assert fence is not None
        if fence.void(now_s):
            raise TimeoutError(f"fence {fence.number} took {now_s - begun_s:.1f} s and is void")
        self.passed = Passed(number=fence.number, begun_s=fence.begun_s, begun_at=begun_at)
        self.fence_seconds.observe(now_s - fence.begun_s)
        self.fences.labels("passed").inc()
        self._ring()

    async def _write_fence(self) -> None:
        record = FenceRecord(publisher=self.publisher, number=self._number)
        event_id = f"{self.publisher}-{self._number}"
        acks = [
            await self.outbox.emit(DISRUPTIONS, record, event_id, partition=partition)
            for partition in range(DISRUPTIONS.partitions)
        ]
        await asyncio.gather(*acks)
        self._written_s = self.clock.monotonic_s()

    async def on_holds(self, records: Sequence[kafka.Record]) -> None:
        for record in records:
            key = record.key or b""
            if key.startswith(FENCE_KEY.encode()) and not key.startswith(self._own_echo):
                continue
            if self.history is not None:
                if self.history.take(key, record.headers, record.value):
                    continue
                self._end_history(self.history)  # Our own echo: all before it was seen.
            found = _fact_of(record.headers, record.value, where=f"offset {record.offset}")
            self._on_fact(found.record, trace=trace_id(found.traceparent))

    def _end_history(self, history: History) -> None:
        """Read what is still open of all there was before our first echo."""
        self.holds.released_before(history.released)
        for hold_id, (headers, value) in history.still_open().items():
            found = _fact_of(headers, value, where=hold_id)
            assert isinstance(found.record, HoldOpened), "a key says what its record is"
            assert found.record.hold_id == hold_id, "a key says which hold its record is of"
            self._on_fact(found.record, trace=trace_id(found.traceparent))
        log.info("holds read", released=len(history.released), open=len(self.holds))
        self.history = None

    def _on_fact(self, fact: Record, *, trace: str) -> None:
        if isinstance(fact, FencePassed):
            assert fact.number <= self._number, "an echo of a fence that we have not begun"
            if self.fence is not None:
                self.fence = self.fence.echo(fact.number, fact.partition)
                if self.fence.passed:
                    self._ring()
            return
        assert isinstance(fact, HoldOpened | HoldReleased)
        if not self.holds.apply(fact):
            return
        log.info("hold", fact=type(fact).__name__, hold=fact.hold_id, trace=trace)
        self._ring()
        if isinstance(fact, HoldOpened):
            self._on_opened(fact)

    def _on_opened(self, hold: HoldOpened) -> None:
        if self.passed is not None:  # Before that it is history that we read.
            since_s = (self.clock.now() - hold.opened_at).total_seconds()
            self.hold_seconds.observe(max(0.0, since_s))
        self._spawn(self._take_back(hold))

    def _spawn(self, taking_back: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(taking_back)
        self._take_backs.add(task)
        task.add_done_callback(self._take_backs.discard)

    async def _take_back(self, hold: HoldOpened) -> None:
        while self.passed is None:  # Until then we do not know whether it was released since.
            await self._bell.wait()
        while hold.hold_id in self.holds:
            try:
                await self.delivery.take_back.take_back(hold)
            except Exception as error:  # The database's: the hold stands, and we try again.
                log.error("take-back", hold=hold.hold_id, error=str(error))
                await asyncio.sleep(PROBE_S)
            else:
                return

    async def _ask_back(self, asked: RetractPost, settled: Callable[[], None]) -> None:
        while True:
            try:
                await self.delivery.take_back.on_request(asked)
            except Exception as error:  # The database's: what was asked is asked again.
                log.error("take-back", post=asked.post_id, error=str(error))
                await asyncio.sleep(PROBE_S)
            else:
                settled()
                return

    async def keep_retractions(self) -> None:
        """End what another publisher began to take back and did not end, for ever."""
        while True:
            await asyncio.sleep(RESUME_EVERY_S)
            try:
                before = self.clock.now() - timedelta(seconds=RESUME_AFTER_S)
                await self.delivery.take_back.resume(before)
            except Exception as error:  # The database's: the next round comes.
                log.error("retractions", error=str(error))

    async def on_incidents(self, records: Sequence[kafka.Record]) -> None:
        for record in records:
            found = envelope.read(record.headers, record.value, allowed=(Incident,))
            if isinstance(found, envelope.Envelope):
                assert isinstance(found.record, Incident)
                self.incidents.keep(found.record)
        self.on_change()

    async def on_due(self, records: Sequence[kafka.Record]) -> None:
        for record in records:
            found = await self._read(DUE, record, *DUE.records)
            if found is None:
                continue
            if isinstance(found.record, RetractPost):
                self._spawn(self._ask_back(found.record, self.due.keep(record)))
                continue
            assert isinstance(found.record, DuePost)
            due = found.record
            self.due.take(record, [due.post], attempt=due.attempt, traceparent=found.traceparent)

    async def on_updates(self, records: Sequence[kafka.Record]) -> None:
        for record in records:
            found = await self._read(UPDATES, record, StatusUpdate)
            if found is not None:
                assert isinstance(found.record, StatusUpdate)
                posts = posts_of(found.record, self.accounts)
                self.updates.take(record, posts, attempt=1, traceparent=found.traceparent)

    async def _read(
        self, topic: Topic, record: kafka.Record, *models: type[Record]
    ) -> envelope.Envelope | None:
        found = envelope.read(record.headers, record.value, allowed=models)
        if isinstance(found, envelope.Envelope):
            return found
        await self.outbox.dead_letter(topic, record, found.error)
        return None

    async def not_ready(self) -> dict[str, str]:
        """Return what is missing before offers can flow, each with its reason."""
        missing: dict[str, str] = {}
        if self.fence_age_s() > READY_FENCE_S:
            missing["fence"] = "no fence has passed lately: offers wait, status updates go on"
        if not (self.due.assigned_once and self.updates.assigned_once):
            missing["assignment"] = "waiting for the groups to hand out partitions"
        return missing

    async def stop(self) -> None:
        """End the tasks; what is not settled will be read again."""
        for task in self._take_backs:
            task.cancel()
        await asyncio.gather(*self._take_backs, return_exceptions=True)
        for queues in (self.due, self.updates):
            await queues.stop()
        await self.counted.aclose()


def _fact_of(
    headers: Sequence[tuple[str, bytes]], value: bytes | None, *, where: str
) -> envelope.Envelope:
    found = envelope.read(headers, value, allowed=HOLDS.records)
    if isinstance(found, envelope.Unreadable):
        raise TypeError(f"{HOLDS.name}, {where}: {found.error}")
    return found
