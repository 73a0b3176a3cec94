"""Kafka in and out of the scheduler: due posts out; holds and outcomes in.

| topic | consumed by | what happens |
| --- | --- | --- |
| ops.holds | `on_holds` | all of it, without a group: lanes are held and released |
| posts.outcomes | `on_outcomes` | offers move as their outcomes say |
| channels.accounts | `on_accounts` | what each account takes, for offers as they are written |
"""

from __future__ import annotations

import asyncio
import heapq
import uuid
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import MessageSizeTooLargeError
from faststream.kafka import KafkaBroker
from prometheus_client import CollectorRegistry, Counter, Histogram
from sqlalchemy.exc import DataError, SQLAlchemyError

from schemas import envelope
from schemas.channels import ChannelAccount
from schemas.holds import HoldOpened, HoldReleased, OpenHolds
from schemas.posts import DuePost, Outcome, RetractPost
from schemas.topics import ACCOUNTS, DUE, FENCE_KEY, HOLDS, OUTCOMES, dead_letters_of, key_of
from services.kit import broker as kafka
from services.kit.telemetry import Clock, trace_id
from services.scheduler.again import claim_stale, claim_unheard
from services.scheduler.counts import sum_up
from services.scheduler.lane_store import LaneStore
from services.scheduler.outcome_store import record_outcomes
from services.scheduler.store import Store

GROUP: Final = "scheduler"
TICK_S: Final = 0.1
PULSE_S: Final = 5.0
LOOK_S: Final = 30.0  # For next times that a crash has lost, and for what nothing was heard of.
CLAIMED_MOST: Final = 5_000  # In hand: above it the queue rests.
HAND_POSTS: Final = 500
RECORD_S: Final = 0.05
COUNT_S: Final = 1.0
BUCKETS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
RETRY_S: Final = 1.0
COMMIT_EVERY_S: Final = 1.0
ERROR_CHARS: Final = 500
SOURCE: Final = "/scheduler"
log = structlog.get_logger()


class Stream:
    """The scheduler's consumers, and the loops that hand over what is due."""

    def __init__(
        self,
        broker: KafkaBroker,
        store: Store,
        lanes: LaneStore,
        *,
        instance: str,
        clock: Clock,
        registry: CollectorRegistry,
        crash: kafka.Crash,
    ) -> None:
        self.broker, self.store, self.lanes, self.clock = broker, store, lanes, clock
        self.holds = OpenHolds()
        self.accounts: dict[str, ChannelAccount] = {}
        self.assigned_once = False
        self._offsets: dict[int, int] = {}
        self._claimed: list[tuple[float, int, DuePost]] = []  # A heap, by when each is due here.
        self._number = 0
        self._handed: list[str] = []
        self._bell = asyncio.Event()
        self.handed = Counter("interlock_handed_total", "Offers handed over.", registry=registry)
        self.lateness = Histogram(
            "interlock_lateness_seconds",
            "From an offer's due time until Kafka has it.",
            buckets=BUCKETS,
            registry=registry,
        )
        self.taken = Counter(
            "interlock_outcomes_taken_total", "Outcomes read.", ["result"], registry=registry
        )
        self.holds_view = kafka.subscribe(broker, HOLDS.name, self.on_holds, view=True, crash=crash)
        kafka.subscribe(broker, ACCOUNTS.name, self.on_accounts, view=True, crash=crash)
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
        self.holds = await self.lanes.open_holds()
        await self.lanes.apply_pending()  # Of whoever died in between.
        await self.broker.start()

    async def stop(self) -> None:
        """Give back what was claimed and not handed over."""
        await self._record_handed()
        await self.store.give_back([due.post.post_id for _, _, due in self._claimed])

    async def keep_claiming(self) -> None:
        """Claim what falls due within a second, ten times a second, for ever."""
        returned_at, pulse_s, look_s = None, 0.0, 0.0
        while True:
            now_s = self.clock.monotonic_s()
            try:
                if returned_at is None or now_s - pulse_s > PULSE_S:
                    returned_at, pulse_s = await self.store.pulse(), now_s
                    await self.lanes.apply_pending()
                    self._claim(await claim_stale(self.store.engine), None)
                is_full = await self._claim_some(returned_at)
                everywhere = now_s - look_s > LOOK_S
                await self.store.look(everywhere=everywhere)
                if everywhere:
                    look_s = now_s
                    self._claim(await claim_unheard(self.store.engine), None)
                is_full |= await self.lanes.recover_lanes()
            except (SQLAlchemyError, OSError) as error:
                log.error("the queue does not answer", error=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            await asyncio.sleep(0 if is_full else TICK_S)

    async def _claim_some(self, returned_at: datetime) -> bool:
        if len(self._claimed) > CLAIMED_MOST:
            return False
        found = await self.store.claim_due(returned_at)
        if found is None:
            return False
        self._claim(found.posts, found.now)
        return found.is_full

    def _claim(self, posts: list[DuePost], now: datetime | None) -> None:
        """Keep claimed offers until they are due, by the database's clock as it was `now`."""
        now_s = self.clock.monotonic_s()
        for due in posts:
            wait_s = 0.0 if now is None else (due.post.due_at - now).total_seconds()
            self._number += 1
            heapq.heappush(self._claimed, (now_s + wait_s, self._number, due))
        if posts:
            self._bell.set()

    async def keep_handing_over(self) -> None:
        """Hand claimed offers to the publisher, each when it is due, for ever."""
        while True:
            now_s = self.clock.monotonic_s()
            due: list[tuple[float, int, DuePost]] = []
            while self._claimed and self._claimed[0][0] <= now_s and len(due) < HAND_POSTS:
                due.append(heapq.heappop(self._claimed))
            if due:
                await self._emit(due)
                continue
            self._bell.clear()
            wait_s = self._claimed[0][0] - now_s if self._claimed else None
            try:
                async with asyncio.timeout(wait_s):
                    await self._bell.wait()
            except TimeoutError:
                continue

    async def _emit(self, due: list[tuple[float, int, DuePost]]) -> None:
        acks, at = [], self.clock.now()
        for _, _, post in due:
            traceparent = envelope.new_traceparent()
            headers = envelope.write_headers(
                post,
                event_id=f"{post.post.post_id}-{post.attempt}",
                source=SOURCE,
                traceparent=traceparent,
                at=at,
            )
            value = envelope.write_value(post)
            key = key_of(post)
            acks.append(await kafka.emit(self.broker, DUE.name, value, headers=headers, key=key))
            log.debug("due", post=post.post.post_id, account=key, trace=trace_id(traceparent))
        await self._settle_too_large(due, await asyncio.gather(*acks, return_exceptions=True))
        now_s = self.clock.monotonic_s()
        for due_s, _, _ in due:
            self.lateness.observe(max(0.0, now_s - due_s))
        self._handed += [post.post.post_id for _, _, post in due]
        self.handed.inc(len(due))

    async def _settle_too_large(
        self, due: list[tuple[float, int, DuePost]], acks: Sequence[Any]
    ) -> None:
        """End what Kafka refuses for its size; whatever else it says is raised, and said again by a new process."""
        refused: list[Outcome] = []
        for (_, _, one), ack in zip(due, acks, strict=True):
            if isinstance(ack, MessageSizeTooLargeError):
                refused.append(
                    Outcome(
                        post_id=one.post.post_id, kind="offer", account=one.post.account, attempt=one.attempt,
                        result="failed", at=self.clock.now(), reason="it is larger than Kafka takes",
                    )
                )  # fmt: skip
            elif isinstance(ack, BaseException):
                raise ack
        await record_outcomes(self.store.engine, refused)

    async def ask_back(self, asked: RetractPost) -> None:
        """Ask the publisher to take an offer back; returns when Kafka has it."""
        event_id = f"{asked.post_id}-retract-{uuid.uuid4().hex}"
        headers = envelope.write_headers(
            asked, event_id=event_id, source=SOURCE, at=self.clock.now()
        )
        value = envelope.write_value(asked)
        await (await kafka.emit(self.broker, DUE.name, value, headers=headers, key=key_of(asked)))

    async def keep_counting(self) -> None:
        """Sum up what has changed, every second, for ever."""
        while True:
            await asyncio.sleep(COUNT_S)
            try:
                await sum_up(self.store.engine)
            except (SQLAlchemyError, OSError) as error:
                log.error("the counts", error=str(error))

    async def keep_recording(self) -> None:
        """Write what was handed over, a few times a second, for ever."""
        while True:
            await asyncio.sleep(RECORD_S)
            try:
                await self._record_handed()
            except (SQLAlchemyError, OSError) as error:
                log.error("the queue does not answer", error=str(error))

    async def _record_handed(self) -> None:
        handed = self._handed[:]
        if handed:
            await self.store.record_handed(handed)
            del self._handed[: len(handed)]

    async def on_accounts(self, records: Sequence[kafka.Record]) -> None:
        for record in records:
            found = envelope.read(record.headers, record.value, allowed=(ChannelAccount,))
            if isinstance(found, envelope.Envelope):
                assert isinstance(found.record, ChannelAccount)
                self.accounts[found.record.account] = found.record

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
                    lanes = await self.lanes.record_opened(fact)
                else:
                    lanes = await self.lanes.record_released(fact)
            except (SQLAlchemyError, OSError) as error:
                log.error("the queue does not answer", error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                log.info(
                    "hold", fact=type(fact).__name__, hold=fact.hold_id, lanes=lanes, trace=trace
                )
                return

    async def on_outcomes(self, records: Sequence[kafka.Record]) -> None:
        outcomes: list[tuple[kafka.Record, Outcome]] = []
        for record in records:
            found = envelope.read(record.headers, record.value, allowed=(Outcome,))
            if isinstance(found, envelope.Unreadable):
                await self._emit_dead_letter(record, found.error)
                continue
            assert isinstance(found.record, Outcome)
            self.taken.labels(found.record.result).inc()
            if found.record.kind == "offer":
                outcomes.append((record, found.record))
        await self._record_outcomes(outcomes)
        for record in records:
            self._offsets[record.partition] = record.offset + 1

    async def _record_outcomes(self, outcomes: Sequence[tuple[kafka.Record, Outcome]]) -> None:
        """Write outcomes; one that the database refuses is kept aside, and keeps no other waiting."""
        while True:
            try:
                await record_outcomes(self.store.engine, [one for _, one in outcomes])
            except DataError as error:
                if len(outcomes) == 1:
                    await self._emit_dead_letter(outcomes[0][0], f"cannot be written: {error.orig}")
                    return
                for one in outcomes:
                    await self._record_outcomes([one])
                return
            except (SQLAlchemyError, OSError) as error:
                log.error("the queue does not answer", error=str(error))
                await asyncio.sleep(RETRY_S)
            else:
                return

    async def _emit_dead_letter(self, record: kafka.Record, why: str) -> None:
        headers = {name: text.decode(errors="replace") for name, text in record.headers}
        headers["interlock_error"] = why[:ERROR_CHARS]
        topic = dead_letters_of(OUTCOMES)
        await (await kafka.emit(self.broker, topic, record.value or b"", headers=headers))
        log.error("unreadable", topic=record.topic, offset=record.offset, why=why)

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
