"""What the publisher writes to Kafka: fences, outcomes, and what it could not read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeAlias

import structlog
from faststream.kafka import KafkaBroker
from prometheus_client import CollectorRegistry, Counter

from schemas import envelope
from schemas.base import Record
from schemas.channels import ChannelAccount
from schemas.posts import Outcome
from schemas.topics import ACCOUNTS, OUTCOMES, Topic, dead_letters_of, key_of
from services.kit import broker as kafka
from services.kit.telemetry import Clock, trace_id

SOURCE: Final = "/publisher"
Emit: TypeAlias = Callable[[Outcome, str], Awaitable[asyncio.Future[Any]]]
log = structlog.get_logger()


class Outbox:
    """The publisher's records on their way."""

    def __init__(
        self, broker: KafkaBroker, *, clock: Clock, registry: CollectorRegistry, crash: kafka.Crash
    ) -> None:
        self._broker, self._clock, self._crash = broker, clock, crash
        self._outcomes = Counter(
            "interlock_outcomes_total", "Outcomes.", ["kind", "result"], registry=registry
        )

    async def emit(
        self,
        topic: Topic,
        record: Record,
        event_id: str,
        *,
        partition: int | None = None,
        traceparent: str = "",
    ) -> asyncio.Future[Any]:
        """Hand a record to the producer; the future is done when the brokers acknowledged it."""
        headers = envelope.write_headers(
            record, event_id=event_id, source=SOURCE, traceparent=traceparent, at=self._clock.now()
        )
        return await kafka.emit(
            self._broker,
            topic.name,
            envelope.write_value(record),
            headers=headers,
            key=key_of(record),
            partition=partition,
        )

    async def emit_outcome(self, outcome: Outcome, traceparent: str) -> asyncio.Future[Any]:
        """Say what became of a post; the future is done when the brokers acknowledged it.

        One that cannot be written ends the process: whoever reads the post again says it from the ledger.
        """
        self._outcomes.labels(outcome.kind, outcome.result).inc()
        event_id = f"{outcome.post_id}-{outcome.attempt}-{outcome.result}"
        future = await self.emit(OUTCOMES, outcome, event_id, traceparent=traceparent)
        future.add_done_callback(self._on_done)
        # What goes as it should stands in the ledger; a line for each would cost as much as the send.
        is_plain = outcome.kind == "offer" and outcome.result == "published"
        (log.debug if is_plain else log.info)(
            "outcome",
            post=outcome.post_id,
            account=outcome.account,
            result=outcome.result,
            hold=outcome.hold_id,
            trace=trace_id(traceparent),
        )
        return future

    async def emit_account(self, account: ChannelAccount) -> None:
        """Say what an account takes; the newest of a name is the truth."""
        event_id = f"{account.account}-{self._clock.now().timestamp()}"
        await (await self.emit(ACCOUNTS, account, event_id))

    async def dead_letter(
        self, topic: Topic, record: kafka.Record, why: str, settled: Callable[[], None]
    ) -> None:
        """Keep the bytes of a record that could not be read, with the error in its headers; then it is settled."""
        headers = {name: text.decode(errors="replace") for name, text in record.headers}
        headers["interlock_error"] = why
        dead = dead_letters_of(topic)
        log.error("unreadable", topic=record.topic, offset=record.offset, why=why)
        future = await kafka.emit(self._broker, dead, record.value or b"", headers=headers)
        future.add_done_callback(partial(self._on_done, then=settled))

    def _on_done(
        self, future: asyncio.Future[Any], then: Callable[[], None] = lambda: None
    ) -> None:
        if future.cancelled():
            return
        if future.exception() is None:
            then()
        else:
            self._crash("what became of a record could not be written", future.exception())
