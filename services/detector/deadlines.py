"""What a state waits for, and which of it is due.

A story that has not changed is not looked at again: of many incidents a look at all takes long (docs/bench/detector.md),
five times a second, and no disruption is folded meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Literal, TypeAlias

from schemas.disruptions import Deadline
from services.detector.state import PerStory, Report, State, Story, items_of

if TYPE_CHECKING:
    from services.detector.state import Map

Kind = Literal["next_update", "draft", "release", "close", "report", "stale"]
Due: TypeAlias = tuple[datetime, str, Kind]  # When, of what, and what.


class Deadlines:
    """The deadlines of a partition's state, which is another one behind each record."""

    def __init__(self) -> None:
        self._of_stories = PerStory(_dues_of)

    def first(self, state: State) -> datetime | None:
        """Return when the first of all is due; None where there is none."""
        firsts = [dues[0] for _, dues in self._of_stories.of(state) if dues]
        first = min([*firsts, *_of_others(state)], default=None)
        return first and first[0]

    def until(self, state: State, until: datetime) -> Iterator[Deadline]:
        """Yield those that are due by then."""
        of_stories = (due for _, dues in self._of_stories.of(state) for due in dues)
        for found in (of_stories, _of_others(state)):
            for due_at, subject, kind in found:
                if due_at <= until:
                    yield Deadline(subject=subject, kind=kind, due_at=due_at)


def story_deadlines(story: Story) -> Iterator[Due]:
    """Yield what a story itself waits for."""
    incident = story.incident
    subject = incident.incident_id
    if incident.next_update_at is not None:
        yield incident.next_update_at, subject, "next_update"
    if incident.draft is not None:
        yield incident.draft.due_at, subject, "draft"
    if incident.release_at is not None:
        yield incident.release_at, subject, "release"
    if story.close_at is not None:
        yield story.close_at, subject, "close"


def _dues_of(story: Story) -> tuple[Due, ...]:
    """Return what a story and its reports wait for, the first one first."""
    found = [*story_deadlines(story), *_of_reports(story.reports)]
    return tuple(sorted(found, key=itemgetter(0)))


def _of_others(state: State) -> Iterator[Due]:
    yield from _of_reports(state.waiting)
    for key, source in items_of(state.sources):
        if source.stale_at is not None:
            yield source.stale_at, key, "stale"


def _of_reports(reports: Map[str, Report]) -> Iterator[Due]:
    for key, report in items_of(reports):
        if report.due_at is not None:
            yield report.due_at, key, "report"
