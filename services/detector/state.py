"""What the fold works on: one record of the log, the state, and what a record causes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from schemas.base import Record, Value
from schemas.disruptions import Deadline
from schemas.envelope import Unreadable
from schemas.holds import HoldOpened
from schemas.incidents import Incident
from schemas.labels import Matcher
from schemas.policies import Policy, Rule


class Story(Value):
    """One incident, and what the next record about it must be judged by."""

    incident: Incident
    rule: Rule
    scope: tuple[Matcher, ...] | None
    open_holds: tuple[str, ...] = ()
    key: str = ""
    seen: tuple[str, ...] = ()
    close_at: datetime | None = None


class State(Value):
    """All that the records of a partition have left behind."""

    policy: Policy | None = None
    stories: dict[str, Story] = {}
    by_key: dict[str, str] = {}  # (network, source, disruption id) to incident id.
    other_holds: dict[str, HoldOpened] = {}  # Manual and precautionary ones.


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One record as it was read from the log."""

    partition: int
    offset: int
    at: datetime
    body: Record | Unreadable
    event_id: str = ""
    source: str = ""

    def new_id(self, kind: str, number: int = 0) -> str:
        """Return an id that only this record can give; its time sets a recreated log apart."""
        return entry_id(
            kind, partition=self.partition, offset=self.offset, at=self.at, number=number
        )


@dataclass(frozen=True, slots=True)
class Step:
    """The state after a record, and what the record makes the detector say, in order."""

    state: State
    outputs: tuple[Record, ...] = ()


def deadlines_of(story: Story) -> list[Deadline]:
    """Return what a story waits for."""
    incident = story.incident
    due = {"next_update": incident.next_update_at, "close": story.close_at}
    if incident.status != "open":
        due["next_update"] = None
    return [
        Deadline.model_validate(
            {"incident_id": incident.incident_id, "kind": kind, "due_at": due_at}
        )
        for kind, due_at in due.items()
        if due_at is not None
    ]


def entry_id(kind: str, *, partition: int, offset: int, at: datetime, number: int = 0) -> str:
    """Return the id derived from a record's place and time; `partition_of` reads it."""
    tail = f"-{number}" if number else ""
    return f"{kind}-{partition}-{offset}-{round(at.timestamp() * 1000):x}{tail}"


def partition_of(derived_id: str) -> int | None:
    """Return the partition that an id was derived in, or None where it is not one of ours."""
    parts = derived_id.split("-")
    if (
        len(parts) in (4, 5)
        and all(p.isascii() for p in parts)
        and parts[1].isdigit()
        and parts[2].isdigit()
    ):
        return int(parts[1])
    return None
