"""Plays records to the fold, and looks at what it says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from schemas.base import Record
from schemas.labels import format_matchers
from services.detector.fold import fold
from services.detector.state import Entry, State, deadlines_of
from tests.builders import AT, a_policy, an_entry


def play(*entries: Entry, state: State | None = None) -> tuple[State, list[Record]]:
    """Fold records in order; returns the state and all that was said."""
    state = state or State(policy=a_policy())
    said: list[Record] = []
    for entry in entries:
        step = fold(state, entry)
        state = step.state
        said += step.outputs
    return state, said


def of(kind: type[Any], said: Sequence[Record]) -> list[Any]:
    return [record for record in said if isinstance(record, kind)]


class Log:
    """One partition with its clock: records are offered at a minute, deadlines come by themselves."""

    def __init__(self, **policy: Any) -> None:
        rules = policy.pop("rules", ())
        self.state = State(policy=a_policy(*rules, **policy))
        self.offset = 0
        self.at = AT
        self.said: list[Record] = []

    def put(self, body: Any, *, minute: float | None = None, **entry: Any) -> list[Any]:
        """Fold one record at a minute (the last one's without); returns what it says."""
        if minute is not None:
            self.pass_time(minute)
        return self._fold(an_entry(body, offset=self.offset, at=self.at, **entry))

    def pass_time(self, minute: float) -> list[Any]:
        """Let the detector's clock run to a minute; returns what its deadlines say."""
        until = AT + timedelta(minutes=minute)
        assert until >= self.at, "time passes"
        said: list[Any] = []
        while due := min(deadlines_of(self.state, until=until), key=_due_at, default=None):
            self.at = max(self.at, due.due_at)
            before = self.state
            said += self._fold(an_entry(due, offset=self.offset, at=self.at))
            assert self.state != before, f"a deadline that is due changes nothing: {due}"
        self.at = until
        return said

    def _fold(self, entry: Entry) -> list[Any]:
        step = fold(self.state, entry)
        self.state, self.offset = step.state, self.offset + 1
        self.said += step.outputs
        return list(step.outputs)

    @property
    def holds(self) -> list[str]:
        """Return the holds that incidents have open, as matchers."""
        stories = self.state.stories.values()
        return sorted(h.scope for s in stories for h in s.holds if h.is_open)

    @property
    def precautions(self) -> list[str]:
        return sorted(format_matchers(h.matchers) for h in self.state.other_holds.values())

    @property
    def incidents(self) -> list[Any]:
        found = [story.incident for story in self.state.stories.values()]
        return sorted(found, key=lambda incident: (incident.opened_at, incident.incident_id))


def _due_at(deadline: Any) -> Any:
    return deadline.due_at, deadline.kind, deadline.subject
