"""The public page as values: what is said of incidents, components and planned works, and in which words.

Gathered once, so that the page and every format beside it say the same. Components are the places
that customers know; an incident touches those whose matchers cover its labels.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from schemas.base import Language, Severity
from schemas.incidents import Incident
from schemas.labels import Labels, Matchers, format_matchers, matches, parse_matchers
from schemas.policies import Zone
from services.publisher.texts import printable

ComponentState = Literal[
    "operational", "degraded_performance", "partial_outage", "major_outage", "under_maintenance"
]
Indicator = Literal["none", "minor", "major", "critical", "maintenance"]
INCIDENTS = 1_000
PAST = 50  # As many as Statuspage's API has; the newest.
WHOLE = "network"
COMPONENT_OF: dict[Severity, ComponentState] = {
    "critical": "major_outage", "major": "partial_outage",
    "minor": "degraded_performance", "info": "operational",
}  # fmt: skip
IMPACT_OF: dict[Severity, Indicator] = {
    "critical": "critical", "major": "major", "minor": "minor", "info": "none",
}  # fmt: skip
_WORST: list[ComponentState] = [
    "operational", "under_maintenance", "degraded_performance", "partial_outage", "major_outage",
]  # fmt: skip
_WORST_INDICATOR: list[Indicator] = ["none", "maintenance", "minor", "major", "critical"]


class Component(BaseModel):
    """A place or service that customers know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    name: str
    names: dict[Language, str] = {}
    matchers: Matchers = Field(description="which incidents touch it")


class PageSettings(BaseModel):
    """The file of the public page. The first language is the one of `/`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = "Service status"
    titles: dict[Language, str] = {}
    languages: tuple[Language, ...] = Field(default=("en",), min_length=1)
    time_zone: Zone = "UTC"
    support_url: str | None = Field(default=None, pattern=r"^https?://|^mailto:|^tel:")
    history_days: int = Field(default=14, ge=1, le=400)
    components: tuple[Component, ...] = ()

    @field_validator("components")
    @classmethod
    def _one_of_each(cls, found: tuple[Component, ...]) -> tuple[Component, ...]:
        names = [one.id for one in found]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name}: there are two of it")
        return found

    def matchers_of(self, component: str) -> str | None:
        """Return what touches a component, as text; of none, everything; None where there is none."""
        found = {one.id: format_matchers(one.matchers) for one in self.components}
        return found.get(component) if component else "{}"


class Incidents:
    """The incidents as they now stand; above a thousand the oldest that are over go."""

    def __init__(self) -> None:
        self._known: dict[str, Incident] = {}

    def keep(self, incident: Incident) -> None:
        """Take an incident as it now is."""
        self._known[incident.incident_id] = incident
        if len(self._known) > INCIDENTS:
            over = [one for one in self._known.values() if not one.is_open]
            for one in sorted(over, key=lambda one: one.changed_at)[: INCIDENTS // 10]:
                del self._known[one.incident_id]

    def all(self) -> list[Incident]:
        """Return them in no order."""
        return list(self._known.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One update as it stands on our own feed."""

    post_id: str
    language: str
    text: str
    at: datetime
    incident_id: str | None
    kind: str = "update"
    media: tuple[tuple[str, str], ...] = ()  # Where each picture is, and what it shows.


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One incident with what was said of it, the newest first, and what it touches."""

    incident: Incident
    said: tuple[Said, ...]
    components: tuple[Component, ...]

    def title(self, language: str) -> str:
        return printable(self.incident.titles.get(language, self.incident.title))

    def texts(self, language: str) -> list[Said]:
        """Return what was said in a language; where nothing was, in any."""
        return [one for one in self.said if one.language == language] or list(self.said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """All that the public is told, at one time."""

    settings: PageSettings
    url: str
    at: datetime
    current: tuple[Shown, ...]  # The most severe first.
    planned: tuple[Shown, ...]
    past: tuple[Shown, ...]  # The newest first.
    posts: tuple[Said, ...]  # Our feed: updates and offers that stand, the newest first.
    states: dict[str, ComponentState]
    indicator: Indicator

    @property
    def changed_at(self) -> datetime:
        """Return when something changed last; with nothing to tell, the beginning of the day."""
        times = [s.incident.changed_at for s in self.all] + [post.at for post in self.posts]
        return max(times, default=self.at.replace(hour=0, minute=0, second=0, microsecond=0))

    @property
    def all(self) -> tuple[Shown, ...]:
        return (*self.current, *self.planned, *self.past)


def gather(
    settings: PageSettings,
    incidents: Iterable[Incident],
    posts: Iterable[Said],
    *,
    url: str,
    at: datetime,
) -> Page:
    """Return the page as it is now."""
    posts = tuple(replace(post, text=printable(post.text)) for post in posts)
    by_incident: dict[str, list[Said]] = {}
    for post in posts:
        if post.incident_id and post.kind == "update":
            by_incident.setdefault(post.incident_id, []).append(post)
    since = at - timedelta(days=settings.history_days)
    shown = [
        Shown(
            incident=one,
            said=tuple(sorted(by_incident.get(one.incident_id, ()), key=lambda s: s.at)[::-1]),
            components=tuple(c for c in settings.components if touches(c.matchers, one.labels)),
        )
        for one in incidents
        if one.merged_into is None and (one.is_open or one.changed_at >= since)
    ]
    order = list(COMPONENT_OF)
    shown.sort(key=lambda s: s.incident.opened_at, reverse=True)
    current = [s for s in shown if s.incident.is_open and not s.incident.planned]
    current.sort(key=lambda s: order.index(s.incident.severity))
    planned = [s for s in shown if s.incident.is_open and s.incident.planned]
    return Page(
        settings=settings,
        url=url,
        at=at,
        current=tuple(current),
        planned=tuple(planned),
        past=tuple(s for s in shown if not s.incident.is_open)[:PAST],
        posts=posts,
        states=_states(settings, current, planned),
        indicator=_indicator(current, planned),
    )


def touches(matchers: Matchers, labels: Labels) -> bool:
    """Say whether an incident with these labels is about a component.

    What it says must fit, and it must say something of the component, or of nothing in particular:
    an incident of a whole network touches all of it.
    """
    said = tuple(one for one in matchers if one.name in labels)
    if not matches(said, labels):
        return False
    is_of_all = set(labels) <= {WHOLE}
    return is_of_all or any(one.name != WHOLE for one in said)


def concerns(matchers: str, labels: Labels) -> bool:
    """Say whether somebody who chose these matchers, or everything, is to hear of it."""
    chosen = parse_matchers(matchers)
    return not chosen or touches(chosen, labels)


def _states(
    settings: PageSettings, current: list[Shown], planned: list[Shown]
) -> dict[str, ComponentState]:
    found: dict[str, ComponentState] = {one.id: "operational" for one in settings.components}
    touched = [(s, COMPONENT_OF[s.incident.severity]) for s in current]
    works: ComponentState = "under_maintenance"
    for shown, state in [*touched, *((s, works) for s in planned)]:
        for component in shown.components:
            found[component.id] = max(found[component.id], state, key=_WORST.index)
    return found


def _indicator(current: list[Shown], planned: list[Shown]) -> Indicator:
    found: list[Indicator] = [IMPACT_OF[s.incident.severity] for s in current]
    found += ["maintenance"] * bool(planned)
    return max(found, key=_WORST_INDICATOR.index, default="none")
