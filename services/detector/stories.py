"""Incidents: which reports one rests on, what it says and holds because of them, and when it is over.

- An incident says what its worst open report says; of equals, the first.
- It holds what any of its open reports asks for (`holding.py`).
- When the last report is over it is `monitoring`, and still holds, until it was quiet for long
  enough or a person says so. A report that comes back meanwhile finds everything as it was.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from rpds import HashTrieMap

from schemas.base import SEVERITIES
from schemas.disruptions import Disruption
from schemas.incidents import REPORTS_SHOWN, Incident
from schemas.policies import Rule
from services.detector.holding import asked_by, release, rescope, with_holds
from services.detector.life import move
from services.detector.policy import Judged, judge, labels_of
from services.detector.speech import say
from services.detector.state import Report, Story, Turn, items_of, values_of

REPORTS = 500  # Of one incident: of more that are open, only a person says that all are over.


def join(turn: Turn, report: Report, judged: Judged, *, author: str = "detector") -> None:
    """Put a report that stands into its incident: its group's, or one of its own."""
    known = turn.state.group_of.get(judged.group, "") if judged.group else ""
    story = turn.state.stories.get(known)
    if story is None:
        begin(turn, report, judged, author=author)
    else:
        take(turn, story, report)


def begin(turn: Turn, report: Report, judged: Judged, *, author: str = "detector") -> str:
    """Open an incident with its first report; returns its id."""
    story = _new_story(turn, report, judged, author=author)
    incident_id = story.incident.incident_id
    turn.change(story_of=turn.state.story_of.insert(report.key, incident_id))
    if judged.group:
        turn.change(group_of=turn.state.group_of.insert(judged.group, incident_id))
    turn.keep(say(turn, rescope(turn, story)))
    return incident_id


def take(turn: Turn, story: Story, report: Report) -> None:
    """Let an incident know what one of its reports says now, or that it is over."""
    before = story
    old = story.reports.get(report.key)
    story = _with_report(turn, story, report)
    story = _follow(turn, story, report)
    story = _live(turn, story, before)
    back = not before.incident.is_open and story.incident.is_open
    if story.incident.is_open and (back or _asks_for_other(story, old, report)):
        story = rescope(turn, story, also=report.scopes if report.is_open else ())
    has_news = story.said is None or _news(before.incident) != _news(story.incident)
    if story.incident.is_open and story.open_count and has_news:
        story = say(turn, story)
    turn.keep(story)


def resolve(turn: Turn, story: Story, *, reason: str, author: str = "detector") -> None:
    """End an incident as a person wants it: its holds are released, and its reports overruled."""
    reports = story.reports
    for key, report in items_of(story.reports):
        if report.is_open:
            reports = reports.insert(key, replace(report, status="overruled"))
    story = replace(story, reports=reports, open_count=0, is_full=False, asked=HashTrieMap())
    story = _counted(story)
    turn.keep(_resolved(turn, story, reason=reason, author=author))


def end(turn: Turn, story: Story, *, reason: str) -> None:
    """End an incident that is over as far as its reports tell."""
    turn.keep(_resolved(turn, story, reason=reason))


def renew(turn: Turn, story: Story, report: Report) -> None:
    """Keep a report that says the same for longer; the incident is not touched by it."""
    story = replace(story, reports=story.reports.insert(report.key, report))
    turn.keep(story)


def forget(turn: Turn, story: Story, **changed: Any) -> None:
    """Close an incident: only its last record is left of it."""
    incident = move(story.incident, "closed", at=turn.entry.at)
    turn.say(incident.model_copy(update={"draft": None, "hold_ids": (), **changed}))
    incident_id = incident.incident_id
    state = turn.state
    story_of, waiting = state.story_of, state.waiting
    for key, report in items_of(story.reports):
        if story_of.get(key) == incident_id:
            story_of = story_of.remove(key)
            if report.due_at is not None and not report.is_open:
                waiting = waiting.insert(key, report)  # A period of it is still ahead.
    group_of = without(state.group_of, story.groups)
    turn.change(
        stories=state.stories.remove(incident_id),
        story_of=story_of,
        group_of=group_of,
        waiting=waiting,
    )


def merge(turn: Turn, story: Story, into: Story) -> None:
    """Move the reports and the holds of one incident to another, and close it."""
    before = into
    holds = {held.scope: held for held in into.holds}
    for held in story.holds:
        there = holds.get(held.scope)
        if there is None or (held.is_open and not there.is_open):
            holds[held.scope] = held  # What one of them still holds, stays held.
        elif held.is_open:
            release(turn, [held], reason="merged with another incident")
    into = replace(into, holds=tuple(holds.values()), is_full=into.is_full or story.is_full)
    forget(turn, story, merged_into=into.incident.incident_id)
    turn.change(waiting=without(turn.state.waiting, [key for key, _ in items_of(story.reports)]))
    for report in _in_order(values_of(story.reports)):
        into = _with_report(turn, into, report)
        into = _follow(turn, into, report)
    into = replace(into, groups=(*into.groups, *story.groups))
    for group in story.groups:
        group_of = turn.state.group_of.insert(group, into.incident.incident_id)
        turn.change(group_of=group_of)
    turn.keep(with_holds(turn, _live(turn, into, before), into.holds))


def split(turn: Turn, story: Story, keys: frozenset[str], *, author: str) -> None:
    """Make some reports of an incident an incident of their own, with holds of its own."""
    moved = _in_order(r for key, r in items_of(story.reports) if key in keys)
    moved.sort(key=lambda report: not report.is_open)  # It begins with one that stands.
    if not moved or not moved[0].is_open:
        return  # Nothing of them stands: there is no incident to make.
    policy, at = turn.state.policy, turn.entry.at
    apart = ""
    for report in moved:
        if apart:
            take(turn, turn.state.stories[apart], report)
        else:
            judged = judge(policy, report.event, source=report.source, at=at)
            apart = begin(turn, report, Judged(judged.rule, judged.scopes, ""), author=author)
    before = story
    asked = story.asked
    for report in moved:
        asked = asked_by(asked, report, None)
    story = replace(
        story,
        asked=asked,
        reports=without(story.reports, keys),
        incident=story.incident.model_copy(
            update={"report_keys": tuple(k for k in story.incident.report_keys if k not in keys)}
        ),
        open_count=story.open_count - sum(r.is_open for r in moved),
        primary="" if story.primary in keys else story.primary,
    )
    story = _live(turn, _follow(turn, story, None), before)
    turn.keep(rescope(turn, story))


def _new_story(turn: Turn, report: Report, judged: Judged, *, author: str) -> Story:
    event, at = report.event, turn.entry.at
    incident = Incident.model_validate(
        {
            "incident_id": turn.new_id("inc"),
            "network": event.network,
            "status": event.phase or "investigating",
            "labels": labels_of(turn.state.policy, event),
            "opened_at": at,
            "changed_at": at,
            "author": author,
            "report_count": 1,
            "report_keys": (report.key,),
            "link": event.link,
        }
        | _words_of(event, judged.rule)
    )
    return Story(
        incident=incident,
        rule=judged.rule,
        groups=(judged.group,) if judged.group else (),
        reports=HashTrieMap({report.key: report}),
        primary=report.key,
        open_count=1,
        asked=asked_by(HashTrieMap(), None, report),
    )


def _words_of(event: Disruption, rule: Rule) -> dict[str, Any]:
    """Return what an incident says because of its worst report."""
    return {
        "severity": event.severity,
        "title": event.title,
        "titles": event.titles,
        "detail": event.detail,
        "details": event.details,
        "expected_end_at": event.expected_end_at or _planned_end(event),
        "planned": event.planned,
        "rule": rule.name,
    }


def _planned_end(event: Disruption) -> datetime | None:
    """Return when planned works end, as their periods say; one without an end says nothing."""
    ends = [period.end_at for period in event.periods if period.end_at is not None]
    is_known = event.planned and len(ends) == len(event.periods)
    return max(ends, default=None) if is_known else None


def _with_report(turn: Turn, story: Story, report: Report) -> Story:
    old = story.reports.get(report.key)
    if old is None and len(story.reports) >= REPORTS:
        story = _with_room(turn, story)
        primary = story.reports.get(story.primary)
        is_full = len(story.reports) >= REPORTS and primary is not None
        if is_full and primary is not None and _rank(report) <= _rank(primary):
            return replace(story, is_full=True)
    if old is None:
        incident = story.incident
        turn.change(story_of=turn.state.story_of.insert(report.key, incident.incident_id))
        shown = (*incident.report_keys, report.key)[:REPORTS_SHOWN]
        story = replace(story, incident=incident.model_copy(update={"report_keys": shown}))
    return replace(
        story,
        reports=story.reports.insert(report.key, report),
        open_count=story.open_count + report.is_open - (old is not None and old.is_open),
        asked=asked_by(story.asked, old, report),
    )


def _with_room(turn: Turn, story: Story) -> Story:
    """Forget a report that does not stand any more, the oldest one, if there is one."""
    over = [r for r in values_of(story.reports) if not r.is_open and r.due_at is None]
    if not over:
        return story
    oldest = _in_order(over)[0].key
    turn.change(story_of=without(turn.state.story_of, [oldest]))
    return replace(story, reports=story.reports.remove(oldest))


def _follow(turn: Turn, story: Story, report: Report | None) -> Story:
    """Let the incident say what its worst open report says."""
    if not story.open_count:
        return _counted(story)
    current = story.reports.get(story.primary)
    if (
        report is not None
        and report.key != story.primary
        and current is not None
        and current.is_open
        and _rank(report) <= _rank(current)
    ):
        return _counted(_narrowed(turn, story, report))
    worst = min((r for r in values_of(story.reports) if r.is_open), key=_worst_first)
    event, policy = worst.event, turn.state.policy
    rule = judge(policy, event, source=worst.source, at=turn.entry.at).rule
    incident = story.incident.model_copy(
        update=_words_of(event, rule) | {"link": event.link or story.incident.link}
    )
    incident = move(incident, _phase(story, worst), at=turn.entry.at)
    story = replace(story, incident=incident, rule=rule, primary=worst.key)
    return _counted(_narrowed(turn, story, worst))


def _phase(story: Story, worst: Report) -> Any:
    """Return the status that the source says; the incident's own where it says nothing."""
    if not story.incident.is_open:
        return story.incident.status  # Whether it comes back is not decided here.
    return worst.event.phase or story.incident.status


def _narrowed(turn: Turn, story: Story, report: Report) -> Story:
    """Keep the labels that all reports have; one that stands alone gives its own."""
    if not report.is_open:
        return story
    own = labels_of(turn.state.policy, report.event)
    if len(story.reports) > 1:
        own = {name: v for name, v in story.incident.labels.items() if own.get(name) == v}
    if own == story.incident.labels:
        return story
    return replace(story, incident=story.incident.model_copy(update={"labels": own}))


def _counted(story: Story) -> Story:
    if story.incident.report_count == story.open_count:
        return story
    changed = {"report_count": story.open_count}
    return replace(story, incident=story.incident.model_copy(update=changed))


def _live(turn: Turn, story: Story, before: Story) -> Story:
    """Move the incident on: it comes back, goes on, or is over as far as the reports tell."""
    at, incident = turn.entry.at, story.incident
    comes_back = bool(before.reports) and not before.open_count and story.open_count
    is_over = before.open_count and not story.open_count
    if comes_back:
        if not incident.is_open:
            story = replace(story, close_at=None, said=None, holds=())
        incident = move(incident, _open_phase(story), at=at)
        incident = incident.model_copy(update={"release_at": None})
        return replace(story, incident=incident, reopened=_again(story, turn))
    if not is_over or not incident.is_open or story.is_full:
        return story
    if story.rule.release == "person":
        return replace(story, incident=move(incident, "monitoring", at=at))
    quiet_s = _quiet_s(story, turn)
    if quiet_s == 0:
        return _resolved(turn, story, reason="the disruption was resolved")
    release_at = at + timedelta(seconds=quiet_s)
    incident = move(incident, "monitoring", at=at).model_copy(update={"release_at": release_at})
    return replace(story, incident=incident)


def _open_phase(story: Story) -> Any:
    primary = story.reports.get(story.primary)
    return (primary.event.phase if primary else None) or "investigating"


def _again(story: Story, turn: Turn) -> tuple[Any, ...]:
    flapping = story.rule.flapping
    if flapping is None:
        return ()
    since = turn.entry.at - timedelta(seconds=flapping.within_s)
    recent = [at for at in (*story.reopened, turn.entry.at) if at >= since]
    return tuple(recent[-flapping.times :])


def _quiet_s(story: Story, turn: Turn) -> int:
    flapping = story.rule.flapping
    if flapping is None:
        return story.rule.quiet_s
    since = turn.entry.at - timedelta(seconds=flapping.within_s)
    recent = sum(at >= since for at in story.reopened)
    return max(story.rule.quiet_s, flapping.calm_s if recent >= flapping.times else 0)


def _resolved(turn: Turn, story: Story, *, reason: str, author: str = "detector") -> Story:
    at = turn.entry.at
    release(turn, [h for h in story.holds if h.is_open], reason=reason, author=author)
    incident = move(story.incident, "resolved", at=at)
    incident = incident.model_copy(update={"hold_ids": ()})
    close_at = at + timedelta(seconds=story.rule.close_after_s)
    return say(turn, replace(story, incident=incident, holds=(), close_at=close_at))


def _asks_for_other(story: Story, old: Report | None, report: Report) -> bool:
    if old is None:
        return not set(report.scopes) <= {held.scope for held in story.holds}
    return old.is_open != report.is_open or old.scopes != report.scopes


def _news(incident: Incident) -> tuple[object, ...]:
    return (incident.title, incident.detail, incident.severity, incident.expected_end_at)


def _rank(report: Report) -> int:
    return SEVERITIES.index(report.event.severity)


def _worst_first(report: Report) -> tuple[Any, ...]:
    return (-_rank(report), report.first_at, report.key)


def _in_order(reports: Any) -> list[Report]:
    return sorted(reports, key=lambda report: (report.first_at, report.key))


def without(found: Any, keys: Any) -> Any:
    """Return a map without these keys; one that is not there is no mistake."""
    for key in keys:
        if key in found:
            found = found.remove(key)
    return found
