"""HTTP in front of the log: events from operations systems, commands from people, and reading.

Every write is a record appended to `ops.disruptions`; 202 means that the brokers acknowledged it.
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
from pydantic import BaseModel, Field

from schemas.base import Instant, Network, Title, Value
from schemas.disruptions import (
    HORIZON_S,
    DeclareIncident,
    Disruption,
    HoldOffers,
    PolicyApplied,
    ReleaseHold,
    ResolveIncident,
    Severity,
    Texts,
    UpdateIncident,
)
from schemas.envelope import Envelope, Unreadable, from_cloud_event, new_traceparent
from schemas.holds import HoldOpened
from schemas.incidents import Incident
from schemas.labels import Labels, Matchers
from schemas.policies import Policy
from schemas.topics import DISRUPTIONS
from services.detector import messages
from services.detector.state import entry_id, partition_of
from services.detector.stream import Stream
from services.kit.web import Caller, Problem, field_problem, require

BATCH_EVENTS = 500
PATIENCE_S = 1.0  # For the view to know what was acknowledged a moment ago.
BATCH_TYPE = "application/cloudevents-batch+json"
READERS = ("viewer", "operations", "marketing", "approver", "emitter", "admin")


class Receipt(BaseModel):
    """Where an event or a command stands in the log: it was acknowledged by the brokers."""

    id: str
    partition: int
    offset: int
    recorded_at: datetime


class HoldBody(Value):
    """A hold by hand. `{}` covers every offer."""

    network: Network
    matchers: Matchers
    reason: Title
    take_back_s: int = Field(default=0, ge=0, le=86_400)


class ReasonBody(Value):
    """Why somebody ends something."""

    reason: Title


class IncidentBody(Value):
    """An incident that no system reported."""

    network: Network
    title: Title
    severity: Severity = "major"
    labels: Labels = {}
    detail: str = Field(default="", max_length=10_000)
    expected_end_at: Instant | None = None


class UpdateBody(Value):
    """A status update in somebody's own words, by language."""

    texts: Texts
    next_update_s: int | None = Field(default=None, ge=1, le=HORIZON_S)


def new_router(stream: Stream) -> APIRouter:
    """Return the detector's routes."""
    router = APIRouter(prefix="/v1")
    _add_events(router, stream)
    _add_holds(router, stream)
    _add_incidents(router, stream)
    _add_policy(router, stream)
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
        done = await _acknowledged(asyncio.gather(*writes))
        return [_receipt(e.event_id, m) for e, m in zip(found, done, strict=True)]


def _add_holds(router: APIRouter, stream: Stream) -> None:
    @router.get("/holds")
    async def list_holds(_: Caller = require(*READERS)) -> list[HoldOpened]:
        """List the holds that are open, the longest standing first."""
        return list(stream.holds)

    @router.post("/holds", status_code=202)
    async def hold_offers(body: HoldBody, caller: Caller = require("operations")) -> Receipt:
        """Stop offers by hand; the answer's id is the hold's."""
        _may_name(caller, body.network)
        command = HoldOffers(**dict(body), author=caller.name)
        return await _command(stream, command, kind="hold")

    @router.post("/holds/{hold_id}/release", status_code=202)
    async def release_hold(
        hold_id: str, body: ReasonBody, caller: Caller = require("operations")
    ) -> Receipt:
        """End one hold."""
        await _known(lambda: stream.holds.knows(hold_id), f"there is no hold {hold_id}")
        hold = next((h for h in stream.holds if h.hold_id == hold_id), None)
        if hold is None:
            raise Problem(409, f"the hold {hold_id} was released before")
        _may_name(caller, hold.network)
        command = ReleaseHold(hold_id=hold_id, reason=body.reason, author=caller.name)
        return await _command(stream, command, kind="cmd", partition=partition_of(hold_id))


def _add_incidents(router: APIRouter, stream: Stream) -> None:
    @router.get("/incidents")
    async def list_incidents(_: Caller = require(*READERS)) -> list[Incident]:
        """List incidents, the last changed first."""
        return list(reversed(stream.incidents.values()))

    @router.get("/incidents/{incident_id}")
    async def read_incident(incident_id: str, _: Caller = require(*READERS)) -> Incident:
        return await _incident(stream, incident_id)

    @router.post("/incidents", status_code=202)
    async def declare_incident(
        body: IncidentBody, caller: Caller = require("operations")
    ) -> Receipt:
        """Declare an incident; the answer's id is the incident's."""
        _may_name(caller, body.network)
        command = DeclareIncident(**dict(body), author=caller.name)
        return await _command(stream, command, kind="inc")

    @router.post("/incidents/{incident_id}/updates", status_code=202)
    async def write_update(
        incident_id: str, body: UpdateBody, caller: Caller = require("operations")
    ) -> Receipt:
        """Tell customers something in your own words."""
        incident = await _incident(stream, incident_id, caller=caller)
        if incident.status == "closed":
            raise Problem(409, f"the incident {incident_id} is closed: declare a new one")
        command = UpdateIncident(
            incident_id=incident_id,
            texts=body.texts,
            next_update_s=body.next_update_s,
            author=caller.name,
        )
        return await _command(stream, command, kind="upd", partition=partition_of(incident_id))

    @router.post("/incidents/{incident_id}/resolve", status_code=202)
    async def resolve_incident(
        incident_id: str, body: ReasonBody, caller: Caller = require("operations")
    ) -> Receipt:
        """Say that it is over; its holds are released."""
        await _incident(stream, incident_id, caller=caller)
        command = ResolveIncident(incident_id=incident_id, reason=body.reason, author=caller.name)
        return await _command(stream, command, kind="cmd", partition=partition_of(incident_id))


def _add_policy(router: APIRouter, stream: Stream) -> None:
    @router.get("/policy")
    async def read_policy(_: Caller = require(*READERS)) -> dict[int, Policy | None]:
        """Return the policy in force on each partition this detector holds."""
        return {number: ours.state.policy for number, ours in stream.partitions.items()}

    @router.put("/policy", status_code=202)
    async def apply_policy(policy: Policy, caller: Caller = require("admin")) -> list[Receipt]:
        """Put a policy in force: it is written to every partition."""
        example = Incident(
            incident_id="example",
            network="example",
            status="open",
            severity="major",
            title="Example",
            detail="Detail.",
            opened_at=stream.clock.now(),
            changed_at=stream.clock.now(),
        )
        if wrong := messages.check(policy, example):
            raise Problem(422, "; ".join(wrong))
        command = PolicyApplied(policy=policy, author=caller.name)
        return [
            await _command(stream, command, kind="policy", partition=partition)
            for partition in range(DISRUPTIONS.partitions)
        ]


async def _command(
    stream: Stream, command: Any, *, kind: str, partition: int | None = None
) -> Receipt:
    traceparent = new_traceparent()
    done = await _acknowledged(
        stream.write(
            command,
            event_id=traceparent.split("-")[1],
            source=f"/people/{command.author}",
            traceparent=traceparent,
            partition=partition,
        )
    )
    at = _recorded_at(done)
    derived = entry_id(kind, partition=done.partition, offset=done.offset, at=at)
    return _receipt(derived, done)


async def _acknowledged(write: Any) -> Any:
    try:
        return await write
    except Exception as error:  # Any of aiokafka's: what counts is that nobody acknowledged it.
        raise Problem(
            503,
            f"not acknowledged by Kafka ({type(error).__name__}): it may or may not be in the log. "
            "Send it again: the same source and id are the same fact",
        ) from error


def _receipt(receipt_id: str, done: RecordMetadata) -> Receipt:
    return Receipt(
        id=receipt_id,
        partition=done.partition,
        offset=done.offset,
        recorded_at=_recorded_at(done),
    )


def _recorded_at(done: RecordMetadata) -> datetime:
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


async def _incident(stream: Stream, incident_id: str, *, caller: Caller | None = None) -> Incident:
    await _known(lambda: incident_id in stream.incidents, f"there is no incident {incident_id}")
    incident = stream.incidents[incident_id]
    if caller is not None:
        _may_name(caller, incident.network)
    return incident


async def _known(there: Any, otherwise: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not there():  # noqa: ASYNC110  # Views are fed by readers that know no waiters.
                await asyncio.sleep(PATIENCE_S / 50)
    except TimeoutError as error:
        raise Problem(404, otherwise) from error


def _may_name(caller: Caller, network: str) -> None:
    if not caller.may_name(network):
        raise field_problem("network", f"{caller.name} may not speak for {network}", status=403)
