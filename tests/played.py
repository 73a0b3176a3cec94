"""Plays records to the fold, and looks at what it says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from schemas.base import Record
from schemas.labels import format_matchers
from services.detector import rehearsal
from services.detector.fold import fold
from services.detector.state import Entry, State
from tests.builders import AT, a_policy


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
        self._log = rehearsal.Log(a_policy(*rules, **policy), at=AT)

    def put(self, body: Any, *, minute: float | None = None, **entry: Any) -> list[Any]:
        """Fold one record at a minute (the last one's without); returns what it says."""
        if minute is not None:
            self.pass_time(minute)
        return self._log.put(body, **entry)

    def pass_time(self, minute: float) -> list[Any]:
        """Let the detector's clock run to a minute; returns what its deadlines say."""
        return self._log.pass_time(AT + timedelta(minutes=minute))

    @property
    def state(self) -> State:
        return self._log.state

    @property
    def said(self) -> list[Record]:
        return self._log.said

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
