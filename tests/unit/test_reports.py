"""Reports: what is news, what waits and for what, what is over. Minutes are of the log's own time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from schemas.disruptions import PolicyApplied, ResolveIncident, SourceRead
from schemas.holds import HoldOpened, HoldReleased
from schemas.incidents import Incident, StatusUpdate
from services.detector import reports
from tests.builders import AT, a_disruption, a_policy, a_rule
from tests.played import Log, of

COAST = '{network="northlink",line="coast"}'
GROUPED: dict[str, Any] = {"group_by": ("network", "line")}


def at(minute: float) -> Any:
    return AT + timedelta(minutes=minute)


def train(number: int, status: str = "opened", **values: Any) -> Any:
    return a_disruption(disruption_id=f"train-{number}", status=status, **values)


def test_an_older_report_that_comes_late_changes_nothing() -> None:
    log = Log()
    log.put(a_disruption(occurred_at=at(2)))
    assert log.put(a_disruption(occurred_at=at(1), title="Older news", status="updated")) == []
    assert log.put(a_disruption(occurred_at=at(1), status="resolved")) == []


def test_a_retry_of_an_event_that_is_over_opens_nothing() -> None:
    log = Log()
    log.put(a_disruption(), event_id="first")
    log.put(a_disruption(status="resolved"))
    assert log.put(a_disruption(), event_id="first") == []
    assert of(HoldOpened, log.put(a_disruption(), event_id="again"))


def test_what_must_last_holds_when_it_has_lasted() -> None:
    log = Log(rules=(a_rule(for_s=120),))
    assert log.put(a_disruption()) == []
    assert log.put(a_disruption(), minute=1) == []
    log.pass_time(2)
    assert log.holds == [COAST]


def test_what_does_not_last_holds_nothing() -> None:
    log = Log(rules=(a_rule(for_s=120),))
    log.put(a_disruption())
    log.put(a_disruption(status="resolved"), minute=1)
    log.pass_time(60)
    assert log.said == []
    assert len(log.state.waiting) == 0


COUNT = a_rule(count={"reports": 3, "within_s": 600}, **GROUPED)


def test_the_third_delay_within_ten_minutes_is_an_incident_of_all_three() -> None:
    log = Log(rules=(COUNT,))
    assert log.put(train(1)) == []
    assert log.put(train(1, title="Still late"), minute=1) == []
    assert log.put(train(2), minute=5) == []
    assert [type(r) for r in log.put(train(3), minute=9)][:2] == [HoldOpened, StatusUpdate]
    (incident,) = log.incidents
    assert incident.report_count == 3
    assert len(log.state.waiting) == 0
    assert len(log.state.counts) == 0


def test_delays_further_apart_are_no_incident_and_are_forgotten() -> None:
    log = Log(rules=(COUNT,))
    for minute in (0, 6, 12, 18):
        assert log.put(train(minute), minute=minute) == []
    log.pass_time(60)
    assert (len(log.state.waiting), len(log.state.counts)) == (0, 0)


def test_delays_of_two_lines_are_counted_apart() -> None:
    log = Log(rules=(COUNT,))
    for number, line in enumerate(("coast", "coast", "valley", "valley")):
        assert log.put(train(number, labels={"line": line})) == []


def test_a_delay_that_is_over_does_not_count() -> None:
    log = Log(rules=(COUNT,))
    log.put(train(1))
    log.put(train(1, "resolved"))
    log.put(train(2))
    assert log.put(train(3)) == []


def test_a_fourth_delay_joins_without_being_counted() -> None:
    log = Log(rules=(COUNT,))
    for number in range(4):
        log.put(train(number))
    (incident,) = log.incidents
    assert incident.report_count == 4


def test_where_too_many_wait_the_next_one_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "WAITING", 2)
    log = Log(rules=(a_rule(for_s=120),))
    for number in range(3):
        log.put(train(number))
    assert log.holds == [COAST]


def test_planned_works_hold_in_their_periods_only() -> None:
    nights = [{"start_at": at(m), "end_at": at(m + 5)} for m in (10, 30)]
    log = Log()
    assert log.put(a_disruption(planned=True, periods=nights)) == []
    held = {}
    for minute in (9, 10, 14, 15, 29, 30, 35):
        log.pass_time(minute)
        held[minute] = bool(log.holds)
    assert held == {9: False, 10: True, 14: True, 15: False, 29: False, 30: True, 35: False}


def test_a_period_that_begins_after_its_incident_was_closed_holds_again() -> None:
    """Works of two weekends: between them the incident was closed, and the second was forgotten."""
    log = Log(rules=(a_rule(close_after_s=60),))
    log.put(a_disruption(periods=[{"end_at": at(5)}, {"start_at": at(600), "end_at": at(700)}]))
    log.pass_time(500)
    assert log.incidents == []
    log.pass_time(600)
    assert log.holds == [COAST]


def test_an_alert_that_is_not_sent_again_is_over_when_it_expires() -> None:
    log = Log()
    log.put(a_disruption(expires_at=at(5)))
    assert log.put(a_disruption(expires_at=at(9)), minute=4) == [], "renewed: nothing to say"
    log.pass_time(8)
    assert log.holds == [COAST]
    assert of(HoldReleased, log.pass_time(9))


def test_what_expired_and_is_sent_again_holds_again() -> None:
    log = Log()
    log.put(a_disruption(expires_at=at(5)))
    log.pass_time(6)
    assert of(HoldOpened, log.put(a_disruption(expires_at=at(11))))


def test_what_a_data_set_does_not_name_any_more_is_over() -> None:
    log = Log()
    for number in (1, 2):
        log.put(train(number, labels={"line": f"line-{number}"}), source="/gtfs/metro")
    log.put(train(3, labels={"line": "line-3"}), source="/control-room")
    read = SourceRead(network="northlink", source="/gtfs/metro", disruption_ids=("train-2",))
    log.put(read)
    assert log.holds == [f'{{network="northlink",line="line-{n}"}}' for n in (2, 3)]


def test_a_source_that_is_not_read_any_more_holds_until_it_is() -> None:
    stale = [{"source": "/gtfs/.*", "after_s": 300, "hold": '{network="northlink"}'}]
    log = Log(stale=stale)
    read = SourceRead(network="northlink", source="/gtfs/metro")
    log.put(read)
    assert log.put(read, minute=4) == []
    log.pass_time(8)
    assert log.precautions == []
    log.pass_time(9)
    assert log.precautions == ['{network="northlink"}']
    assert "was not read since 2026-10-17 18:06 UTC" in of(HoldOpened, log.said)[0].reason
    log.put(read, minute=20)
    assert log.precautions == []


def test_a_source_that_was_never_read_holds_when_it_is_expected() -> None:
    stale = [{"source": "/gtfs/.*", "after_s": 300, "hold": "{}"}]
    log = Log(stale=stale)
    log.put(train(1), source="/gtfs/metro")
    expected = SourceRead(network="northlink", source="/gtfs/metro", is_only_expected=True)
    log.put(expected)
    assert log.holds == [COAST], "nothing is over because of it"
    log.put(expected, minute=4)
    log.pass_time(5)
    assert log.precautions == ["{}"]
    log.put(expected, minute=6)
    assert log.precautions == ["{}"], "to try is not to read"


def test_a_policy_judges_the_silence_of_sources_that_were_read_before_it() -> None:
    log = Log()
    log.put(SourceRead(network="northlink", source="/gtfs/metro"))
    stale = [{"source": "/gtfs/.*", "after_s": 300, "hold": "{}"}]
    log.put(PolicyApplied(policy=a_policy(stale=stale), author="ada"), minute=4)
    log.pass_time(5)
    assert log.precautions == ["{}"]


def test_a_report_that_got_worse_while_it_was_counted_counts_no_more() -> None:
    worst = a_rule("worst", match='{severity="critical"}')
    log = Log(rules=(worst, COUNT))
    log.put(train(1))
    log.put(train(1, severity="critical"))
    log.put(train(2))
    assert len(log.incidents) == 1
    log.put(train(3))
    assert len(log.incidents) == 1, "two of three"
    log.put(train(4))
    assert [i.report_count for i in log.incidents] == [1, 3]


def test_a_report_waits_as_long_as_the_one_it_replaces_has_waited() -> None:
    log = Log(rules=(a_rule(for_s=120),))
    log.put(train(1))
    log.put(train(2, replaces=["train-1"]), minute=1)
    log.pass_time(2)
    assert [i.report_count for i in log.incidents] == [1]
    assert len(log.state.waiting) == 0


def test_a_person_who_says_that_it_is_over_is_believed_until_there_is_news() -> None:
    """Prometheus sends a firing alert again every minute: that must not undo what Maya said."""
    log = Log()
    log.put(a_disruption(expires_at=at(5)))
    (incident,) = log.incidents
    log.put(ResolveIncident(incident_id=incident.incident_id, reason="drill", author="maya"))
    assert log.put(a_disruption(expires_at=at(7)), minute=1) == []
    assert of(HoldOpened, log.put(a_disruption(title="It is no drill"), minute=2))


def test_an_overruled_report_that_expires_and_comes_again_holds() -> None:
    log = Log()
    log.put(a_disruption(expires_at=at(5)))
    (incident,) = log.incidents
    log.put(ResolveIncident(incident_id=incident.incident_id, reason="drill", author="maya"))
    log.pass_time(6)
    assert of(HoldOpened, log.put(a_disruption(expires_at=at(12)), minute=7))
    assert of(Incident, log.said)[-1].status == "investigating"


def test_a_report_takes_the_place_of_those_it_replaces_in_their_incident() -> None:
    log = Log()
    log.put(train(1))
    log.put(train(2, replaces=["train-1"], labels={"line": "valley"}), minute=1)
    (incident,) = log.incidents
    assert (incident.report_count, log.holds) == (1, ['{network="northlink",line="valley"}'])
    log.put(train(1, "resolved"))
    assert len(log.holds) == 1
    log.put(train(2, "resolved"))
    assert log.holds == []


def test_an_acknowledgement_changes_the_phase_and_nothing_else() -> None:
    log = Log()
    assert log.put(train(1, "acknowledged", title="")) == [], "nobody knows what it is about"
    log.put(train(1))
    said = log.put(train(1, "acknowledged", title=""), event_id="ack")
    assert [(type(r), r.status, r.title) for r in said] == [
        (Incident, "identified", "Trains are standing")
    ]
    assert log.put(train(1, "acknowledged", title="")) == []
    assert log.put(train(1, "opened", phase="identified")) == []
