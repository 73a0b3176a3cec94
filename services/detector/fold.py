"""The fold: what each record of one partition of `ops.disruptions` means, in order.

- What operations systems say is a report (`reports.py`), and so is what a person declares.
- Reports that a rule groups are one incident (`stories.py`); it lives until it is closed.
- When and what an incident says is decided in `speech.py`, its words are found in `messages.py`.
- Holds of no incident, by hand and as a precaution, are in `precautions.py`.
- The only clock is the record's own time. A deadline acts when it is read, if it still stands.
- A fence's echo is the last output of its record, and its record follows all earlier ones.

Everything a record causes is derived from (state, record): a replay says the same things again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from schemas.disruptions import (
    ApproveUpdate,
    Deadline,
    DeclareIncident,
    Disruption,
    Fence,
    HoldOffers,
    MergeIncidents,
    PolicyApplied,
    ReleaseHold,
    ResolveIncident,
    SourceRead,
    SplitIncident,
    UpdateIncident,
)
from schemas.envelope import Unreadable
from schemas.holds import FencePassed, HoldReleased
from services.detector import precautions, reports, stories
from services.detector.deadlines import story_deadlines
from services.detector.holding import release_hold
from services.detector.life import move
from services.detector.policy import Judged, judge
from services.detector.speech import drop_draft, say, send_draft, send_written
from services.detector.state import (
    Entry,
    Report,
    State,
    Step,
    Story,
    Turn,
    partition_of,
    report_key,
    values_of,
)

LOST = "records of the log were lost before they were read"


def fold(state: State, entry: Entry) -> Step:
    """Take one record into the state."""
    body = entry.body
    if isinstance(body, Fence):
        echo = FencePassed(publisher=body.publisher, number=body.number, partition=entry.partition)
        return Step(state, (echo,))
    if isinstance(body, Disruption) and reports.is_known(state, entry, body):
        return Step(state)
    turn = Turn(state, entry)
    _ON[type(body)](turn, body)
    return turn.step


def lost(state: State, entry: Entry) -> Step:
    """Open a hold on everything: records before `entry` are gone, and nobody read them."""
    turn = Turn(state, entry)
    precautions.hold(turn, LOST, matchers=())
    return turn.step


def _on_source_read(turn: Turn, read: SourceRead) -> None:
    reports.on_source_read(turn, read)
    precautions.on_source_read(turn, read)


def _on_hold_offers(turn: Turn, command: HoldOffers) -> None:
    precautions.hold(
        turn,
        command.reason,
        matchers=command.matchers,
        network=command.network,
        author=command.author,
        take_back_s=command.take_back_s or 0,
    )


def _on_release_hold(turn: Turn, command: ReleaseHold) -> None:
    hold_id, author = command.hold_id, command.author
    if hold_id in turn.state.other_holds:
        precautions.release(turn, hold_id, reason=command.reason, author=author)
        return
    for story in values_of(turn.state.stories):
        if hold_id in story.incident.hold_ids:
            release_hold(turn, story, hold_id, reason=command.reason, author=author)
            return
    if partition_of(hold_id) == turn.entry.partition:
        # It was released before, or we lost the records that opened it: a person ends it all the same.
        at = turn.entry.at
        turn.say(
            HoldReleased(hold_id=hold_id, released_at=at, reason=command.reason, author=author)
        )


def _on_declare_incident(turn: Turn, command: DeclareIncident) -> None:
    known = command.model_dump(exclude={"author"})
    disruption_id = turn.entry.new_id("inc")
    event = Disruption.model_validate({**known, "disruption_id": disruption_id, "status": "opened"})
    source = f"/people/{command.author}"
    judged = judge(turn.state.policy, event, source=source, at=turn.entry.at)
    key = report_key(event.network, source, disruption_id)
    report = Report(
        key=key, event=event, source=source, first_at=turn.entry.at, scopes=judged.scopes
    )
    stories.join(turn, report, Judged(judged.rule, judged.scopes, ""), author=command.author)


def _on_update_incident(turn: Turn, command: UpdateIncident) -> None:
    story = turn.state.stories.get(command.incident_id)
    if story is None:
        return
    at, is_open = turn.entry.at, story.incident.is_open
    if command.phase is not None and is_open:
        story = replace(story, incident=move(story.incident, command.phase, at=at))
    next_s = command.next_update_s or story.rule.next_update_s
    next_at = at + timedelta(seconds=next_s) if is_open else None
    turn.keep(send_written(turn, story, command.texts, next_at=next_at, author=command.author))


def _on_approve_update(turn: Turn, command: ApproveUpdate) -> None:
    story = turn.state.stories.get(command.incident_id)
    draft = story.incident.draft if story else None
    if story is not None and draft is not None and draft.update_id == command.update_id:
        turn.keep(send_draft(turn, story, texts=command.texts, author=command.author))


def _on_resolve_incident(turn: Turn, command: ResolveIncident) -> None:
    story = turn.state.stories.get(command.incident_id)
    if story is not None and story.incident.is_open:
        stories.resolve(turn, story, reason=command.reason, author=command.author)


def _on_merge_incidents(turn: Turn, command: MergeIncidents) -> None:
    story = turn.state.stories.get(command.incident_id)
    into = turn.state.stories.get(command.into_id)
    if story is None or into is None or story is into:
        return
    if story.incident.is_open and into.incident.is_open:
        stories.merge(turn, story, into)


def _on_split_incident(turn: Turn, command: SplitIncident) -> None:
    story = turn.state.stories.get(command.incident_id)
    if story is None or not story.incident.is_open:
        return
    keys = frozenset(command.report_keys)
    if 0 < len(keys & set(story.reports)) < len(story.reports):
        stories.split(turn, story, keys, author=command.author)


def _on_policy_applied(turn: Turn, command: PolicyApplied) -> None:
    turn.change(policy=command.policy)
    precautions.on_policy(turn)


def _on_deadline(turn: Turn, deadline: Deadline) -> None:
    if turn.entry.at < deadline.due_at:
        return  # The clock that wrote it runs fast: it will be written again.
    match deadline.kind:
        case "report":
            reports.on_report_due(turn, deadline)
        case "stale":
            precautions.on_stale(turn, deadline)
        case "next_update" | "draft" | "release" | "close":
            story = turn.state.stories.get(deadline.subject)
            due = (deadline.due_at, deadline.subject, deadline.kind)
            if story is not None and due in story_deadlines(story):
                _ON_TIME[deadline.kind](turn, story)


def _on_draft_due(turn: Turn, story: Story) -> None:
    approval = story.rule.approval
    if approval is not None and approval.otherwise == "drop":
        turn.keep(drop_draft(story))
    else:
        turn.keep(send_draft(turn, story, texts=None, author="detector"))


_ON_TIME: dict[str, Callable[[Turn, Story], None]] = {
    "next_update": lambda turn, story: turn.keep(say(turn, story)),
    "draft": _on_draft_due,
    "release": lambda turn, story: stories.end(turn, story, reason="it stayed quiet"),
    "close": stories.forget,
}
_ON: dict[type[Any], Callable[[Turn, Any], None]] = {
    Unreadable: precautions.on_unreadable,
    Disruption: reports.on_disruption,
    SourceRead: _on_source_read,
    HoldOffers: _on_hold_offers,
    ReleaseHold: _on_release_hold,
    DeclareIncident: _on_declare_incident,
    UpdateIncident: _on_update_incident,
    ApproveUpdate: _on_approve_update,
    ResolveIncident: _on_resolve_incident,
    MergeIncidents: _on_merge_incidents,
    SplitIncident: _on_split_incident,
    PolicyApplied: _on_policy_applied,
    Deadline: _on_deadline,
}
