"""Kafka in and out of the scheduler: due posts out; holds and outcomes in.

| topic | consumed by | what happens |
| --- | --- | --- |
| ops.holds | `on_holds` | all of it, without a group: lanes are held and released |
| posts.outcomes | `on_outcomes` | offers move as their outcomes say |
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

import structlog
from aiokafka import TopicPartition
from faststream.kafka import KafkaBroker
from prometheus_client import CollectorRegistry, Counter
from sqlalchemy.exc import SQLAlchemyError

from schemas import envelope
from schemas.holds import HoldOpened, HoldReleased, OpenHolds
from schemas.posts import DuePost, Outcome
from schemas.topics import DUE, FENCE_KEY, HOLDS, OUTCOMES, dead_letters_of, key_of
from services.kit import broker as kafka
from services.kit.telemetry import Clock, trace_id
from services.scheduler.store import CLAIM_POSTS, Store

GROUP: Final = "scheduler"
TICK_S: Final = 0.1
RETRY_S: Final = 1.0
COMMIT_EVERY_S: Final = 1.0
SOURCE: Final = "/scheduler"
log = structlog.get_logger()


class Stream:
    """The scheduler's consumers, and the loop that hands over what is due."""

    def __init__(
        self,
        broker: KafkaBroker,
        store: Store,
        *,
        instance: str,
        clock: Clock,
        registry: CollectorRegistry,
        crash: kafka.Crash,
    ) -> None:
        self.broker, self.store, self.clock = broker, store, clock
        self.holds = OpenHolds()
        self.assigned_once = False
        self._offsets: dict[int, int] = {}
        self.handed = Counter("interlock_handed_total", "Offers handed over.", registry=registry)
        self.taken = Counter(
            "interlock_outcomes_taken_total", "Outcomes read.", ["result"], registry=registry
        )
        self.holds_view = kafka.subscribe(broker, HOLDS.name, self.on_holds, view=True, crash=crash)
        self.outcomes = kafka.subscribe(
            broker,
            OUTCOMES.name,
            self.on_outcomes,
            view=True,  # The gate stands at the publisher: the queue may hear of it later.
            group=GROUP,
            instance=instance,
            crash=crash,
            listener=kafka.Rebalance(
                assigned=self._on_assigned, revoked=self._on_revoked, crash=crash
            ),
        )

    async def start(self) -> None:
        """Begin with the holds that the database knows, so that history costs no writes."""
        self.holds = await self.store.open_holds()
        await self.broker.start()

    async def keep_handing_over(self) -> None:
        """Claim what is due and hand it to the publisher, ten times a second, for ever."""
        while True:
            try:
                await self.store.recover_lanes(self.clock.now())
                due = await self.store.claim_due(self.clock.now())
                await self._emit_due(due)
            except (SQLAlchemyError, OSError) as error:
                log.error("the queue does not answer", error=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            if len(due) < CLAIM_POSTS:
                await asyncio.sleep(TICK_S)

    async def _emit_due(self, due: list[DuePost]) -> None:
        if not due:
            return
        acks = []
        for post in due:
            traceparent = envelope.new_traceparent()
            headers = envelope.write_headers(
                post,
                event_id=f"{post.post.post_id}-{post.attempt}",
                source=SOURCE,
                traceparent=traceparent,
                at=self.clock.now(),
            )
            value = envelope.write_value(post)
            key = key_of(post)
            acks.append(await kafka.emit(self.broker, DUE.name, value, headers=headers, key=key))
            log.info("due", post=post.post.post_id, account=key, trace=trace_id(traceparent))
        await asyncio.gather(*acks)
        await self.store.record_handed([post.post.post_id for post in due])
        self.handed.inc(len(due))

    async def on_holds(self, records: Sequence[kafka.Record]) -> None:
        for record in records:
            if (record.key or b"").startswith(FENCE_KEY.encode()):
                continue
            found = envelope.read(record.headers, record.value, allowed=(HoldOpened, HoldReleased))
            if isinstance(found, envelope.Unreadable):
                raise TypeError(f"{HOLDS.name}, offset {record.offset}: {found.error}")
            fact = found.record
            assert isinstance(fact, HoldOpened | HoldReleased)
            if self.holds.apply(fact):
                await self._record(fact, trace=trace_id(found.traceparent))

    async def _record(self, fact: HoldOpened | HoldReleased, *, trace: str) -> None:
        while True:
            try:
                if isinstance(fact, HoldOpened):
                    lanes = await self.store.record_opened(fact)
                else:
                    lanes = await self.store.record_released(fact)
            except (SQLAlchemyError, OSError) as error:
                log.error("the queue does not answer", error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                log.info(
                    "hold", fact=type(fact).__name__, hold=fact.hold_id, lanes=lanes, trace=trace
                )
                return

    async def on_outcomes(self, records: Sequence[kafka.Record]) -> None:
        outcomes = []
        for record in records:
            found = envelope.read(record.headers, record.value, allowed=(Outcome,))
            if isinstance(found, envelope.Unreadable):
                await self._emit_dead_letter(record, found)
                continue
            assert isinstance(found.record, Outcome)
            self.taken.labels(found.record.result).inc()
            if found.record.kind == "offer":
                outcomes.append(found.record)
        while True:
            try:
                await self.store.record_outcomes(outcomes, self.clock.now())
                break
            except (SQLAlchemyError, OSError) as error:
                log.error("the queue does not answer", error=str(error))
                await asyncio.sleep(RETRY_S)
        for record in records:
            self._offsets[record.partition] = record.offset + 1

    async def _emit_dead_letter(self, record: kafka.Record, why: envelope.Unreadable) -> None:
        headers = {name: text.decode(errors="replace") for name, text in record.headers}
        headers["interlock_error"] = why.error
        topic = dead_letters_of(OUTCOMES)
        await (await kafka.emit(self.broker, topic, record.value or b"", headers=headers))
        log.error("unreadable", topic=record.topic, offset=record.offset, why=why.error)

    async def keep_commits(self) -> None:
        """Commit what is recorded, every second, for ever."""
        while True:
            await asyncio.sleep(COMMIT_EVERY_S)
            await self._commit()

    async def _commit(self) -> None:
        offsets, self._offsets = self._offsets, {}
        if not offsets:
            return
        try:
            await self.outcomes.consumer.commit(
                {TopicPartition(OUTCOMES.name, p): offset for p, offset in offsets.items()}
            )
        except Exception as error:  # Any of aiokafka's: outcomes are the same the second time.
            log.warning("not committed", topic=OUTCOMES.name, why=str(error))

    async def _on_assigned(self, partitions: Collection[int]) -> None:
        self.assigned_once = True

    async def _on_revoked(self, partitions: Collection[int]) -> None:
        await self._commit()

    async def not_ready(self) -> dict[str, str]:
        """Return what is missing before offers are handed over, with the reason."""
        if not self.assigned_once:
            return {"assignment": "waiting for the group to hand out partitions"}
        return {}
