"""The fold: what each record of one partition of `ops.disruptions` means, in order.

- A story is one incident with what the fold must remember of it. One `(network, source,
  disruption_id)`, or one declaration, is one story until it is closed.
- The same event again changes nothing. An event after the resolution opens the story again.
- A hold id is opened once and released once. A story whose scope changes opens its new hold before
  it releases the old one, so that no offer slips through between them.
- What cannot be read may be the disruption: it holds too.
- The only clock is the record's own time. A deadline acts when it is read, if it still stands.
- A fence's echo is the last output of its record, and its record follows all earlier ones.

Everything a record causes is derived from (state, record): a replay says the same things again.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from schemas.base import Record
from schemas.disruptions import (
    Deadline,
    DeclareIncident,
    Disruption,
    Fence,
    HoldOffers,
    PolicyApplied,
    ReleaseHold,
    ResolveIncident,
    UpdateIncident,
)
from schemas.envelope import Unreadable
from schemas.holds import FencePassed, HoldOpened, HoldReleased
from schemas.incidents import Incident, StatusUpdate
from schemas.labels import Matcher
from schemas.policies import Moment
from services.detector import messages
from services.detector.policy import rule_for, scope_of
from services.detector.state import Entry, State, Step, Story, deadlines_of

SEEN_EVENTS = 200  # Of one story: older ones are not retried any more.
REASON_CHARS = 300
UNREADABLE = "unreadable event"


def fold(state: State, entry: Entry) -> Step:
    """Take one record into the state."""
    if isinstance(entry.body, Unreadable):
        return _on_unreadable(state, entry, entry.body)
    return _ON[type(entry.body)](state, entry, entry.body)


def lost(state: State, entry: Entry) -> Step:
    """Open a hold on everything: records before `entry` are gone, and nobody read them."""
    return _hold(state, entry, "records of the log were lost before they were read", matchers=())


def _on_disruption(state: State, entry: Entry, event: Disruption) -> Step:
    key = f"{event.network}\n{entry.source}\n{event.disruption_id}"
    story = state.stories.get(state.by_key.get(key, ""))
    if story is None:
        return Step(state) if event.status == "resolved" else _open(state, entry, event, key=key)
    if entry.event_id in story.seen:
        return Step(state)
    story = story.model_copy(update={"seen": (*story.seen, entry.event_id)[-SEEN_EVENTS:]})
    if event.status != "resolved":
        return _change(state, entry, event, story)
    if story.incident.status == "open":
        return _resolve(
            state, entry, story, reason="the disruption was resolved", author="detector"
        )
    return Step(_with(state, story))


def _open(
    state: State,
    entry: Entry,
    event: Disruption | DeclareIncident,
    *,
    key: str,
    author: str = "detector",
) -> Step:
    incident_id = entry.new_id("inc")
    labels = {**event.labels, "network": event.network}
    rule = rule_for(state.policy, {**labels, "severity": event.severity})
    incident = Incident(
        incident_id=incident_id,
        network=event.network,
        status="open",
        severity=event.severity,
        title=event.title,
        detail=event.detail,
        labels=labels,
        opened_at=entry.at,
        changed_at=entry.at,
        expected_end_at=event.expected_end_at,
        rule=rule.name,
        link=getattr(event, "link", None),
        author=author,
    )
    scope = scope_of(rule, labels)
    story = Story(incident=incident, rule=rule, scope=scope, key=key, seen=(entry.event_id,))
    story, holds = _hold_scope(story, entry)
    story, update = _say(state, entry, story, "opened")
    return _told(_with(state, story), story, *holds, *update)


def _change(state: State, entry: Entry, event: Disruption, story: Story) -> Step:
    before = story.incident
    labels = {**event.labels, "network": event.network}
    rule = rule_for(state.policy, {**labels, "severity": event.severity})
    incident = before.model_copy(
        update={
            "status": "open",
            "resolved_at": None,
            "severity": event.severity,
            "title": event.title,
            "detail": event.detail,
            "labels": labels,
            "changed_at": entry.at,
            "expected_end_at": event.expected_end_at,
            "rule": rule.name,
            "link": event.link or before.link,
        }
    )
    again = before.status != "open"
    scope = scope_of(rule, labels)
    rescoped = again or scope != story.scope
    old_holds = story.open_holds
    story = story.model_copy(
        update={"incident": incident, "rule": rule, "scope": scope, "close_at": None}
    )
    opened: tuple[Record, ...] = ()
    released: tuple[Record, ...] = ()
    if rescoped:
        story, opened = _hold_scope(story.model_copy(update={"open_holds": ()}), entry)
        released = _released(old_holds, entry, reason="the incident's scope changed")
    update: tuple[Record, ...] = ()
    if again or _news(before) != _news(incident):
        story, update = _say(state, entry, story, "opened" if again else "working")
    return _told(_with(state, story), story, *opened, *released, *update)


def _news(incident: Incident) -> tuple[object, ...]:
    return (incident.title, incident.detail, incident.severity, incident.expected_end_at)


def _resolve(state: State, entry: Entry, story: Story, *, reason: str, author: str) -> Step:
    incident = story.incident.model_copy(
        update={
            "status": "resolved",
            "resolved_at": entry.at,
            "changed_at": entry.at,
            "next_update_at": None,
            "hold_ids": (),
        }
    )
    released = _released(story.open_holds, entry, reason=reason, author=author)
    close_at = entry.at + timedelta(seconds=story.rule.close_after_s)
    story = story.model_copy(update={"incident": incident, "open_holds": (), "close_at": close_at})
    story, update = _say(state, entry, story, "resolved")
    return _told(_with(state, story), story, *released, *update)


def _hold_scope(story: Story, entry: Entry) -> tuple[Story, tuple[Record, ...]]:
    if story.scope is None:
        incident = story.incident.model_copy(update={"hold_ids": ()})
        return story.model_copy(update={"incident": incident}), ()
    hold = HoldOpened(
        hold_id=entry.new_id("hold"),
        network=story.incident.network,
        matchers=story.scope,
        reason=story.incident.title[:REASON_CHARS],
        incident_id=story.incident.incident_id,
        opened_at=entry.at,
        take_back_s=story.rule.take_back_s,
        author=story.incident.author,
    )
    incident = story.incident.model_copy(update={"hold_ids": (hold.hold_id,)})
    changed = {"incident": incident, "open_holds": (hold.hold_id,)}
    return story.model_copy(update=changed), (hold,)


def _say(
    state: State, entry: Entry, story: Story, moment: Moment
) -> tuple[Story, tuple[Record, ...]]:
    if not story.rule.say:
        return story, ()
    next_at = (
        None if moment == "resolved" else entry.at + timedelta(seconds=story.rule.next_update_s)
    )
    incident = story.incident.model_copy(update={"next_update_at": next_at})
    texts = messages.write(state.policy, moment, incident, at=entry.at)
    if not texts:
        return story, ()
    return _written(entry, story, moment, texts, next_at=next_at, author="detector")


def _written(
    entry: Entry,
    story: Story,
    moment: Any,
    texts: dict[str, str],
    *,
    next_at: datetime | None,
    author: str,
) -> tuple[Story, tuple[Record, ...]]:
    number = story.incident.update_count + 1
    incident = story.incident.model_copy(
        update={"update_count": number, "next_update_at": next_at, "changed_at": entry.at}
    )
    update = StatusUpdate(
        update_id=entry.new_id("upd"),
        incident_id=incident.incident_id,
        network=incident.network,
        number=number,
        moment=moment,
        texts=texts,
        labels=incident.labels,
        severity=incident.severity,
        written_at=entry.at,
        next_update_at=next_at,
        author=author,
    )
    return story.model_copy(update={"incident": incident}), (update,)


def _on_unreadable(state: State, entry: Entry, body: Unreadable) -> Step:
    matchers = state.policy.unreadable_holds if state.policy else ()
    for hold in state.other_holds.values():
        if hold.reason.startswith(UNREADABLE) and hold.matchers == matchers:
            return Step(state)  # One is enough: a flood of them must not become a flood of holds.
    return _hold(state, entry, f"{UNREADABLE}: {body.error}"[:REASON_CHARS], matchers=matchers)


def _on_hold_offers(state: State, entry: Entry, command: HoldOffers) -> Step:
    return _hold(
        state,
        entry,
        command.reason,
        matchers=command.matchers,
        network=command.network,
        author=command.author,
        take_back_s=command.take_back_s or 0,
    )


def _hold(
    state: State,
    entry: Entry,
    reason: str,
    *,
    matchers: tuple[Matcher, ...],
    network: str = "*",
    author: str = "detector",
    take_back_s: int = 0,
) -> Step:
    hold = HoldOpened(
        hold_id=entry.new_id("hold"),
        network=network,
        matchers=matchers,
        reason=reason,
        opened_at=entry.at,
        take_back_s=take_back_s,
        author=author,
    )
    holds = {**state.other_holds, hold.hold_id: hold}
    return Step(state.model_copy(update={"other_holds": holds}), (hold,))


def _on_release_hold(state: State, entry: Entry, command: ReleaseHold) -> Step:
    released = _released((command.hold_id,), entry, reason=command.reason, author=command.author)
    if command.hold_id in state.other_holds:
        left = {k: v for k, v in state.other_holds.items() if k != command.hold_id}
        return Step(state.model_copy(update={"other_holds": left}), released)
    for story in state.stories.values():
        if command.hold_id in story.open_holds:
            holds = tuple(h for h in story.open_holds if h != command.hold_id)
            incident = story.incident.model_copy(update={"hold_ids": holds, "changed_at": entry.at})
            story = story.model_copy(update={"incident": incident, "open_holds": holds})  # noqa: PLW2901
            return _told(_with(state, story), story, *released)
    return Step(state)  # Released before, or never ours: there is nothing to say.


def _on_declare_incident(state: State, entry: Entry, command: DeclareIncident) -> Step:
    return _open(state, entry, command, key="", author=command.author)


def _on_update_incident(state: State, entry: Entry, command: UpdateIncident) -> Step:
    story = state.stories.get(command.incident_id)
    if story is None:
        return Step(state)
    is_open = story.incident.status == "open"
    next_s = command.next_update_s or story.rule.next_update_s
    next_at = entry.at + timedelta(seconds=next_s) if is_open else None
    story, update = _written(
        entry, story, "written", command.texts, next_at=next_at, author=command.author
    )
    return _told(_with(state, story), story, *update)


def _on_resolve_incident(state: State, entry: Entry, command: ResolveIncident) -> Step:
    story = state.stories.get(command.incident_id)
    if story is None or story.incident.status != "open":
        return Step(state)
    return _resolve(state, entry, story, reason=command.reason, author=command.author)


def _on_policy_applied(state: State, entry: Entry, command: PolicyApplied) -> Step:
    return Step(state.model_copy(update={"policy": command.policy}))


def _on_deadline(state: State, entry: Entry, deadline: Deadline) -> Step:
    story = state.stories.get(deadline.incident_id)
    if story is None or deadline not in deadlines_of(story) or entry.at < deadline.due_at:
        return Step(state)
    if deadline.kind == "next_update":
        story, update = _say(state, entry, story, "working")
        return _told(_with(state, story), story, *update)
    incident = story.incident.model_copy(update={"status": "closed", "changed_at": entry.at})
    left = {k: v for k, v in state.stories.items() if k != deadline.incident_id}
    by_key = {k: v for k, v in state.by_key.items() if v != deadline.incident_id}
    return Step(state.model_copy(update={"stories": left, "by_key": by_key}), (incident,))


def _on_fence(state: State, entry: Entry, fence: Fence) -> Step:
    echo = FencePassed(publisher=fence.publisher, number=fence.number, partition=entry.partition)
    return Step(state, (echo,))


def _released(
    hold_ids: tuple[str, ...], entry: Entry, *, reason: str, author: str = "detector"
) -> tuple[Record, ...]:
    return tuple(
        HoldReleased(hold_id=h, released_at=entry.at, reason=reason[:REASON_CHARS], author=author)
        for h in hold_ids
    )


def _with(state: State, story: Story) -> State:
    incident_id = story.incident.incident_id
    by_key = {**state.by_key, story.key: incident_id} if story.key else state.by_key
    stories = {**state.stories, incident_id: story}
    return state.model_copy(update={"stories": stories, "by_key": by_key})


def _told(state: State, story: Story, *outputs: Record) -> Step:
    return Step(state, (*outputs, story.incident))


_ON: dict[type[Record], Callable[[State, Entry, Any], Step]] = {
    Disruption: _on_disruption,
    HoldOffers: _on_hold_offers,
    ReleaseHold: _on_release_hold,
    DeclareIncident: _on_declare_incident,
    UpdateIncident: _on_update_incident,
    ResolveIncident: _on_resolve_incident,
    PolicyApplied: _on_policy_applied,
    Deadline: _on_deadline,
    Fence: _on_fence,
}
