"""When an incident speaks: gaps, muted windows, inhibition, approval, people's own words."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from schemas.disruptions import ApproveUpdate, UpdateIncident
from schemas.holds import HoldOpened
from schemas.incidents import StatusUpdate
from tests.builders import AT, a_disruption, a_rule
from tests.played import Log, of


def spoken(log: Log) -> list[tuple[int, str]]:
    """Return minute and moment of everything that was said."""
    return [
        (round((u.written_at - AT).total_seconds() / 60), u.moment)
        for u in of(StatusUpdate, log.said)
    ]


def incident_id(log: Log) -> str:
    found: str = log.incidents[0].incident_id
    return found


def news(number: int, **values: Any) -> Any:
    return a_disruption(status="updated", detail=f"{number} trains.", **values)


def test_it_speaks_again_when_it_said_it_would_even_without_news() -> None:
    log = Log(rules=(a_rule(next_update_s=1200),))
    log.put(a_disruption())
    log.pass_time(41)
    assert spoken(log) == [(0, "opened"), (20, "working"), (40, "working")]


def test_news_within_the_gap_are_said_once_when_it_is_over() -> None:
    log = Log(rules=(a_rule(update_gap_s=300),))
    log.put(a_disruption())
    for minute in (1, 2, 3):
        log.put(news(minute), minute=minute)
    log.pass_time(6)
    assert spoken(log) == [(0, "opened"), (5, "working")]


def test_what_got_worse_does_not_wait_for_the_gap() -> None:
    log = Log(rules=(a_rule(update_gap_s=300),))
    log.put(a_disruption(severity="minor"))
    log.put(news(1, severity="critical"), minute=1)
    log.put(news(2, severity="critical"), minute=2)
    log.pass_time(10)
    assert spoken(log) == [(0, "opened"), (1, "working"), (6, "working")]


def test_the_end_waits_for_the_gap_and_the_release_does_not() -> None:
    log = Log(rules=(a_rule(update_gap_s=300),))
    log.put(a_disruption())
    log.put(a_disruption(status="resolved"), minute=1)
    assert log.holds == []
    log.pass_time(6)
    assert spoken(log) == [(0, "opened"), (5, "resolved")]


def test_in_a_muted_window_it_holds_and_speaks_when_the_window_ends() -> None:
    windows = {"evening": {"from": "18:00", "to": "18:30"}}
    log = Log(rules=(a_rule(mute=("evening",)),), windows=windows)
    assert of(HoldOpened, log.put(a_disruption()))
    log.pass_time(29)
    assert spoken(log) == [(28, "opened")]


def test_who_was_told_nothing_is_not_told_that_it_is_over() -> None:
    windows = {"evening": {"from": "18:00", "to": "18:30"}}
    log = Log(rules=(a_rule(mute=("evening",)),), windows=windows)
    log.put(a_disruption())
    log.put(a_disruption(status="resolved"), minute=5)
    log.pass_time(60)
    assert spoken(log) == []


INHIBIT = {
    "by": '{severity="critical"}', "over": '{severity=~"minor|major"}', "equal": ["network"],
}  # fmt: skip


def test_a_network_wide_incident_speaks_for_its_lines_and_their_holds_stay() -> None:
    log = Log(rules=(a_rule(next_update_s=600),), inhibitions=[INHIBIT])
    log.put(a_disruption(disruption_id="all", severity="critical", labels={}))
    log.put(a_disruption(disruption_id="line"), minute=1)
    assert len(log.holds) == 2
    log.put(a_disruption(disruption_id="elsewhere", network="southlink"), minute=2)
    assert [u.network for u in of(StatusUpdate, log.said)] == ["northlink", "southlink"]
    log.put(
        a_disruption(disruption_id="all", severity="critical", labels={}, status="resolved"),
        minute=9,
    )
    log.pass_time(11)
    assert spoken(log)[-1] == (11, "opened"), "now the line speaks for itself"


APPROVAL = {"within_s": 300, "otherwise": "send"}


def test_a_draft_waits_for_a_person_and_goes_out_as_approved() -> None:
    log = Log(rules=(a_rule(approval=APPROVAL),))
    assert of(StatusUpdate, log.put(a_disruption())) == []
    draft = log.incidents[0].draft
    assert draft.due_at == AT + timedelta(minutes=5)
    approve = {"incident_id": incident_id(log), "update_id": draft.update_id, "author": "maya"}
    log.put(ApproveUpdate.model_validate(approve | {"texts": {"en": "Sorry."}}), minute=2)
    (update,) = of(StatusUpdate, log.said)
    assert (update.update_id, update.author, update.texts) == (
        draft.update_id,
        "maya",
        {"en": "Sorry."},
    )
    assert log.put(ApproveUpdate.model_validate(approve)) == [], "it is no draft any more"
    log.pass_time(10)
    assert spoken(log) == [(2, "opened")]


def test_a_draft_that_nobody_approves_goes_out_plain() -> None:
    log = Log(rules=(a_rule(approval=APPROVAL),))
    log.put(a_disruption())
    log.pass_time(6)
    assert spoken(log) == [(5, "opened")]
    assert of(StatusUpdate, log.said)[0].author == "detector"


def test_or_it_is_dropped_where_the_policy_says_so() -> None:
    log = Log(rules=(a_rule(approval=APPROVAL | {"otherwise": "drop"}),))
    log.put(a_disruption())
    log.pass_time(6)
    assert (spoken(log), log.incidents[0].draft) == ([], None)


def test_newer_words_replace_a_draft_and_do_not_get_new_time() -> None:
    log = Log(rules=(a_rule(approval=APPROVAL),))
    log.put(a_disruption())
    first = log.incidents[0].draft
    log.put(news(2), minute=4)
    second = log.incidents[0].draft
    assert second.update_id != first.update_id
    assert second.due_at == first.due_at
    approve = ApproveUpdate(incident_id=incident_id(log), update_id=first.update_id, author="maya")
    assert log.put(approve) == [], "nobody approves words that they have not seen"


def test_a_persons_words_replace_the_draft_and_restart_the_clock() -> None:
    log = Log(rules=(a_rule(approval=APPROVAL, next_update_s=1200),))
    log.put(a_disruption())
    words = UpdateIncident(incident_id=incident_id(log), texts={"en": "Buses run."}, author="ben")
    log.put(words, minute=3)
    assert log.incidents[0].draft is None
    assert log.incidents[0].next_update_at == AT + timedelta(minutes=23)
    log.pass_time(22)
    assert spoken(log) == [(3, "written")]


def test_an_incident_that_comes_back_says_so() -> None:
    log = Log()
    log.put(a_disruption())
    log.put(a_disruption(status="resolved"), minute=1)
    log.put(a_disruption(), minute=2)
    assert [moment for _, moment in spoken(log)] == ["opened", "resolved", "opened"]


WATCHED = {"opened": "a", "working": "b", "resolved": "c"}


def test_while_it_is_only_watched_it_does_not_say_that_people_still_work_on_it() -> None:
    """The hold stayed for its quiet minutes, and the page said: no end yet."""
    log = Log(rules=(a_rule(quiet_s=1800, next_update_s=600),), messages={"en": WATCHED})
    log.put(a_disruption())
    log.put(a_disruption(status="resolved"), minute=5)
    log.pass_time(36)
    assert spoken(log) == [(0, "opened"), (35, "resolved")]


def test_where_the_policy_has_words_for_it_it_says_that_it_is_watched() -> None:
    words = {"en": WATCHED | {"monitoring": "we watch it"}}
    log = Log(rules=(a_rule(quiet_s=1440, next_update_s=600),), messages=words)
    log.put(a_disruption())
    log.put(a_disruption(status="resolved"), minute=5)
    log.pass_time(36)
    assert spoken(log) == [(0, "opened"), (10, "monitoring"), (20, "monitoring"), (29, "resolved")]


def test_what_comes_back_while_it_is_watched_says_so_at_its_next_time() -> None:
    log = Log(rules=(a_rule(quiet_s=1800, next_update_s=600),), messages={"en": WATCHED})
    log.put(a_disruption())
    log.put(a_disruption(status="resolved"), minute=5)
    log.put(a_disruption(), minute=12)
    log.pass_time(21)
    assert spoken(log) == [(0, "opened"), (20, "working")]
