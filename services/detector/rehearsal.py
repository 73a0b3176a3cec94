"""Plays events against a policy, in the time they name: what would be held, said, and when.

It is the fold itself, with a clock that jumps: a deadline is read at the instant it is due.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from pydantic import ConfigDict, Field

from schemas.base import Record, Value
from schemas.disruptions import DeclareIncident, Disruption, SourceRead
from schemas.envelope import Unreadable
from schemas.holds import HoldOpened, HoldReleased
from schemas.incidents import Incident, StatusUpdate
from schemas.labels import format_matchers
from schemas.policies import Policy
from services.detector.deadlines import Deadlines
from services.detector.fold import fold
from services.detector.state import Entry, State

STEPS = 10_000
Happens = Literal["hold", "release", "update", "draft", "incident"]


class ToPlay(Value):
    """One thing that happens at a minute. `expect` is what must be so right behind it."""

    model_config = ConfigDict(extra="forbid")

    minute: float = Field(ge=0)
    disruption: Disruption | None = None
    source_read: SourceRead | None = None
    declare: DeclareIncident | None = None
    unreadable: str | None = None
    source: str = "/example"
    expect: Expected | None = None


class Expected(Value):
    """What an example says must be so. A field that is not given is not looked at."""

    model_config = ConfigDict(extra="forbid")

    holds: tuple[str, ...] | None = None
    said: tuple[str, ...] | None = None
    incidents: int | None = None


class Example(Value):
    """Events to try a policy with, from a day and an hour on."""

    model_config = ConfigDict(extra="forbid")

    begins_at: datetime = datetime(2026, 10, 17, 18, 0, tzinfo=UTC)
    steps: tuple[ToPlay, ...] = Field(min_length=1, max_length=STEPS)
    until_minute: float = 0


@dataclass(frozen=True, slots=True)
class Happened:
    """One line of what would happen."""

    minute: float
    what: Happens
    text: str


class Log:
    """One partition of the log, its state, and a clock that moves only when it is told to."""

    def __init__(self, policy: Policy | None, *, at: datetime) -> None:
        self.state, self.began_at, self.at, self.offset = State(policy=policy), at, at, 0
        self.said: list[Record] = []
        self._deadlines = Deadlines()

    def put(self, body: Record | Unreadable, **entry: Any) -> list[Record]:
        """Fold one record; returns what it says."""
        known: dict[str, Any] = {"event_id": f"e-{self.offset}", "source": "/example"}
        one = Entry(partition=0, offset=self.offset, at=self.at, body=body, **(known | entry))
        step = fold(self.state, one)
        self.state, self.offset = step.state, self.offset + 1
        self.said += step.outputs
        return list(step.outputs)

    def pass_time(self, until: datetime) -> list[Record]:
        """Let the clock run; returns what its deadlines say."""
        assert until >= self.at, "time passes"
        said: list[Record] = []
        while due := min(self._deadlines.until(self.state, until), key=_in_order, default=None):
            before, self.at = self.state, max(self.at, due.due_at)
            said += self.put(due)
            assert self.state != before, f"a deadline that is due changes nothing: {due}"
        self.at = until
        return said

    @property
    def holds(self) -> list[str]:
        """Return all open holds, as matchers."""
        of_incidents = [h.scope for s in self.state.stories.values() for h in s.holds if h.is_open]
        others = [format_matchers(h.matchers) for h in self.state.other_holds.values()]
        return sorted([*of_incidents, *others])


def play(policy: Policy, example: Example) -> tuple[list[Happened], list[Record]]:
    """Return what would happen in order, as lines and as the records that would be said."""
    log, happened, _ = _played(policy, example)
    return happened, log.said


def rehearse(policy: Policy, example: Example) -> tuple[list[Happened], list[str]]:
    """Return what would happen in order, and where it is not what the example expects."""
    _, happened, wrong = _played(policy, example)
    return happened, wrong


def _played(policy: Policy, example: Example) -> tuple[Log, list[Happened], list[str]]:
    log, happened, wrong = Log(policy, at=example.begins_at), list[Happened](), list[str]()
    for step in sorted(example.steps, key=lambda step: step.minute):
        at = example.begins_at + timedelta(minutes=step.minute)
        said = log.pass_time(at)
        for body in _bodies(step):
            said += log.put(body, source=step.source)
        lines = _lines(log, said)
        happened += lines
        if step.expect is not None:
            wrong += _differences(step.minute, step.expect, log, lines)
    end_at = example.begins_at + timedelta(minutes=example.until_minute)
    happened += _lines(log, log.pass_time(max(log.at, end_at)))
    return log, happened, wrong


def _bodies(step: ToPlay) -> list[Record | Unreadable]:
    found: list[Record | Unreadable | None] = [
        step.disruption, step.source_read, step.declare,
        Unreadable(error=step.unreadable) if step.unreadable is not None else None,
    ]  # fmt: skip
    return [body for body in found if body is not None]


def _lines(log: Log, said: list[Record]) -> list[Happened]:
    return [line for record in said if (line := _line(log, record)) is not None]


def _line(log: Log, record: Record) -> Happened | None:
    def at(instant: datetime) -> float:
        return (instant - log.began_at).total_seconds() / 60

    match record:
        case HoldOpened():
            text = f"{format_matchers(record.matchers)} because of: {record.reason}"
            return Happened(at(record.opened_at), "hold", text)
        case HoldReleased():
            return Happened(at(record.released_at), "release", record.reason)
        case StatusUpdate():
            texts = "\n".join(f"{language}: {text}" for language, text in record.texts.items())
            return Happened(at(record.written_at), "update", f"({record.moment})\n{texts}")
        case Incident(draft=draft) if draft is not None:
            text = f"waits for a person until minute {at(draft.due_at):g} ({draft.moment})"
            return Happened(at(record.changed_at), "draft", text)
        case Incident():
            text = f"{record.status}, {record.severity}, rule {record.rule}, reports: {record.report_count}: {record.title}"
            return Happened(at(record.changed_at), "incident", text)
        case _:
            return None


def _differences(minute: float, expected: Expected, log: Log, lines: list[Happened]) -> list[str]:
    is_open = sum(story.incident.is_open for story in log.state.stories.values())
    moments = [line.text[1:].partition(")")[0] for line in lines if line.what == "update"]
    found = {"holds": tuple(log.holds), "said": tuple(moments), "incidents": is_open}
    return [
        f"minute {minute:g}: {name}: expected {wanted}, found {found[name]}"
        for name, wanted in expected.model_dump(exclude_none=True).items()
        if (tuple(sorted(wanted)) if name == "holds" else wanted) != found[name]
    ]


def _in_order(deadline: Any) -> Any:
    return deadline.due_at, deadline.kind, deadline.subject


ToPlay.model_rebuild()
