"""HTTP for operations systems: what they report becomes records of `ops.disruptions`.

202 means that the brokers acknowledged it. What cannot be read is refused by name, and holds
nothing: whoever sent it knows.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

from aiokafka.structs import RecordMetadata
from cloudevents.core.bindings.http import HTTPMessage, from_http
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from fastapi import APIRouter, Request
from pydantic import BaseModel

from schemas.disruptions import Disruption
from schemas.envelope import Envelope, Unreadable, from_cloud_event
from services.detector.stream import Stream
from services.kit.web import Caller, Problem, field_problem, require

BATCH_EVENTS = 500
BATCH_TYPE = "application/cloudevents-batch+json"


class Receipt(BaseModel):
    """Where an event or a command stands in the log: it was acknowledged by the brokers."""

    id: str
    partition: int
    offset: int
    recorded_at: datetime


def new_router(stream: Stream) -> APIRouter:
    """Return the routes of operations systems."""
    router = APIRouter(prefix="/v1")
    _add_events(router, stream)
    return router


def _add_events(router: APIRouter, stream: Stream) -> None:
    @router.post("/events", status_code=202)
    async def take_events(request: Request, caller: Caller = require("emitter")) -> list[Receipt]:
        """Take CloudEvents 1.0: binary, structured or batched. A batch is taken whole or not."""
        found = _read_events(dict(request.headers), await request.body())
        for number, event in enumerate(found):
            assert isinstance(event.record, Disruption)
            if not caller.may_name(event.record.network):
                raise field_problem(
                    f"{number}/network", f"{caller.name} may not speak for it", status=403
                )
        given = request.headers.get("traceparent", "")
        writes = [
            stream.write(
                event.record,
                event_id=event.event_id,
                source=event.source,
                traceparent=event.traceparent or given,
            )
            for event in found
        ]
        done = await acknowledged(asyncio.gather(*writes))
        return [receipt_of(e.event_id, m) for e, m in zip(found, done, strict=True)]


async def acknowledged(write: Any) -> Any:
    """Return what a write returns, or the problem that nobody acknowledged it."""
    try:
        return await write
    except Exception as error:  # Any of aiokafka's: what counts is that nobody acknowledged it.
        raise Problem(
            503,
            f"not acknowledged by Kafka ({type(error).__name__}): it may or may not be in the log. "
            "Send it again: the same source and id are the same fact",
        ) from error


def receipt_of(receipt_id: str, done: RecordMetadata) -> Receipt:
    """Return the receipt of a record."""
    return Receipt(
        id=receipt_id,
        partition=done.partition,
        offset=done.offset,
        recorded_at=recorded_at(done),
    )


def recorded_at(done: RecordMetadata) -> datetime:
    assert done.timestamp is not None, "ops.disruptions has broker time"
    return datetime.fromtimestamp(done.timestamp / 1000, UTC)


def _read_events(headers: dict[str, str], body: bytes) -> list[Envelope]:
    if headers.get("content-type", "").startswith(BATCH_TYPE):
        bodies = _batch(body)
        headers = {"content-type": "application/cloudevents+json"}
    else:
        bodies = [body]
    found: list[Envelope] = []
    errors: list[dict[str, str]] = []
    for number, one in enumerate(bodies):
        event = _read_event(headers, one)
        if isinstance(event, Unreadable):
            pointer = f"/{number}" if len(bodies) > 1 else ""
            errors.append({"pointer": pointer, "detail": event.error})
        else:
            found.append(event)
    if errors:
        said = "; ".join(f"{e['pointer']} {e['detail']}".strip() for e in errors)
        raise Problem(422, said, errors=errors)
    return found


def _batch(body: bytes) -> list[bytes]:
    try:
        events = json.loads(body)
    except ValueError as error:
        raise Problem(422, f"the batch is not JSON: {error}") from error
    if not isinstance(events, list) or not 1 <= len(events) <= BATCH_EVENTS:
        raise Problem(422, f"a batch is a JSON array of 1 to {BATCH_EVENTS} events")
    return [json.dumps(event).encode() for event in events]


def _read_event(headers: dict[str, str], body: bytes) -> Envelope | Unreadable:
    try:
        event = from_http(HTTPMessage(headers=headers, body=body), JSONFormat(), CloudEvent)
    except Exception as error:  # The SDK raises its own, json's and plain TypeErrors.
        return Unreadable(error=f"not a CloudEvent 1.0: {error}")
    return from_cloud_event(event, allowed=(Disruption,))
