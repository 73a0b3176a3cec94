"""Incidents: grouping, life, scope, merge and split."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.disruptions import (
    DeclareIncident,
    MergeIncidents,
    ReleaseHold,
    ResolveIncident,
    SplitIncident,
    UpdateIncident,
)
from schemas.holds import HoldOpened, HoldReleased
from schemas.incidents import Incident
from services.detector.life import NEXT, move
from services.detector.stories import REPORTS
from tests.builders import AT, a_disruption, a_rule, an_incident
from tests.played import Log, of

COAST = '{network="northlink",line="coast"}'
VALLEY = '{network="northlink",line="valley"}'


def line_rule(**values: Any) -> Any:
    return a_rule(group_by=("network", "line"), **values)


def train(number: int, status: str = "opened", **values: Any) -> Any:
    return a_disruption(disruption_id=f"train-{number}", status=status, **values)


def test_two_sources_that_report_the_same_line_are_one_incident() -> None:
    log = Log(rules=(line_rule(),))
    log.put(train(1), source="/control-room")
    said = log.put(a_disruption(disruption_id="up"), source="/prometheus")
    assert of(HoldOpened, said) == []
    assert [incident.report_count for incident in log.incidents] == [2]
    log.put(train(1, "resolved"), source="/control-room")
    assert log.holds == [COAST], "the other source still says so"
    log.put(a_disruption(disruption_id="up", status="resolved"), source="/prometheus")
    assert log.holds == []


def test_a_storm_is_as_many_incidents_as_lines() -> None:
    log = Log(rules=(line_rule(),))
    for number in range(200):
        log.put(train(number, labels={"line": f"line-{number % 5}"}))
    assert len(log.incidents) == 5
    assert len(of(HoldOpened, log.said)) == 5


def test_an_incident_says_what_its_worst_report_says() -> None:
    log = Log(rules=(line_rule(),))
    log.put(train(1, severity="minor", title="A train is late"))
    log.put(train(2, severity="critical", title="A train has derailed"))
    assert (log.incidents[0].severity, log.incidents[0].title) == (
        "critical",
        "A train has derailed",
    )
    log.put(train(2, "resolved", severity="critical"))
    assert (log.incidents[0].severity, log.incidents[0].title) == ("minor", "A train is late")


def test_a_severity_that_falls_is_the_incidents() -> None:
    log = Log(rules=(line_rule(),))
    log.put(train(1, severity="critical", title="Worst"))
    log.put(train(2, severity="major", title="Second"))
    log.put(train(1, "updated", severity="minor", title="Better"))
    assert (log.incidents[0].severity, log.incidents[0].title) == ("major", "Second")


def test_an_incident_has_the_labels_that_all_its_reports_have() -> None:
    log = Log(rules=(line_rule(),))
    log.put(train(1, labels={"line": "coast", "train": "1"}))
    assert log.incidents[0].labels == {"line": "coast", "train": "1", "network": "northlink"}
    log.put(train(2, labels={"line": "coast", "train": "2"}))
    assert log.incidents[0].labels == {"line": "coast", "network": "northlink"}


def test_more_reports_than_are_kept_hold_and_only_a_person_ends_them() -> None:
    log = Log(rules=(line_rule(hold_also=(("station",),)),))
    for number in range(REPORTS):
        log.put(train(number))
    said = log.put(train(REPORTS, labels={"line": "coast", "station": "arden"}))
    assert [h.scope for h in one(log).holds] == [COAST, '{station="arden"}']
    assert of(HoldOpened, said)
    for number in range(REPORTS + 1):
        log.put(train(number, "resolved"))
    assert len(log.holds) == 2, "nobody knows whether the one that was not kept is over"
    assert len(one(log).reports) == REPORTS
    log.put(ResolveIncident(incident_id=log.incidents[0].incident_id, reason="x", author="maya"))
    assert log.holds == []


def test_a_new_report_of_an_incident_that_had_many_and_is_over_holds() -> None:
    """An incident had as many reports as are kept, was over, and had no room for one that stood."""
    log = Log(rules=(line_rule(),))
    for number in range(REPORTS):
        log.put(train(number))
    for number in range(REPORTS):
        log.put(train(number, "resolved"))
    assert log.holds == []
    log.put(train(REPORTS))
    assert log.holds == [COAST]
    assert (len(one(log).reports), one(log).is_full) == (REPORTS, False)
    log.put(train(REPORTS, "resolved"))
    assert log.holds == []


def test_a_new_report_after_a_person_ended_an_incident_that_was_full_holds() -> None:
    log = Log(rules=(line_rule(),))
    for number in range(REPORTS + 1):
        log.put(train(number))
    log.put(ResolveIncident(incident_id=log.incidents[0].incident_id, reason="x", author="maya"))
    log.put(train(REPORTS + 1))
    assert log.holds == [COAST]
    log.put(train(REPORTS + 1, "resolved"))
    assert log.holds == []


def test_a_report_that_is_worse_than_all_is_kept_in_any_case() -> None:
    log = Log(rules=(line_rule(),))
    for number in range(REPORTS):
        log.put(train(number, severity="minor"))
    log.put(train(REPORTS, severity="critical"))
    assert log.incidents[0].severity == "critical"


def one(log: Log) -> Any:
    (story,) = log.state.stories.values()
    return story


def test_an_incident_that_is_over_holds_until_it_was_quiet() -> None:
    log = Log(rules=(line_rule(quiet_s=300),))
    log.put(train(1))
    assert of(HoldReleased, log.put(train(1, "resolved"), minute=10)) == []
    assert [i.status for i in log.incidents] == ["monitoring"]
    log.pass_time(14)
    assert log.holds == [COAST]
    log.pass_time(15)
    assert (log.holds, [i.status for i in log.incidents]) == ([], ["resolved"])


def test_what_comes_back_before_it_was_quiet_finds_its_hold_as_it_was() -> None:
    log = Log(rules=(line_rule(quiet_s=300),))
    log.put(train(1))
    log.put(train(1, "resolved"), minute=10)
    said = log.put(train(2), minute=12)
    assert [type(record) for record in said] == [Incident]
    assert said[0].status == "investigating"
    log.pass_time(60)
    assert log.holds == [COAST]


def test_where_the_policy_wants_a_person_only_a_person_releases() -> None:
    log = Log(rules=(line_rule(release="person"),))
    log.put(train(1))
    log.put(train(1, "resolved"), minute=1)
    log.pass_time(600)
    assert (log.holds, log.incidents[0].status) == ([COAST], "monitoring")
    log.put(train(1), minute=601)
    assert log.incidents[0].status == "investigating"
    log.put(ResolveIncident(incident_id=log.incidents[0].incident_id, reason="x", author="maya"))
    assert log.holds == []


def test_what_flaps_is_believed_only_when_it_was_calm() -> None:
    flapping = {"times": 3, "within_s": 1800, "calm_s": 1800}
    log = Log(rules=(line_rule(flapping=flapping, quiet_s=60),))
    for minute in (0, 3, 6, 9):
        log.put(train(1), minute=minute)
        log.put(train(1, "resolved"), minute=minute + 1)
    log.pass_time(39)
    assert log.holds == [COAST]
    log.pass_time(40)
    assert log.holds == []


def test_an_incident_that_comes_back_before_it_is_closed_is_the_same_one() -> None:
    log = Log(rules=(line_rule(close_after_s=600),))
    log.put(train(1))
    log.put(train(1, "resolved"), minute=1)
    log.put(train(2), minute=5)
    first = log.incidents[0].incident_id
    log.put(train(2, "resolved"), minute=6)
    log.put(train(3), minute=17)
    assert [i.incident_id for i in log.incidents] != [first]
    hold_ids = [hold.hold_id for hold in of(HoldOpened, log.said)]
    assert len(set(hold_ids)) == len(hold_ids) == 3


def test_scope_grows_and_shrinks_with_new_hold_ids() -> None:
    log = Log()
    two = [{"line": "coast"}, {"line": "valley"}]
    log.put(a_disruption())
    log.put(a_disruption(status="updated", labels={}, scopes=two))
    assert log.holds == [COAST, VALLEY]
    log.put(a_disruption(status="updated", labels={"line": "valley"}))
    assert log.holds == [VALLEY]
    log.put(a_disruption(status="updated", labels={}, scopes=two))
    assert log.holds == [COAST, VALLEY]
    opened = [hold.hold_id for hold in of(HoldOpened, log.said)]
    assert len(set(opened)) == len(opened) == 3
    assert len(of(HoldReleased, log.said)) == 1


def test_a_hold_that_a_person_released_is_not_opened_by_another_report_of_the_line() -> None:
    log = Log(rules=(line_rule(),))
    log.put(train(1))
    hold_id = log.incidents[0].hold_ids[0]
    log.put(ReleaseHold(hold_id=hold_id, reason="only one train", author="maya"))
    log.put(train(2))
    assert log.holds == []


def test_a_source_and_a_person_move_an_incident_on() -> None:
    log = Log()
    log.put(a_disruption(phase="investigating"))
    log.put(a_disruption(status="updated", phase="identified"))
    assert log.incidents[0].status == "identified"
    words = {"en": "The points are being repaired."}
    incident_id = log.incidents[0].incident_id
    log.put(UpdateIncident(incident_id=incident_id, texts=words, phase="monitoring", author="ben"))
    assert log.incidents[0].status == "monitoring"
    log.pass_time(600)
    assert log.holds == [COAST], "a phase is a word: only the end of all reports releases"


@pytest.mark.parametrize(
    ("status", "to"),
    [(a, b) for a in NEXT for b in NEXT if a != b and b not in NEXT[a]],
)
def test_an_illegal_move_raises(status: Any, to: Any) -> None:
    with pytest.raises(AssertionError, match="is no move"):
        move(an_incident(status=status), to, at=AT)


def declared(log: Log, line: str) -> str:
    said = log.put(
        DeclareIncident(network="northlink", title=line, labels={"line": line}, author="maya")
    )
    incident_id: str = of(Incident, said)[0].incident_id
    return incident_id


def test_people_merge_incidents_and_all_that_was_held_stays_held() -> None:
    log = Log()
    one, two = declared(log, "coast"), declared(log, "valley")
    said = log.put(MergeIncidents(incident_id=two, into_id=one, author="maya"))
    assert of(HoldReleased, said) == []
    assert log.holds == [COAST, VALLEY]
    closed, into = of(Incident, said)
    assert (closed.status, closed.merged_into) == ("closed", one)
    assert (into.report_count, len(into.hold_ids)) == (2, 2)
    log.put(ResolveIncident(incident_id=one, reason="over", author="maya"))
    assert log.holds == []


def test_reports_of_a_merged_incident_speak_to_the_one_it_is_part_of() -> None:
    log = Log(rules=(line_rule(),))
    log.put(train(1))
    log.put(train(2, labels={"line": "valley"}))
    one, two = (incident.incident_id for incident in log.incidents)
    log.put(MergeIncidents(incident_id=two, into_id=one, author="maya"))
    log.put(train(3, labels={"line": "valley"}))
    assert [i.report_count for i in log.incidents] == [3]
    log.put(train(2, "resolved"))
    log.put(train(3, "resolved"))
    assert log.holds == [COAST]
    log.put(train(1, "resolved"))
    assert log.holds == []


def test_people_split_an_incident_and_no_offer_slips_through() -> None:
    log = Log(rules=(a_rule(group_by=("network",)),))
    log.put(train(1))
    log.put(train(2, labels={"line": "valley"}))
    (incident,) = log.incidents
    key = next(key for key in incident.report_keys if key.endswith("train-2"))
    said = log.put(
        SplitIncident(incident_id=incident.incident_id, report_keys=(key,), author="maya")
    )
    kinds = [type(record) for record in said]
    assert kinds.index(HoldOpened) < kinds.index(HoldReleased)
    assert [i.report_count for i in log.incidents] == [1, 1]
    assert log.holds == [COAST, VALLEY]
    log.put(train(1, "resolved"))
    assert log.holds == [VALLEY]
    log.put(train(2, "resolved"))
    assert log.holds == []


def test_no_split_leaves_an_incident_without_reports() -> None:
    log = Log()
    log.put(train(1))
    (incident,) = log.incidents
    every = SplitIncident(
        incident_id=incident.incident_id, report_keys=incident.report_keys, author="maya"
    )
    assert log.put(every) == []


def test_reports_that_are_over_make_no_incident_of_their_own() -> None:
    log = Log(rules=(a_rule(group_by=("network",)),))
    log.put(train(1))
    log.put(train(2))
    log.put(train(2, "resolved"))
    (incident,) = log.incidents
    key = next(key for key in incident.report_keys if key.endswith("train-2"))
    over = SplitIncident(incident_id=incident.incident_id, report_keys=(key,), author="maya")
    assert log.put(over) == []
    log.put(train(3))
    both = SplitIncident(
        incident_id=incident.incident_id,
        report_keys=(key, *(k for k in log.incidents[0].report_keys if k.endswith("train-3"))),
        author="maya",
    )
    log.put(both)
    assert [i.report_count for i in log.incidents] == [1, 1]
