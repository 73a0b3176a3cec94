"""What sources report: what is news, what waits and for what, and what is over.

- One `(network, source, disruption_id)` is one report. The same again changes nothing, nor does an
  older one that comes late.
- A report waits, and is no incident yet, while its period is ahead, until it has lasted as long as
  its rule says, or until there are as many of them as the rule counts.
- What a person said is over stays so, whatever its source repeats, until that has news.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from operator import itemgetter

from schemas.disruptions import Deadline, Disruption, SourceRead
from services.detector import stories
from services.detector.policy import Judged, judge
from services.detector.state import (
    Entry,
    Report,
    State,
    Story,
    Turn,
    WaitsFor,
    items_of,
    report_key,
    source_key,
    values_of,
)
from services.detector.windows import standing

WAITING = 10_000  # Beyond, a report does not wait for more: when in doubt, it holds.
SEEN_EVENTS = 20  # Of one report, that changed something: older ones are not retried any more.
_SUBSTANCE = itemgetter(
    "title", "severity", "labels", "detail", "expected_end_at", "link", "scopes", "values",
    "titles", "details", "phase", "planned", "periods",
)  # fmt: skip


def is_known(state: State, entry: Entry, event: Disruption) -> bool:
    """Say whether a report changes nothing: most of a storm does not."""
    report, _ = _find(state, report_key(event.network, entry.source, event.disruption_id))
    if report is None:
        return event.status in ("resolved", "acknowledged")
    if entry.event_id in report.seen or _is_older(event, report.event):
        return True
    if event.status == "resolved":
        return report.status == "over" and report.due_at is None
    if event.status == "acknowledged":
        return report.status != "open" or report.event.phase == "identified"
    return (
        report.status != "over"
        and event.expires_at == report.event.expires_at
        and _says_the_same(event, report.event)
    )


def _says_the_same(event: Disruption, known: Disruption) -> bool:
    # Most of a storm ends here: the fields of a model are read where it has them.
    return bool(_SUBSTANCE(event.__dict__) == _SUBSTANCE(known.__dict__))


def _is_older(event: Disruption, known: Disruption) -> bool:
    return (
        event.occurred_at is not None
        and known.occurred_at is not None
        and event.occurred_at < known.occurred_at
    )


def on_disruption(turn: Turn, event: Disruption) -> None:
    entry = turn.entry
    key = report_key(event.network, entry.source, event.disruption_id)
    known, story = _find(turn.state, key)
    if event.status == "acknowledged":
        assert known is not None, "what is not known is not acknowledged"
        event = known.event.model_copy(update={"phase": "identified"})
    if event.status == "resolved":
        assert known is not None, "a resolution of what is not known changes nothing"
        seen = (*known.seen, entry.event_id)[-SEEN_EVENTS:]
        event = known.event.model_copy(update={"occurred_at": event.occurred_at})
        _end(turn, replace(known, event=event, seen=seen), story)
        return
    if known is None or known.status == "over":
        _take_new(turn, event, known, story)
        return
    seen = (*known.seen, entry.event_id)[-SEEN_EVENTS:]
    now, due_at = standing(event, entry.at)
    if story is not None and now == "stands" and _says_the_same(event, known.event):
        stories.renew(turn, story, replace(known, event=event, seen=seen, due_at=due_at))
    else:
        _settle(turn, replace(known, event=event, seen=seen, status="open"), story)


def _take_new(turn: Turn, event: Disruption, known: Report | None, story: Story | None) -> None:
    """Take a report that stands anew; it goes on where those were that it replaces."""
    entry = turn.entry
    key = report_key(event.network, entry.source, event.disruption_id)
    keys = [report_key(event.network, entry.source, one) for one in event.replaces]
    replaced = [(one, *_find(turn.state, one)) for one in keys if one != key]
    standing_at = [old.first_at for _, old, _ in replaced if old is not None and old.is_open]
    report = Report(
        key=key,
        event=event,
        source=entry.source,
        first_at=min([entry.at, *standing_at]),
        seen=(*(known.seen if known else ()), entry.event_id)[-SEEN_EVENTS:],
    )
    _settle(turn, report, story or next((of for _, _, of in replaced if of is not None), None))
    for one, _, _ in replaced:
        old, of = _find(turn.state, one)
        if old is not None:
            _end(turn, old, of)


def on_source_read(turn: Turn, read: SourceRead) -> None:
    """Take a source's whole data set: what it does not name any more is over."""
    if read.is_only_expected:
        return
    prefix = f"{source_key(read.network, read.source)}\n"
    named = {f"{prefix}{one}" for one in read.disruption_ids}
    known = [key for key in turn.state.waiting if key.startswith(prefix)]
    for story in values_of(turn.state.stories):
        known += [k for k, r in items_of(story.reports) if r.is_open and k.startswith(prefix)]
    for key in sorted(set(known) - named):
        report, of = _find(turn.state, key)
        if report is not None:
            _end(turn, report, of)


def on_report_due(turn: Turn, deadline: Deadline) -> None:
    report, story = _find(turn.state, deadline.subject)
    if report is None or report.due_at != deadline.due_at:
        return
    now, _ = standing(report.event, turn.entry.at)
    if report.waits_for == "count" and now == "stands":
        _stop_waiting(turn, report.key)  # It was one of too few, and their time is over.
        return
    if report.status == "over":
        report = replace(report, status="open")  # Its next period begins.
    _settle(turn, report, story)


def _stop_waiting(turn: Turn, key: str) -> None:
    waited = turn.state.waiting.get(key)
    if waited is None:
        return
    turn.change(waiting=turn.state.waiting.remove(key))
    if waited.waits_for == "count":
        counts = turn.state.counts
        for name, found in items_of(turn.state.counts):
            left = tuple(one for one in found if one[1] != key)
            counts = counts.insert(name, left) if left else counts.remove(name)
        turn.change(counts=counts)


def _settle(turn: Turn, report: Report, story: Story | None) -> None:
    """Put a report where it now belongs: it waits, is part of an incident, or is over."""
    _stop_waiting(turn, report.key)  # What it waited for may be something else by now.
    now, due_at = standing(report.event, turn.entry.at)
    if now == "over":
        _end(turn, report, story)
        return
    if now == "ahead":
        if story is not None and report.key in story.reports:
            stories.take(turn, story, replace(report, status="over", due_at=due_at))
        else:
            _wait(turn, replace(report, due_at=due_at), waits_for="period")
        return
    judged = judge(turn.state.policy, report.event, source=report.source, at=turn.entry.at)
    if report.due_at != due_at or report.scopes != judged.scopes:
        report = replace(report, due_at=due_at, scopes=judged.scopes)
    if story is None:
        _begin(turn, report, judged)
    else:
        stories.take(turn, story, report)


def _begin(turn: Turn, report: Report, judged: Judged) -> None:
    """Make a report part of an incident, unless it has to wait for more."""
    at, rule = turn.entry.at, judged.rule
    lasted_at = report.first_at + timedelta(seconds=rule.for_s)
    may_wait = len(turn.state.waiting) < WAITING
    if at < lasted_at and may_wait:
        _wait(turn, report, waits_for="lasting", until=lasted_at)
        return
    if rule.count is None or judged.group in turn.state.group_of or not may_wait:
        stories.join(turn, replace(report, waits_for=""), judged)
        return
    name = f"{rule.name}\n{judged.group}"
    within = timedelta(seconds=rule.count.within_s)
    before = turn.state.counts.get(name, ())
    recent = [(t, k) for t, k in before if t > at - within and k != report.key]
    _wait(turn, report, waits_for="count", until=at + within)
    if len(recent) + 1 < rule.count.reports:
        counts = turn.state.counts.insert(name, (*recent, (at, report.key)))
        turn.change(counts=counts)
        return
    turn.change(counts=stories.without(turn.state.counts, [name]))
    for key in (report.key, *(k for _, k in recent)):
        waited = turn.state.waiting.get(key)
        if waited is not None:
            turn.change(waiting=turn.state.waiting.remove(key))
            due_at = standing(waited.event, at)[1]
            stories.join(turn, replace(waited, due_at=due_at, waits_for=""), judged)


def _wait(
    turn: Turn, report: Report, *, waits_for: WaitsFor, until: datetime | None = None
) -> None:
    due_at = min((at for at in (report.due_at, until) if at is not None), default=None)
    report = replace(report, waits_for=waits_for, due_at=due_at)
    turn.change(waiting=turn.state.waiting.insert(report.key, report))


def _end(turn: Turn, report: Report, story: Story | None) -> None:
    _stop_waiting(turn, report.key)
    if story is not None and report.key in story.reports:
        stories.take(turn, story, replace(report, status="over", due_at=None))


def _find(state: State, key: str) -> tuple[Report | None, Story | None]:
    """Return what is known of a report, and the incident it is part of."""
    story = state.stories.get(state.story_of.get(key, ""))
    report = state.waiting.get(key)
    if report is None and story is not None:
        report = story.reports.get(key)
    return report, story
