"""HTTP for people: commands to the detector, and what it knows. Operations systems: `doors.py`.

Every write is a record appended to `ops.disruptions`; 202 means that the brokers acknowledged it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from fastapi import APIRouter
from pydantic import Field

from schemas.base import Id, Instant, Network, Severity, Title, Value
from schemas.disruptions import (
    HORIZON_S,
    PLACES,
    ApproveUpdate,
    DeclareIncident,
    HoldOffers,
    MergeIncidents,
    Phase,
    PolicyApplied,
    ReleaseHold,
    ResolveIncident,
    SplitIncident,
    Texts,
    UpdateIncident,
)
from schemas.envelope import new_traceparent
from schemas.holds import HoldOpened
from schemas.incidents import Incident
from schemas.labels import Labels, Matchers
from schemas.policies import Policy
from schemas.topics import DISRUPTIONS
from schemas.vocabulary import Vocabulary
from services.detector import messages, naming
from services.detector.doors import READERS, Receipt, acknowledged, receipt_of, recorded_at
from services.detector.state import entry_id, partition_of
from services.detector.stream import Stream
from services.detector.views import Views
from services.kit.settings import Watched
from services.kit.web import Caller, Problem, field_problem, require

BATCH_EVENTS = 500
PATIENCE_S = 1.0  # For the view to know what was acknowledged a moment ago.
BATCH_TYPE = "application/cloudevents-batch+json"


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
    phase: Phase | None = None


class ApprovalBody(Value):
    """A draft's approval; `texts` are sent in its place."""

    texts: Texts | None = None


class MergeBody(Value):
    """The incident that another one is part of."""

    into_id: Id


class SplitBody(Value):
    """The reports that are an incident of their own."""

    report_keys: tuple[str, ...] = Field(min_length=1, max_length=PLACES)


def new_router(stream: Stream, views: Views, vocabulary: Watched[Vocabulary]) -> APIRouter:
    """Return the detector's routes."""
    router = APIRouter(prefix="/v1")
    _add_holds(router, stream, views)
    _add_incidents(router, stream, views)
    _add_updates(router, stream, views)
    _add_corrections(router, stream, views)
    _add_policy(router, stream, vocabulary)
    return router


def _add_holds(router: APIRouter, stream: Stream, views: Views) -> None:
    @router.get("/holds")
    async def list_holds(_: Caller = require(*READERS)) -> list[HoldOpened]:
        """List the holds that are open, the longest standing first."""
        await _views_read(views)
        return list(views.holds)

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
        await _known(views, lambda: views.holds.knows(hold_id), f"there is no hold {hold_id}")
        hold = next((h for h in views.holds if h.hold_id == hold_id), None)
        if hold is None:
            raise Problem(409, f"the hold {hold_id} was released before")
        _may_name(caller, hold.network)
        command = ReleaseHold(hold_id=hold_id, reason=body.reason, author=caller.name)
        return await _command(stream, command, kind="cmd", partition=partition_of(hold_id))


def _add_incidents(router: APIRouter, stream: Stream, views: Views) -> None:
    @router.get("/incidents")
    async def list_incidents(_: Caller = require(*READERS)) -> list[Incident]:
        """List incidents, the last changed first."""
        await _views_read(views)
        return list(reversed(views.incidents.values()))

    @router.get("/incidents/{incident_id}")
    async def read_incident(incident_id: str, _: Caller = require(*READERS)) -> Incident:
        return await _incident(views, incident_id)

    @router.post("/incidents", status_code=202)
    async def declare_incident(
        body: IncidentBody, caller: Caller = require("operations")
    ) -> Receipt:
        """Declare an incident; the answer's id is the incident's."""
        _may_name(caller, body.network)
        command = DeclareIncident(**dict(body), author=caller.name)
        return await _command(stream, command, kind="inc")

    @router.post("/incidents/{incident_id}/resolve", status_code=202)
    async def resolve_incident(
        incident_id: str, body: ReasonBody, caller: Caller = require("operations")
    ) -> Receipt:
        """Say that it is over; its holds are released."""
        await _incident(views, incident_id, caller=caller)
        command = ResolveIncident(incident_id=incident_id, reason=body.reason, author=caller.name)
        return await _command(stream, command, kind="cmd", partition=partition_of(incident_id))


def _add_updates(router: APIRouter, stream: Stream, views: Views) -> None:
    @router.post("/incidents/{incident_id}/updates", status_code=202)
    async def write_update(
        incident_id: str, body: UpdateBody, caller: Caller = require("operations")
    ) -> Receipt:
        """Tell customers something in your own words."""
        incident = await _incident(views, incident_id, caller=caller)
        if incident.status == "closed":
            raise Problem(409, f"the incident {incident_id} is closed: declare a new one")
        command = UpdateIncident(
            incident_id=incident_id,
            texts=body.texts,
            next_update_s=body.next_update_s,
            phase=body.phase,
            author=caller.name,
        )
        return await _command(stream, command, kind="upd", partition=partition_of(incident_id))

    @router.post("/incidents/{incident_id}/updates/{update_id}/approve", status_code=202)
    async def approve_update(
        incident_id: str,
        update_id: str,
        body: ApprovalBody,
        caller: Caller = require("operations"),
    ) -> Receipt:
        """Let a draft go out, as it is or with other words."""
        incident = await _incident(views, incident_id, caller=caller)
        if incident.draft is None or incident.draft.update_id != update_id:
            raise Problem(409, f"{update_id} is not the draft that waits: look at the incident")
        command = ApproveUpdate(
            incident_id=incident_id, update_id=update_id, texts=body.texts, author=caller.name
        )
        return await _command(stream, command, kind="cmd", partition=partition_of(incident_id))


def _add_corrections(router: APIRouter, stream: Stream, views: Views) -> None:
    @router.post("/incidents/{incident_id}/merge", status_code=202)
    async def merge_incidents(
        incident_id: str, body: MergeBody, caller: Caller = require("operations")
    ) -> Receipt:
        """Make an incident part of another: its reports and holds move there, and it is closed."""
        one = await _incident(views, incident_id, caller=caller)
        into = await _incident(views, body.into_id, caller=caller)
        if one.network != into.network or incident_id == body.into_id:
            raise field_problem("into_id", "another incident of the same network was expected")
        if not one.is_open or not into.is_open:
            raise Problem(409, "both incidents must be open")
        command = MergeIncidents(incident_id=incident_id, into_id=body.into_id, author=caller.name)
        return await _command(stream, command, kind="cmd", partition=partition_of(incident_id))

    @router.post("/incidents/{incident_id}/split", status_code=202)
    async def split_incident(
        incident_id: str, body: SplitBody, caller: Caller = require("operations")
    ) -> Receipt:
        """Make some reports an incident of their own; the answer's id is that incident's."""
        incident = await _incident(views, incident_id, caller=caller)
        if not incident.is_open:
            raise Problem(409, f"the incident {incident_id} is not open")
        known = set(incident.report_keys)
        if unknown := [key for key in body.report_keys if key not in known]:
            raise field_problem("report_keys", f"{unknown[0]!r} is none of the incident's")
        if known <= set(body.report_keys):
            raise field_problem("report_keys", "one report at least must stay")
        command = SplitIncident(
            incident_id=incident_id, report_keys=body.report_keys, author=caller.name
        )
        return await _command(stream, command, kind="inc", partition=partition_of(incident_id))


def _add_policy(router: APIRouter, stream: Stream, vocabulary: Watched[Vocabulary]) -> None:
    @router.get("/policy")
    async def read_policy(_: Caller = require(*READERS)) -> dict[int, Policy | None]:
        """Return the policy in force on each partition this detector holds."""
        return {number: ours.state.policy for number, ours in stream.partitions.items()}

    @router.put("/policy", status_code=202)
    async def apply_policy(policy: Policy, caller: Caller = require("admin")) -> list[Receipt]:
        """Put a policy in force: it is written to every partition."""
        if wrong := messages.check(policy) | naming.check(policy, vocabulary.value):
            errors = [
                {"pointer": "/" + "/".join(map(str, where)), "detail": why}
                for where, why in wrong.items()
            ]
            raise Problem(
                422, "; ".join(f"{e['pointer'][1:]}: {e['detail']}" for e in errors), errors=errors
            )
        command = PolicyApplied(policy=policy, author=caller.name)
        return [
            await _command(stream, command, kind="policy", partition=partition)
            for partition in range(DISRUPTIONS.partitions)
        ]


async def _command(
    stream: Stream, command: Any, *, kind: str, partition: int | None = None
) -> Receipt:
    traceparent = new_traceparent()
    done = await acknowledged(
        stream.write(
            command,
            event_id=traceparent.split("-")[1],
            source=f"/people/{command.author}",
            traceparent=traceparent,
            partition=partition,
        )
    )
    at = recorded_at(done)
    derived = entry_id(kind, partition=done.partition, offset=done.offset, at=at)
    return receipt_of(derived, done)


async def _incident(views: Views, incident_id: str, *, caller: Caller | None = None) -> Incident:
    missing = f"there is no incident {incident_id}"
    await _known(views, lambda: incident_id in views.incidents, missing)
    incident = views.incidents[incident_id]
    if caller is not None:
        _may_name(caller, incident.network)
    return incident


async def _views_read(views: Views) -> None:
    if not await _came(lambda: views.are_read):
        raise Problem(503, "the holds and incidents there were are still being read: ask again")


async def _known(views: Views, there: Callable[[], bool], otherwise: str) -> None:
    if not await _came(there):
        await _views_read(views)
        raise Problem(404, otherwise)


async def _came(there: Callable[[], bool]) -> bool:
    """Say whether it is so within a moment: views are fed by readers that know no waiters."""
    with suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_S):
            while not there():  # noqa: ASYNC110
                await asyncio.sleep(PATIENCE_S / 50)
    return there()


def _may_name(caller: Caller, network: str) -> None:
    if not caller.may_name(network):
        raise field_problem("network", f"{caller.name} may not speak for {network}", status=403)
