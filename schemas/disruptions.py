"""What enters the detector's log: disruptions, people's commands, deadlines and fences.

Commands are imperative; all of them are records of `ops.disruptions`, so that there is one way in
and one order.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from schemas.base import Id, Instant, Language, Network, Record, Severity, Text, Title, Value
from schemas.labels import LabelName, Labels, Matchers
from schemas.policies import Policy

Texts = Annotated[dict[Language, Text], Field(min_length=1, max_length=20)]
Phase = Literal["investigating", "identified", "monitoring"]
HORIZON_S = 366 * 24 * 3600
DETAIL_CHARS = 10_000
LINK_CHARS = 2_000
PLACES = 200
PERIODS = 50
REPLACED = 50
LANGUAGES = 20
SOURCE_DISRUPTIONS = 10_000


class Period(Value):
    """From `start_at` (included) to `end_at` (excluded); an end that is missing is open."""

    start_at: Instant | None = None
    end_at: Instant | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start_at and self.end_at and self.end_at <= self.start_at:
            raise ValueError("end_at: must be after start_at")
        return self


class Disruption(Record):
    """What an operations system reports: one `(network, source, disruption_id)`, as it now is.

    `scopes` names several places: each is joined with `labels`. `values` are numbers that rules
    compare, such as `delay_min`. Outside its `periods` it is not in force; none means at once and
    without an end. At `expires_at` it counts as resolved unless it was reported again. It takes the
    place of those that it `replaces`. `acknowledged`: somebody is at it, and all else is as it was.
    """

    TYPE: ClassVar[str] = "interlock.disruption.v1"
    disruption_id: Id
    network: Network
    status: Literal["opened", "updated", "acknowledged", "resolved"]
    title: Title | Literal[""] = Field(default="", validate_default=True)
    severity: Severity = "major"
    labels: Labels = {}
    detail: str = Field(default="", max_length=DETAIL_CHARS)
    occurred_at: Instant | None = None
    expected_end_at: Instant | None = None
    link: str | None = Field(default=None, max_length=LINK_CHARS, pattern=r"^https?://")
    scopes: tuple[Labels, ...] = Field(default=(), max_length=PLACES)
    values: dict[LabelName, float] = Field(default={}, max_length=LANGUAGES)
    titles: dict[Language, Title] = Field(default={}, max_length=LANGUAGES)
    details: dict[Language, Text] = Field(default={}, max_length=LANGUAGES)
    phase: Phase | None = None
    planned: bool = False
    periods: tuple[Period, ...] = Field(default=(), max_length=PERIODS)
    expires_at: Instant | None = None
    replaces: tuple[Id, ...] = Field(default=(), max_length=REPLACED)

    @field_validator("title")
    @classmethod
    def _says_what_it_is(cls, title: str, known: ValidationInfo) -> str:
        if not title and known.data.get("status") not in ("resolved", "acknowledged"):
            raise PydanticCustomError("missing", "Field required")
        return title


class SourceRead(Record):
    """A source's whole data set was read: what it reported before and is not named here is over.

    `is_only_expected`: nothing was read yet, but somebody has begun to try.
    """

    TYPE: ClassVar[str] = "interlock.source-read.v1"
    network: Network
    source: Id
    is_only_expected: bool = False
    disruption_ids: tuple[Id, ...] = Field(default=(), max_length=SOURCE_DISRUPTIONS)


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
    """Somebody writes a status update in their own words; `phase` moves the incident as well."""

    TYPE: ClassVar[str] = "interlock.update-incident.v1"
    incident_id: Id
    texts: Texts
    next_update_s: int | None = Field(default=None, ge=1, le=HORIZON_S)
    phase: Phase | None = None
    author: str


class ApproveUpdate(Record):
    """Somebody lets a draft go out, as it is or with other words."""

    TYPE: ClassVar[str] = "interlock.approve-update.v1"
    incident_id: Id
    update_id: Id
    texts: Texts | None = None
    author: str


class MergeIncidents(Record):
    """Somebody says that one incident is part of another: its reports and its holds move there."""

    TYPE: ClassVar[str] = "interlock.merge-incidents.v1"
    incident_id: Id
    into_id: Id
    author: str


class SplitIncident(Record):
    """Somebody says that some reports of an incident are an incident of their own."""

    TYPE: ClassVar[str] = "interlock.split-incident.v1"
    incident_id: Id
    report_keys: tuple[str, ...] = Field(min_length=1, max_length=PLACES)
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
    """Time has passed: the detector's clock says so in the log, and the fold acts on reading it.

    `subject` is an incident's id, or for `report` and `stale` the key of a report or a source.
    """

    TYPE: ClassVar[str] = "interlock.deadline.v1"
    subject: str = Field(min_length=1, max_length=1_000)
    kind: Literal["next_update", "draft", "release", "close", "report", "stale"]
    due_at: Instant


class Fence(Record):
    """A publisher's marker behind the events; its echo is awaited behind the holds."""

    TYPE: ClassVar[str] = "interlock.fence.v1"
    publisher: Id
    number: int = Field(ge=0)


Command = (
    HoldOffers
    | ReleaseHold
    | DeclareIncident
    | UpdateIncident
    | ApproveUpdate
    | ResolveIncident
    | MergeIncidents
    | SplitIncident
)
