"""What the detector concludes: the incident as it now stands, and what customers are told."""

from __future__ import annotations

from typing import ClassVar, Literal

from schemas.base import Id, Instant, Network, Record, Title
from schemas.disruptions import Severity, Texts
from schemas.labels import Labels


class Incident(Record):
    """The incident as it now stands; the newest record of an id is the truth."""

    TYPE: ClassVar[str] = "interlock.incident.v1"
    incident_id: Id
    network: Network
    status: Literal["open", "resolved", "closed"]
    severity: Severity
    title: Title
    detail: str = ""
    labels: Labels = {}
    opened_at: Instant
    changed_at: Instant
    resolved_at: Instant | None = None
    expected_end_at: Instant | None = None
    next_update_at: Instant | None = None
    hold_ids: tuple[Id, ...] = ()
    update_count: int = 0
    rule: str = ""
    link: str | None = None
    author: str = "detector"


class StatusUpdate(Record):
    """A message to customers about an incident, in each language that is written."""

    TYPE: ClassVar[str] = "interlock.status-update.v1"
    update_id: Id
    incident_id: Id
    network: Network
    number: int
    moment: Literal["opened", "working", "resolved", "written"]
    texts: Texts
    labels: Labels = {}
    severity: Severity = "major"
    written_at: Instant
    next_update_at: Instant | None = None
    author: str = "detector"
