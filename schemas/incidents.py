"""What the detector concludes: the incident as it now stands, and what customers are told."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from schemas.base import Id, Instant, Language, Network, Record, Severity, Text, Title, Value
from schemas.disruptions import Texts
from schemas.labels import Labels
from schemas.policies import Audience, Family, Moment

Status = Literal["investigating", "identified", "monitoring", "resolved", "closed"]
REPORTS_SHOWN = 100


class Variant(Value):
    """The words for a family of channels, an audience, or both; `texts` of the update are for all others."""

    language: Language
    family: Family | None = None
    audience: Audience | None = None
    text: Text


class Draft(Value):
    """An update that waits for a person; at `due_at` the policy says what becomes of it."""

    update_id: Id
    moment: Moment
    texts: Texts
    variants: tuple[Variant, ...] = ()
    due_at: Instant


class Incident(Record):
    """The incident as it now stands; the newest record of an id is the truth.

    `report_keys` names what it rests on, the first hundred of `report_count`.
    """

    TYPE: ClassVar[str] = "interlock.incident.v1"
    incident_id: Id
    network: Network
    status: Status
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
    planned: bool = False
    titles: dict[Language, Title] = {}
    details: dict[Language, Text] = {}
    release_at: Instant | None = None
    draft: Draft | None = None
    report_count: int = 0
    report_keys: tuple[str, ...] = Field(default=(), max_length=REPORTS_SHOWN)
    merged_into: Id | None = None

    @property
    def is_open(self) -> bool:
        return self.status not in ("resolved", "closed")


class StatusUpdate(Record):
    """A message to customers about an incident, in each language that is written."""

    TYPE: ClassVar[str] = "interlock.status-update.v1"
    update_id: Id
    incident_id: Id
    network: Network
    number: int
    moment: Moment | Literal["written"]
    texts: Texts
    variants: tuple[Variant, ...] = ()
    labels: Labels = {}
    severity: Severity = "major"
    written_at: Instant
    next_update_at: Instant | None = None
    author: str = "detector"
