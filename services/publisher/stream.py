"""Kafka into the publisher, topic by topic; and the tasks that are nobody's post: take-backs, sayings.

| topic | consumed by | what happens |
| --- | --- | --- |
| ops.holds | `Gatekeeper.on_holds` | all of it, in order, without a group: holds and our fences' echoes |
| ops.incidents | `on_incidents` | the view behind the public page |
| posts.due | `on_due` | offers, settled by the delivery of their account, behind the gate |
| status.updates | `on_updates` | a subscriber and tasks of its own: nothing makes an update wait |

A record of the last two is committed when its posts are settled, and not before. A publisher may carry one
of the two alone: beside offers that keep its loop busy an update would wait for its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, TypeAlias

import structlog
from faststream.kafka import KafkaBroker
from prometheus_client import CollectorRegistry, Gauge

from schemas import envelope
from schemas.base import Record
from schemas.holds import HoldOpened
from schemas.incidents import Incident, StatusUpdate
from schemas.posts import DuePost, Post, RetractPost
from schemas.topics import (
    DISRUPTIONS,
    DUE,
    HOLDS,
    INCIDENTS,
    UPDATES,
)
from services.kit import broker as kafka
from services.kit.cluster import Cluster
from services.publisher.accounts import AnyAccount, known_as, posts_of
from services.publisher.brokers_clock import BrokersClock
from services.publisher.delivery import Delivery
from services.publisher.fences import PROBE_S
from services.publisher.gatekeeper import Gatekeeper
from services.publisher.job import Job
from services.publisher.outbox import Outbox
from services.publisher.page import Incidents
from services.publisher.partitions import Partitions
from services.publisher.queues import Queues
from services.publisher.turns import InOrder, SideBySide

GROUP_DUE: Final = "publisher"
GROUP_UPDATES: Final = "publisher-updates"
HOLD_RECORDS: Final = 5_000  # At a start there may be a million.
OFFERS_LATEST_S: Final = 30.0  # Without a fence they are read then, and wait here.
READY_FENCE_S: Final = 3 * PROBE_S
ON_ITS_WAY_S: Final = 1.0  # By then what was sent within the lease is written down.
RESUME_EVERY_S: Final = 3.0
Carries: TypeAlias = Literal["all", "offers", "updates"]
log = structlog.get_logger()


class Stream:
    """The publisher's consumers, and the queue of each account."""

    def __init__(
        self,
        broker: KafkaBroker,
        *,
        cluster: Cluster,
        publisher: str,
        instance: str,
        accounts: Mapping[str, AnyAccount],
        lease_s: float,
        clock: BrokersClock,
        registry: CollectorRegistry,
        crash: kafka.Crash,
        carries: Carries = "all",
    ) -> None:
        self.broker, self.publisher, self.clock, self.crash = broker, publisher, clock, crash
        self.accounts, self.counted = dict(accounts), Partitions(cluster, DISRUPTIONS)
        self.delivery: Delivery
        self.incidents = Incidents()
        self.on_change: Callable[[], None] = lambda: None
        self._tasks: set[asyncio.Task[None]] = set()
        self._saying: set[str] = set()
        self._stuck = Gauge(
            "interlock_stuck",
            "What networks have not taken for minutes.",
            ["what"],
            registry=registry,
        )
        self.outbox = Outbox(broker, clock=clock, registry=registry, crash=crash)
        self.gate = Gatekeeper(
            self.outbox, self.counted, publisher=publisher, lease_s=lease_s,
            on_opened=self._on_opened,
            clock=clock, registry=registry, crash=crash,
        )  # fmt: skip
        on_holds = self.gate.on_holds
        kafka.subscribe(broker, HOLDS.name, on_holds, crash=crash, batch_records=HOLD_RECORDS)
        self._incidents_view = kafka.subscribe(
            broker, INCIDENTS.name, self.on_incidents, view=True, crash=crash
        )
        self.due = Queues(DUE, group=GROUP_DUE, crash=crash)
        self.due.passes_over = True
        self.updates = Queues(UPDATES, group=GROUP_UPDATES, crash=crash)
        both = {"offers": (self.due, self.on_due), "updates": (self.updates, self.on_updates)}
        self.carried = [queues for kind, (queues, _) in both.items() if carries in (kind, "all")]
        self.carries_offers = self.due in self.carried
        self.left_to_others = frozenset(q.group for q, _ in both.values() if q not in self.carried)
        for queues, handler in both.values():
            if queues in self.carried:
                queues.read(broker, handler, instance=instance, at_once=queues is self.updates)

    def deliver_by(self, delivery: Delivery) -> None:
        """Hand every post to this delivery, which asks our gate."""
        self.delivery = delivery
        for what in delivery.late():
            self._stuck.labels(what).set_function(partial(_count_late, delivery, what))
        self.due.turns = SideBySide(delivery.settle, parallel=delivery.parallel, crash=self.crash)
        self.updates.turns = InOrder(delivery.settle, crash=self.crash)
        self.due.leave = self.updates.leave = delivery.leave

    def say(self, post: Post) -> None:
        """Say an update of our own, which is in no topic: its reason and its intent are in the ledger."""
        if post.post_id not in self._saying:
            self._saying.add(post.post_id)
            self._spawn(self._say(post))

    async def _say(self, post: Post) -> None:
        try:
            await self.delivery.settle(Job(post, 1, lambda _: None))
        finally:
            self._saying.discard(post.post_id)

    async def start(self) -> None:
        """Begin to read and write; offers when a first fence has passed: others can send them meanwhile."""
        await self.broker.start()
        if self.carries_offers:
            self._spawn(self._read_offers())
        for name, channel in self.delivery.channels.items():
            await self.outbox.emit_account(
                known_as(name, self.accounts[name], channel.capabilities)
            )

    async def _read_offers(self) -> None:
        with contextlib.suppress(TimeoutError):  # A person may want one back.
            await asyncio.wait_for(self.gate.knows(), OFFERS_LATEST_S)
        try:
            await self.due.join()
        except Exception as error:  # Whoever supervises starts us again.
            self.crash("offers cannot be read", error)

    def _spawn(self, act: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(act)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_opened(self, hold: HoldOpened) -> None:
        if self.carries_offers:  # A take-back is about them, and would be in an update's way.
            self._spawn(self._take_back(hold))

    async def _take_back(self, hold: HoldOpened) -> None:
        await self.gate.knows()
        if hold.take_back_s == 0:  # Nothing of before; an update goes first.
            await asyncio.sleep(ON_ITS_WAY_S)
        while hold.hold_id in self.gate.holds:
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
        """End what another publisher began to take back and did not end, for ever; where offers are carried."""
        while self.carries_offers:
            await asyncio.sleep(RESUME_EVERY_S)
            self._spawn(self._resume())  # One that does not answer keeps no later ones waiting.

    async def _resume(self) -> None:
        try:
            await self.delivery.take_back.resume()
        except Exception as error:  # The database's: the next round comes.
            log.error("retractions", error=str(error))

    async def on_incidents(self, records: Sequence[kafka.Record]) -> None:
        for record in records:
            found = envelope.read(record.headers, record.value, allowed=(Incident,))
            if isinstance(found, envelope.Envelope):
                assert isinstance(found.record, Incident)
                self.incidents.keep(found.record)
        self.on_change()

    async def incidents_read(self) -> None:
        """Wait until the incidents that there are now have been read, however many come meanwhile."""
        await self._incidents_view.read_up()

    async def on_due(self, records: Sequence[kafka.Record]) -> None:
        for record in records:
            if self.due.wants(record):
                await self._on_due(record)
            self.due.went_by(record)

    async def _on_due(self, record: kafka.Record) -> None:
        found = await self._read(self.due, record, *DUE.records)
        if found is None:
            return
        if isinstance(found.record, DuePost):
            due = found.record
            self.due.take(record, [due.post], attempt=due.attempt, traceparent=found.traceparent)
        elif self.due.is_new(record):
            assert isinstance(found.record, RetractPost)
            self._spawn(self._ask_back(found.record, self.due.keep(record)))

    async def on_updates(self, records: Sequence[kafka.Record]) -> None:
        for record in records:
            found = await self._read(self.updates, record, StatusUpdate)
            if found is not None:
                assert isinstance(found.record, StatusUpdate)
                posts = posts_of(found.record, self.accounts)
                self.updates.take(record, posts, attempt=1, traceparent=found.traceparent)

    async def _read(
        self, queues: Queues, record: kafka.Record, *models: type[Record]
    ) -> envelope.Envelope | None:
        found = envelope.read(record.headers, record.value, allowed=models)
        if isinstance(found, envelope.Envelope):
            return found
        if queues.is_new(record):
            settled = queues.keep(record)
            await self.outbox.dead_letter(queues.topic, record, found.error, settled)
        return None

    async def not_ready(self) -> dict[str, str]:
        """Return what is missing before posts can flow, each with its reason; an update needs no fence."""
        missing: dict[str, str] = {}
        if self.carries_offers and self.gate.fences.age_s() > READY_FENCE_S:
            missing["fence"] = "no fence has passed lately: offers wait, status updates go on"
        if not all(queues.assigned_once for queues in self.carried):
            missing["assignment"] = "waiting for the groups to hand out partitions"
        return missing

    async def end_sends(self) -> None:
        """Begin no more sends, and let those under way come to their end; the rest goes on until `stop`."""
        await asyncio.gather(*(queues.end() for queues in self.carried))

    async def stop(self) -> None:
        """End the tasks; what is not settled will be read again."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for queues in (self.due, self.updates):
            await queues.stop()
        await self.delivery.take_back.retractions.stop()
        await self.counted.aclose()


def _count_late(delivery: Delivery, what: str) -> int:
    return len(delivery.late()[what])
