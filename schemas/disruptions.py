"""What enters the detector's log: disruptions, people's commands, deadlines and fences.

Commands are imperative; all of them are records of `ops.disruptions`, so that there is one way in
and one order.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from schemas.base import Id, Instant, Language, Network, Record, Text, Title
from schemas.labels import Labels, Matchers
from schemas.policies import Policy

Severity = Literal["info", "minor", "major", "critical"]
Texts = Annotated[dict[Language, Text], Field(min_length=1, max_length=20)]
HORIZON_S = 366 * 24 * 3600


class Disruption(Record):
    """What an operations system reports. The same `disruption_id` from one source is one story."""

    TYPE: ClassVar[str] = "interlock.disruption.v1"
    disruption_id: Id
    network: Network
    status: Literal["opened", "updated", "resolved"]
    title: Title
    severity: Severity = "major"
    labels: Labels = {}
    detail: str = Field(default="", max_length=10_000)
    occurred_at: Instant | None = None
    expected_end_at: Instant | None = None
    link: str | None = Field(default=None, max_length=2_000, pattern=r"^https?://")


class HoldOffers(Record):
    """Somebody stops offers by hand."""

    TYPE: ClassVar[str] = "interlock.hold-offers.v1"
    network: Network
    matchers: Matchers
    reason: Title
    author: str
    take_back_s: int | None = Field(default=None, ge=0, le=86_400)


class ReleaseHold(Record):
    """Somebody ends one hold, a manual one or an incident's."""

    TYPE: ClassVar[str] = "interlock.release-hold.v1"
    hold_id: Id
    reason: Title
    author: str


class DeclareIncident(Record):
    """Somebody declares an incident that no system reported."""

    TYPE: ClassVar[str] = "interlock.declare-incident.v1"
    network: Network
    title: Title
    severity: Severity = "major"
    labels: Labels = {}
    detail: str = Field(default="", max_length=10_000)
    expected_end_at: Instant | None = None
    author: str


class UpdateIncident(Record):
    """Somebody writes a status update in their own words."""

    TYPE: ClassVar[str] = "interlock.update-incident.v1"
    incident_id: Id
    texts: Texts
    next_update_s: int | None = Field(default=None, ge=1, le=HORIZON_S)
    author: str


class ResolveIncident(Record):
    """Somebody says that an incident is over; its holds are released."""

    TYPE: ClassVar[str] = "interlock.resolve-incident.v1"
    incident_id: Id
    reason: Title
    author: str


class PolicyApplied(Record):
    """The rules from here on; written to every partition, since what a record means is state."""

    TYPE: ClassVar[str] = "interlock.policy-applied.v1"
    policy: Policy
    author: str


class Deadline(Record):
    """Time has passed: the detector's clock says so in the log, and the fold acts on reading it."""

    TYPE: ClassVar[str] = "interlock.deadline.v1"
    incident_id: Id
    kind: Literal["next_update", "close"]
    due_at: Instant


class Fence(Record):
    """A publisher's marker behind the events; its echo is awaited behind the holds."""

    TYPE: ClassVar[str] = "interlock.fence.v1"
    publisher: Id
    number: int = Field(ge=0)


Command = HoldOffers | ReleaseHold | DeclareIncident | UpdateIncident | ResolveIncident
