"""Random evenings: whatever comes in whatever order, the fold keeps its books and its promise.

Hypothesis draws events of a few trains on a few lines, people's commands, and time that passes; it
prints the smallest evening that breaks an invariant.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.disruptions import (
    DeclareIncident,
    Disruption,
    MergeIncidents,
    ReleaseHold,
    ResolveIncident,
    SourceRead,
    SplitIncident,
)
from schemas.holds import HoldOpened, HoldReleased
from schemas.incidents import Incident
from schemas.labels import covers, parse_matchers
from services.detector import stories
from services.detector.holding import HOLDS
from services.detector.rehearsal import Log
from services.detector.state import State, Story, dump, load
from tests.builders import AT, a_disruption, a_policy, a_rule

LINES = ("coast", "valley")
SOURCES = ("/control-room", "/gtfs/metro")
TRAINS = 4
RULES: dict[str, tuple[dict[str, Any], ...]] = {
    "plain": ({},),
    "grouped": ({"group_by": ("network", "line")},),
    "one incident": ({"group_by": ("network",), "quiet_s": 90},),
    "flapping": (
        {"group_by": ("network", "line"), "quiet_s": 30, "close_after_s": 120,
         "flapping": {"times": 2, "within_s": 600, "calm_s": 240}},
    ),
    "escalating": (
        {"name": "worst", "match": '{severity="critical"}', "hold": "network", "group_by": ("network",)},
        {"group_by": ("network", "line"), "hold_also": (("train",),)},
    ),
    "waiting": ({"group_by": ("network", "line"), "for_s": 60},),
    "counting": ({"group_by": ("network", "line"), "count": {"reports": 2, "within_s": 120}},),
}  # fmt: skip
HOLDS_AT_ONCE = ("plain", "grouped", "one incident", "flapping", "escalating")

events = st.builds(
    lambda train, line, severity, status, words, periods, expires: (
        "event",
        {
            "disruption_id": f"train-{train}",
            "labels": {"line": LINES[line], "train": str(train)},
            "severity": severity,
            "status": status,
            "title": f"Train {train} {words}",
        },
        {"period": periods, "expires": expires},
    ),
    st.integers(0, TRAINS - 1),
    st.integers(0, len(LINES) - 1),
    st.sampled_from(["minor", "major", "critical"]),
    st.sampled_from(["opened", "updated", "acknowledged", "resolved", "resolved"]),
    st.sampled_from(["stands", "still stands"]),
    st.sampled_from([None, None, None, (0, 3), (2, 4)]),
    st.sampled_from([None, None, None, 2]),
)
sources = st.sampled_from(SOURCES)
passing = st.tuples(st.just("time"), st.sampled_from([0.2, 1, 3, 8]))
reads = st.tuples(st.just("read"), st.frozensets(st.integers(0, TRAINS - 1)).map(sorted).map(tuple))
people = st.tuples(
    st.sampled_from(["release", "resolve", "merge", "split", "declare"]), st.integers(0, 9)
)
evenings = st.lists(st.one_of(st.tuples(events, sources), passing, reads), min_size=10, max_size=40)
peopled = st.lists(
    st.one_of(st.tuples(events, sources), passing, reads, people), min_size=10, max_size=40
)


class Evening:
    """One evening: the fold, and beside it a model of what sources said, so plain that it is right."""

    def __init__(self, rules: str) -> None:
        found = [a_rule(**{"name": f"r{n}"} | rule) for n, rule in enumerate(RULES[rules])]
        self.log = Log(a_policy(*found), at=AT)
        self.reported: dict[tuple[str, str], Disruption] = {}
        self.opened: set[str] = set()
        self.standing: set[str] = set()
        self.released: set[str] = set()
        self.closed_ids: set[str] = set()

    def play(self, step: Any) -> None:
        if step[0] == "time":
            before = len(self.log.said)
            self.log.pass_time(self.log.at + timedelta(minutes=step[1]))
            self.note(self.log.said[before:])
        elif step[0] == "read":
            named = tuple(f"train-{n}" for n in step[1])
            self.put(SourceRead(network="northlink", source=SOURCES[1], disruption_ids=named))
            for key in [k for k in self.reported if k[0] == SOURCES[1] and k[1] not in named]:
                del self.reported[key]
        elif isinstance(step[0], tuple):
            (_, values, extra), source = step
            self.event(values, extra, source)
        else:
            self.person(*step)
        self.check()

    def event(self, values: dict[str, Any], extra: dict[str, Any], source: str) -> None:
        at = self.log.at
        if extra["period"] is not None:
            start, end = (at + timedelta(minutes=m) for m in extra["period"])
            values = values | {"periods": [{"start_at": start, "end_at": end}]}
        if extra["expires"] is not None:
            values = values | {"expires_at": at + timedelta(minutes=extra["expires"])}
        event = a_disruption(**values)
        key = (source, event.disruption_id)
        if event.status == "resolved":
            self.reported.pop(key, None)
        elif event.status != "acknowledged":
            self.reported[key] = event
        self.put(event, source=source)

    def person(self, act: str, number: int) -> None:
        known = sorted(s.incident.incident_id for s in self.log.state.stories.values())
        holds = sorted(self.opened - self.released)
        author = {"author": "maya"}
        if act == "declare":
            labels = {"line": LINES[number % 2]}
            title = f"Snow {number}"
            self.put(DeclareIncident(network="northlink", title=title, labels=labels, **author))
        elif act == "release" and holds:
            self.put(ReleaseHold(hold_id=holds[number % len(holds)], reason="x", **author))
        elif known:
            one, other = known[number % len(known)], known[(number + 1) % len(known)]
            if act == "resolve":
                self.put(ResolveIncident(incident_id=one, reason="x", **author))
            elif act == "merge":
                self.put(MergeIncidents(incident_id=one, into_id=other, **author))
            elif act == "split":
                keys = tuple(sorted(self.log.state.stories[one].reports))[: 1 + number % 2]
                self.put(SplitIncident(incident_id=one, report_keys=keys, **author))

    def put(self, body: Any, **entry: Any) -> None:
        self.note(self.log.put(body, **entry))

    def note(self, said: list[Any]) -> None:
        for record in said:
            if isinstance(record, Incident):
                (self.standing.discard if record.status == "closed" else self.standing.add)(
                    record.incident_id
                )
            if isinstance(record, HoldOpened):
                assert record.hold_id not in self.opened, "a hold id was used again"
                self.opened.add(record.hold_id)
            elif isinstance(record, HoldReleased):
                assert record.hold_id in self.opened, "what was never held was released"
                assert record.hold_id not in self.released, "a hold was released twice"
                self.released.add(record.hold_id)

    def check(self) -> None:
        state = self.log.state
        of_stories = [h for s in state.stories.values() for h in s.holds if h.is_open]
        assert {h.hold_id for h in of_stories} == self.opened - self.released
        assert set(state.stories) == self.standing
        for story in state.stories.values():
            check_story(story, state)
        assert all(i in state.stories for i in state.story_of.values())
        assert all(i in state.stories for i in state.group_of.values())
        counted = {key for found in state.counts.values() for _, key in found}
        assert counted <= {k for k, r in state.waiting.items() if r.waits_for == "count"}
        assert load(json.loads(json.dumps(dump(state)))) == state

    def must_be_silent(self) -> list[dict[str, str]]:
        """Return the labels of offers that must be held, by the plain model alone."""
        at = self.log.at
        standing = [
            e
            for e in self.reported.values()
            if (e.expires_at is None or at < e.expires_at)
            and all(p.start_at <= at < p.end_at for p in e.periods if p.start_at and p.end_at)
        ]
        return [{"network": "northlink", "line": e.labels["line"]} for e in standing]

    def is_silent(self, labels: dict[str, str]) -> bool:
        return any(covers(parse_matchers(scope), labels) for scope in self.log.holds)


def check_story(story: Story, state: State) -> None:
    reports, incident = list(story.reports.values()), story.incident
    open_reports = [r for r in reports if r.is_open]
    assert story.open_count == len(open_reports) == incident.report_count
    assert dict(story.asked.items()) == dict(Counter(s for r in open_reports for s in r.scopes))
    assert incident.hold_ids == tuple(h.hold_id for h in story.holds if h.is_open)
    if not incident.is_open:
        assert story.holds == ()
        assert story.close_at is not None
    elif open_reports:
        assert len(story.asked) > HOLDS or set(story.asked) <= {h.scope for h in story.holds}
        assert incident.release_at is None, "it waits to be released, and something stands"
        assert story.primary in {r.key for r in open_reports}
    assert all(state.story_of.get(r.key) == incident.incident_id for r in reports)


@pytest.mark.parametrize("rules", sorted(HOLDS_AT_ONCE))
@given(evening=evenings)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_stands_is_held(rules: str, evening: list[Any]) -> None:
    played = Evening(rules)
    for step in evening:
        played.play(step)
        for labels in played.must_be_silent():
            assert played.is_silent(labels), f"{labels} is not held at {played.log.at}"


@pytest.mark.parametrize("rules", sorted(RULES))
@given(evening=peopled)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_books_are_kept_whatever_people_do(rules: str, evening: list[Any]) -> None:
    played = Evening(rules)
    for step in evening:
        played.play(step)


@pytest.mark.parametrize("rules", ["grouped", "escalating"])
@given(evening=evenings)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_stands_is_held_where_there_is_room_for_few(
    rules: str, evening: list[Any]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stories, "REPORTS", 2)
        played = Evening(rules)
        for step in evening:
            played.play(step)
            for labels in played.must_be_silent():
                assert played.is_silent(labels), f"{labels} is not held at {played.log.at}"


@pytest.mark.parametrize("rules", sorted(RULES))
@given(evening=evenings)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_when_all_is_over_nothing_is_held_and_nothing_is_remembered(
    rules: str, evening: list[Any]
) -> None:
    played = Evening(rules)
    for step in evening:
        played.play(step)
    for source in SOURCES:
        for train in range(TRAINS):
            over = a_disruption(disruption_id=f"train-{train}", status="resolved")
            played.put(over, source=source)
    played.log.pass_time(played.log.at + timedelta(days=2))
    state = played.log.state
    assert played.log.holds == []
    assert (len(state.stories), len(state.waiting), len(state.counts)) == (0, 0, 0)
    assert (len(state.story_of), len(state.group_of)) == (0, 0)
