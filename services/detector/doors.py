"""HTTP for operations systems: what they report becomes records of `ops.disruptions`.

202 means that the brokers acknowledged it. What cannot be read is refused by name, and holds
nothing: whoever sent it knows.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import uuid
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from aiokafka.structs import RecordMetadata
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from schemas.disruptions import SOURCE_DISRUPTIONS, Disruption, SourceRead
from schemas.labels import matches
from services.detector.ingest import (
    alertmanager,
    cap,
    cloudevents,
    gtfs_realtime,
    mapping,
    pagerduty,
    siri_sx,
    statuspage,
)
from services.detector.ingest.reading import CannotRead, Reader, Reading, Refused
from services.detector.sources import Signature, Source, address_of
from services.detector.state import reports_of
from services.detector.stream import Stream
from services.kit.web import Caller, Problem, authenticated, field_problem, require

READERS = ("viewer", "operations", "marketing", "approver", "emitter", "admin")


FORMATS: dict[str, Reader] = {
    "alertmanager": alertmanager.read,
    "cap": cap.read,
    "gtfs-realtime": gtfs_realtime.read,
    "mapping": mapping.read,
    "pagerduty": pagerduty.read,
    "siri-sx": siri_sx.read,
    "statuspage": statuspage.read,
}


class Taken(BaseModel):
    """What became of a body: disruptions in the log, and what was passed over as it should be."""

    taken: int
    ignored: int = 0


class Receipt(BaseModel):
    """Where an event or a command stands in the log: it was acknowledged by the brokers."""

    id: str
    partition: int
    offset: int
    recorded_at: datetime


def new_router(stream: Stream, sources: dict[str, Source]) -> APIRouter:
    """Return the routes of operations systems."""
    router = APIRouter()
    _add_events(router, stream)
    _add_sources(router, stream, sources)
    for prefix in ("", "/sources/{source}"):
        _add_alertmanager(router, stream, sources, prefix=prefix)
    return router


def _add_events(router: APIRouter, stream: Stream) -> None:
    @router.post("/v1/events", status_code=202)
    async def take_events(request: Request, caller: Caller = require("emitter")) -> list[Receipt]:
        """Take CloudEvents 1.0: binary, structured or batched. A batch is taken whole or not."""
        found, refused = cloudevents.read(dict(request.headers), await request.body())
        if refused:
            raise _refusal(refused)
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


def _add_sources(router: APIRouter, stream: Stream, sources: dict[str, Source]) -> None:
    sender, routed = Depends(_Sender(sources)), Depends(_routed)

    @router.post("/v1/events/{source}", status_code=202)
    async def take(source: str, request: Request, caller: Caller = sender) -> Taken:
        """Take what a source sends in its own format, as the file of sources says."""
        known = _source(sources, source)
        return await take_body(stream, source, known, await request.body(), caller)

    @router.post(
        "/v2/enqueue", status_code=202, responses={400: {"content": {"application/json": {}}}}
    )
    async def enqueue(request: Request, caller: Caller = routed) -> Response:
        """Take an event of PagerDuty's Events API v2; the routing key is an API key of ours."""
        name = _only(sources, "pagerduty", caller=caller)
        body = await request.body()
        try:
            await take_body(stream, name, sources[name], body, caller)
        except Problem as error:
            if error.status_code != HTTPStatus.UNPROCESSABLE_ENTITY:
                raise
            told = [f"{e['pointer']}: {e['detail']}" for e in error.errors]
            wrong = {"status": "invalid event", "message": str(error.detail), "errors": told}
            return JSONResponse(wrong, HTTPStatus.BAD_REQUEST)  # As its clients expect it.
        key = pagerduty.dedup_key_of(json.loads(body))
        done = {"status": "success", "message": "Event processed", "dedup_key": key}
        return JSONResponse(done, HTTPStatus.ACCEPTED)


def _add_alertmanager(
    router: APIRouter, stream: Stream, sources: dict[str, Source], *, prefix: str
) -> None:
    """Add so much of Alertmanager's API v2 that Prometheus and amtool are content."""

    def named(source: str, caller: Caller) -> str:
        name = source or _only(sources, "alertmanager", caller=caller)
        if _source(sources, name).format != "alertmanager":
            raise Problem(404, f"the source {name!r} has the format {sources[name].format}")
        return name

    @router.post(f"{prefix}/api/v2/alerts")
    async def push_alerts(
        request: Request, source: str = "", caller: Caller = require("emitter")
    ) -> Taken:
        """Take alerts that Prometheus pushes, as it does to each of its Alertmanagers."""
        name = named(source, caller)
        return await take_body(stream, name, sources[name], await request.body(), caller)

    @router.get(f"{prefix}/api/v2/alerts")
    async def list_alerts(
        source: str = "",
        filters: Annotated[list[str] | None, Query(alias="filter")] = None,
        active: bool = True,
        unprocessed: bool = True,
        caller: Caller = require(*READERS),
    ) -> list[dict[str, Any]]:
        """List the alerts that this detector's partitions know of; `unprocessed` ones still wait."""
        name = named(source, caller)
        address = address_of(sources[name], name)
        alerts = [
            alertmanager.write_alert(report)
            for ours in stream.partitions.values()
            for report in reports_of(ours.state)
            if report.source == address
            and report.status != "over"
            and (unprocessed if report.waits_for else active)
        ]
        try:
            wanted = [alertmanager.read_filter(one) for one in filters or ()]
        except ValueError as error:
            raise Problem(400, f"filter: {error}") from error
        return [a for a in alerts if all(matches(one, a["labels"]) for one in wanted)]

    @router.get(f"{prefix}/api/v2/silences")
    async def list_silences(source: str = "", caller: Caller = require(*READERS)) -> list[str]:
        """List none: who must not be heard is the policy's to say."""
        named(source, caller)
        return []

    @router.get(f"{prefix}/api/v2/status")
    async def read_status(source: str = "", caller: Caller = require(*READERS)) -> dict[str, Any]:
        named(source, caller)
        return alertmanager.status(started_at=stream.started_at)


async def take_body(
    stream: Stream, name: str, source: Source, body: bytes, caller: Caller
) -> Taken:
    """Write what a body says into the log. What of it can be read is taken, the rest refused."""
    try:
        reading = FORMATS[source.format](body, source, stream.clock.now())
    except CannotRead as error:
        raise _refusal([Refused(error.where, error.why)]) from error
    for one in reading.reported:
        if not caller.may_name(one.event.network):
            raise field_problem(
                "network", f"{caller.name} may not speak for {one.event.network}", status=403
            )
    taken = await write_reading(stream, name, source, reading)
    if reading.refused:
        every = taken.taken + len(reading.refused)
        raise _refusal(reading.refused, before=f"{taken.taken} of {every} were taken. ")
    return taken


def _refusal(refused: list[Refused], *, before: str = "") -> Problem:
    said = "; ".join(f"{one.where}: {one.why}".removeprefix(": ") for one in refused)
    errors = [{"pointer": one.where, "detail": one.why} for one in refused]
    return Problem(422, f"{before}{said}", errors=errors)


async def write_reading(stream: Stream, name: str, source: Source, reading: Reading) -> Taken:
    """Write a reading into the log; returns when the brokers acknowledged all of it."""
    if len(reading.named) > SOURCE_DISRUPTIONS:
        raise Problem(422, f"more than {SOURCE_DISRUPTIONS} disruptions at once")
    records = records_of(reading, name, source)
    writes = [
        stream.write(record, event_id=event_id, source=address)
        for record, event_id, address in records
        if isinstance(record, Disruption)
    ]
    await acknowledged(asyncio.gather(*writes))
    for record, event_id, address in records:
        if isinstance(record, SourceRead):  # Behind them: nothing new is taken for what is gone.
            await acknowledged(stream.write(record, event_id=event_id, source=address))
    return Taken(taken=len(reading.reported), ignored=reading.ignored)


async def expect(stream: Stream, name: str, source: Source) -> None:
    """Write into the log that a source will be read from now on: its silence counts from here."""
    address = address_of(source, name)
    begun = SourceRead(network=source.network, source=address, is_only_expected=True)
    await stream.write(begun, event_id=uuid.uuid4().hex, source=address)


def records_of(
    reading: Reading, name: str, source: Source
) -> list[tuple[Disruption | SourceRead, str, str]]:
    """Return the records that a reading becomes, each with its event's id and source, in order."""
    address = address_of(source, name)
    found: list[tuple[Disruption | SourceRead, str, str]] = [
        (one.event, one.event_id or uuid.uuid4().hex, address) for one in reading.reported
    ]
    if reading.whole:
        named = tuple(dict.fromkeys(reading.named))
        read = SourceRead(network=source.network, source=address, disruption_ids=named)
        found.append((read, uuid.uuid4().hex, address))
    return found


class _Sender:
    """Who sends for a source: somebody with a key, or somebody who signs as the source says."""

    roles = frozenset({"emitter"})

    def __init__(self, sources: dict[str, Source]) -> None:
        self._sources = sources

    async def __call__(self, source: str, request: Request) -> Caller:
        known = self._sources.get(source)
        signature = known.signature if known else None
        if signature is None or "authorization" in request.headers:
            return authenticated(request, self.roles)
        given = request.headers.get(signature.header, "")
        if not is_signed(signature, await request.body(), given):
            raise Problem(
                401, f"{signature.header}: not the HMAC-SHA256 of this body by our secret"
            )
        return Caller(name=f"source {source}", roles=self.roles)


def is_signed(signature: Signature, body: bytes, given: str) -> bool:
    """Say whether one of the signatures in a header, divided by commas, is right."""
    secret = signature.secret.get_secret_value().encode()
    right = signature.prefix + hmac.new(secret, body, hashlib.sha256).hexdigest()
    found = [one.strip().encode() for one in given.split(",")]  # As text it must be ASCII.
    return any(hmac.compare_digest(right.encode(), one) for one in found)


async def _routed(request: Request) -> Caller:
    try:
        found = json.loads(await request.body())
        key = found["routing_key"] if isinstance(found, dict) else None
    except (ValueError, KeyError, RecursionError):
        key = None
    return authenticated(request, frozenset({"emitter"}), key=key if isinstance(key, str) else None)


_routed.roles = frozenset({"emitter"})  # type: ignore[attr-defined]  # Read by the table of routes.


def _source(sources: dict[str, Source], name: str) -> Source:
    if name not in sources:
        known = ", ".join(sources) or "none: INTERLOCK_SOURCES names their file"
        raise Problem(404, f"there is no source {name!r}; there are: {known}")
    return sources[name]


def _only(sources: dict[str, Source], kind: str, *, caller: Caller) -> str:
    """Return the source a caller sends for where the path names none: its own, or the only one."""
    found = [name for name, source in sources.items() if source.format == kind]
    if caller.name in found:
        return caller.name
    if len(found) != 1:
        raise Problem(
            404,
            f"{len(found)} sources have the format {kind}: there must be one, "
            "or one with the name of the key",
        )
    return found[0]


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
