"""What the detector says to Kafka, and in which order it may be heard.

All outputs so far are acknowledged before an echo is emitted, and echoes too before a snapshot is
written: an echo never overtakes a hold, and a snapshot never claims what was not said. Nobody else waits for that: where a
broker is lost, the outputs of other partitions go on. An output that cannot be written ends the process, so that the
log is replayed and no echo follows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import structlog
from aiokafka.structs import RecordMetadata
from faststream.kafka import KafkaBroker
from prometheus_client import CollectorRegistry, Counter

from schemas import envelope
from schemas.base import Record
from schemas.holds import FencePassed, HoldOpened, HoldReleased
from schemas.incidents import Incident, StatusUpdate
from schemas.topics import DISRUPTIONS, HOLDS, INCIDENTS, UPDATES, Topic, dead_letters_of, key_of
from services.detector.store import SOURCE
from services.kit import broker as kafka
from services.kit.telemetry import Clock

ERROR_HEADER_CHARS = 300
OUTPUT_BYTES = 900_000  # Kafka takes a megabyte, with the headers.
SHORT_CHARS = 1_000
UNSETTLED = 2_000  # Outputs on their way: beyond, no further record is folded.
log = structlog.get_logger()

_TOPIC_OF: dict[type[Record], Topic] = {
    HoldOpened: HOLDS,
    HoldReleased: HOLDS,
    FencePassed: HOLDS,
    Incident: INCIDENTS,
    StatusUpdate: UPDATES,
}


class Outbox:
    """The outputs on their way."""

    def __init__(
        self, broker: KafkaBroker, *, clock: Clock, registry: CollectorRegistry, crash: kafka.Crash
    ) -> None:
        self._broker, self._clock, self._crash = broker, clock, crash
        self._outputs: set[asyncio.Future[RecordMetadata]] = set()  # Not acknowledged yet.
        self._echoes: set[asyncio.Task[None]] = set()
        self._said = Counter(
            "interlock_detector_outputs_total", "Records emitted.", ["type"], registry=registry
        )

    @property
    def is_full(self) -> bool:
        return len(self._outputs) > UNSETTLED

    async def settled(self) -> None:
        """Return when the brokers acknowledged all outputs so far; one that failed raises."""
        while self._outputs:
            await _all(self._outputs)

    def so_far(self) -> asyncio.Future[Any]:
        """Return what is done when the brokers acknowledged all outputs and echoes so far; one that failed raises.

        Behind a snapshot no echo is said again.
        """
        return _all([*self._outputs, *self._echoes])

    async def _hand_over(
        self, output: Record, event_id: str, *, traceparent: str = ""
    ) -> asyncio.Future[RecordMetadata]:
        self._said.labels(type(output).__name__).inc()
        headers = envelope.write_headers(
            output, event_id=event_id, source=SOURCE, traceparent=traceparent, at=self._clock.now()
        )
        topic = _TOPIC_OF[type(output)]
        value = envelope.write_value(output)
        if len(value) > OUTPUT_BYTES:
            log.error("an output is cut: Kafka takes no more", id=event_id, bytes=len(value))
            value = envelope.write_value(_shortened(output))
        return await kafka.emit(
            self._broker, topic.name, value, headers=headers, key=key_of(output)
        )

    async def emit(self, output: Record, event_id: str, *, traceparent: str = "") -> None:
        """Hand an output to the producer, in order; that it is acknowledged is seen to here."""
        self._see_to(await self._hand_over(output, event_id, traceparent=traceparent))

    def _see_to(self, future: asyncio.Future[RecordMetadata]) -> None:
        self._outputs.add(future)
        future.add_done_callback(self._on_output_done)

    def echo(self, echo: FencePassed, event_id: str) -> None:
        """Echo a fence, when all outputs so far are acknowledged."""
        task = asyncio.create_task(self._echo(echo, event_id, behind=tuple(self._outputs)))
        self._echoes.add(task)
        task.add_done_callback(self._on_echo_done)

    async def _echo(
        self, echo: FencePassed, event_id: str, *, behind: Collection[asyncio.Future[Any]]
    ) -> None:
        await _all(behind)
        await (await self._hand_over(echo, event_id))

    async def dead_letter(self, record: kafka.Record, why: envelope.Unreadable) -> None:
        """Keep the bytes of a record that could not be read, with the error in its headers; seen to as an output is."""
        headers = {name: text.decode(errors="replace") for name, text in record.headers}
        headers["interlock_error"] = why.error[:ERROR_HEADER_CHARS]
        headers["interlock_origin"] = f"{record.topic}/{record.partition}/{record.offset}"
        self._see_to(
            await kafka.emit(
                self._broker,
                dead_letters_of(DISRUPTIONS),
                record.value or b"",
                headers=headers,
                partition=record.partition,
            )
        )
        log.warning("unreadable", partition=record.partition, offset=record.offset, why=why.error)

    def _on_output_done(self, future: asyncio.Future[RecordMetadata]) -> None:
        if future.cancelled() or future.exception() is None:
            self._outputs.discard(future)
        else:  # No echo and no snapshot may follow: the log is replayed.
            self._crash("an output could not be written", future.exception())

    def _on_echo_done(self, task: asyncio.Task[None]) -> None:
        self._echoes.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._crash("an echo could not be written", task.exception())


def _all(futures: Collection[asyncio.Future[Any]]) -> asyncio.Future[Any]:
    """Return what is done when all are; whoever waits and is ended cancels none of them, for others wait as well."""
    return asyncio.shield(asyncio.gather(*futures))


def _shortened(output: Record) -> Record:
    """Return an output whose texts are short enough for Kafka, and say so by three dots.

    What many languages and audiences are told may be more than it takes; a record that it never takes would end the
    process, and each one that begins where it did.
    """
    if isinstance(output, StatusUpdate):
        return output.model_copy(update=_short(output.texts))
    if isinstance(output, Incident):
        draft = output.draft and output.draft.model_copy(update=_short(output.draft.texts))
        cut: dict[str, Any] = {"detail": _cut(output.detail), "details": {}, "draft": draft}
        return output.model_copy(update=cut)
    return output


def _short(texts: dict[str, str]) -> dict[str, Any]:
    return {"texts": {name: _cut(text) for name, text in texts.items()}, "variants": ()}


def _cut(text: str) -> str:
    return text if len(text) <= SHORT_CHARS else f"{text[:SHORT_CHARS].rstrip()} …"
