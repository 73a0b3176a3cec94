"""The detector's fold: what each record of the log means."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from schemas.disruptions import (
    Deadline,
    DeclareIncident,
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
from schemas.labels import format_matchers
from services.detector.deadlines import Deadlines
from services.detector.fold import lost
from services.detector.state import State, dump, entry_id, load, partition_of
from tests.builders import AT, a_disruption, a_policy, a_rule, an_entry
from tests.played import of, play

LATER = AT + timedelta(minutes=5)
EVER = AT + timedelta(days=900)


def test_a_disruption_opens_a_hold_an_incident_and_a_first_update_in_this_order() -> None:
    _, said = play(an_entry(a_disruption(), offset=7))
    assert [type(record) for record in said] == [HoldOpened, StatusUpdate, Incident]
    hold, update, incident = said
    assert isinstance(hold, HoldOpened)
    assert format_matchers(hold.matchers) == '{network="northlink",line="coast"}'
    assert isinstance(incident, Incident)
    assert incident.hold_ids == (hold.hold_id,)
    assert incident.next_update_at == AT + timedelta(seconds=1200)
    assert isinstance(update, StatusUpdate)
    assert update.texts == {"en": "Trains are standing: opened"}


def test_the_same_event_again_says_nothing() -> None:
    event = an_entry(a_disruption())
    state, _ = play(event)
    assert play(event, state=state) == (state, [])


def test_a_replay_says_the_same_things_again() -> None:
    entries = [
        an_entry(a_disruption(), offset=1),
        an_entry(a_disruption(status="resolved"), offset=2),
    ]
    assert play(*entries) == play(*entries)


def test_a_resolution_releases_what_the_incident_held_and_says_so() -> None:
    state, before = play(an_entry(a_disruption()))
    state, said = play(an_entry(a_disruption(status="resolved"), offset=1), state=state)
    assert [type(record) for record in said] == [HoldReleased, StatusUpdate, Incident]
    assert of(HoldReleased, said)[0].hold_id == of(HoldOpened, before)[0].hold_id
    assert of(Incident, said)[0].status == "resolved"


def test_an_incident_releases_only_its_own_hold() -> None:
    other = an_entry(a_disruption(disruption_id="points-77"), offset=1)
    state, before = play(an_entry(a_disruption()), other)
    _, said = play(an_entry(a_disruption(status="resolved"), offset=2), state=state)
    assert [r.hold_id for r in of(HoldReleased, said)] == [of(HoldOpened, before)[0].hold_id]


def test_the_same_name_on_another_network_is_another_incident() -> None:
    """Two operators whose systems count alike, on one partition: one resolved the other's hold."""
    elsewhere = a_disruption(network="southlink", status="resolved")
    state, _ = play(an_entry(a_disruption()))
    assert play(an_entry(elsewhere, offset=1), state=state)[1] == []


def test_a_disruption_that_comes_back_opens_a_new_hold() -> None:
    _, said = play(
        an_entry(a_disruption(), offset=0),
        an_entry(a_disruption(status="resolved"), offset=1),
        an_entry(a_disruption(status="updated"), offset=2),
    )
    first, second = of(HoldOpened, said)
    assert first.hold_id != second.hold_id
    assert of(Incident, said)[-1].status == "investigating"


def test_a_wider_scope_opens_the_new_hold_before_it_releases_the_old_one() -> None:
    wider = an_entry(a_disruption(status="updated", labels={}), offset=1)
    _, said = play(an_entry(a_disruption()), wider)
    kinds = [type(record) for record in said]
    assert kinds.index(HoldReleased) > kinds.index(HoldOpened, 1)


def test_a_hold_that_a_person_released_stays_released_when_news_come() -> None:
    state, before = play(an_entry(a_disruption()))
    hold_id = of(HoldOpened, before)[0].hold_id
    release = ReleaseHold(hold_id=hold_id, reason="only one train", author="maya")
    news = a_disruption(status="updated", title="One train is standing")
    _, said = play(an_entry(release, offset=1), an_entry(news, offset=2), state=state)
    assert len(of(HoldReleased, said)) == 1
    assert of(HoldOpened, said) == []
    assert of(Incident, said)[-1].hold_ids == ()


def test_news_are_said_and_the_same_words_are_not() -> None:
    same = a_disruption(status="updated")
    news = a_disruption(status="updated", detail="Two trains.")
    _, said = play(an_entry(a_disruption()), an_entry(same, offset=1), an_entry(news, offset=2))
    assert [update.moment for update in of(StatusUpdate, said)] == ["opened", "working"]


def test_a_resolution_of_what_was_never_reported_says_nothing() -> None:
    assert play(an_entry(a_disruption(status="resolved")))[1] == []


def test_before_the_first_policy_a_disruption_holds_everything() -> None:
    _, said = play(an_entry(a_disruption()), state=State())
    assert of(HoldOpened, said)[0].matchers == ()
    assert of(StatusUpdate, said) == []


def test_a_disruption_that_no_rule_speaks_of_holds_its_network() -> None:
    policy = a_policy(a_rule("buses", match='{mode="bus"}'))
    _, said = play(an_entry(a_disruption()), state=State(policy=policy))
    assert format_matchers(of(HoldOpened, said)[0].matchers) == '{network="northlink"}'


def test_a_rule_may_hold_nothing_and_say_nothing() -> None:
    policy = a_policy(a_rule("info", hold="nothing", say=False))
    _, said = play(an_entry(a_disruption()), state=State(policy=policy))
    assert [type(record) for record in said] == [Incident]


def test_a_policy_is_in_force_from_its_record_on() -> None:
    policy = PolicyApplied(policy=a_policy(a_rule("all", hold="everything")), author="ada")
    _, said = play(
        an_entry(a_disruption()),
        an_entry(policy, offset=1),
        an_entry(a_disruption(disruption_id="d2"), offset=2),
    )
    assert [len(hold.matchers) for hold in of(HoldOpened, said)] == [2, 0]


def test_an_unreadable_record_holds_everything_once() -> None:
    _, said = play(
        an_entry(Unreadable(error="not JSON")), an_entry(Unreadable(error="neither"), offset=1)
    )
    (hold,) = said
    assert isinstance(hold, HoldOpened)
    assert hold.matchers == ()
    assert hold.reason == "unreadable event: not JSON"


def test_lost_records_hold_everything() -> None:
    step = lost(State(), an_entry(Unreadable(error="gone")))
    assert [hold.matchers for hold in of(HoldOpened, step.outputs)] == [()]


def test_a_hold_is_named_by_one_time_and_was_opened_at_another() -> None:
    """Found by the simulation: opened in 1970, it let `shift` move what it stopped by 56 years."""
    named_at = datetime.fromtimestamp(0, UTC)
    entry = replace(an_entry(Unreadable(error="gone"), offset=7, at=AT), named_at=named_at)
    later = replace(entry, at=AT + timedelta(seconds=3))
    first, second = (of(HoldOpened, lost(State(), one).outputs)[0] for one in (entry, later))
    assert first.hold_id == second.hold_id == "hold-2-7-0"
    assert first.opened_at == AT


def test_a_fence_is_echoed_by_its_partition() -> None:
    _, said = play(an_entry(Fence(publisher="p", number=3)))
    assert said == [FencePassed(publisher="p", number=3, partition=2)]


def test_people_hold_and_release() -> None:
    hold = HoldOffers.model_validate(
        {"network": "n", "matchers": "{}", "reason": "strike", "author": "maya"}
    )
    state, said = play(an_entry(hold, offset=4))
    (opened,) = of(HoldOpened, said)
    assert (opened.author, opened.reason, opened.matchers) == ("maya", "strike", ())
    release = ReleaseHold(hold_id=opened.hold_id, reason="over", author="ben")
    state, said = play(an_entry(release, offset=5), state=state)
    assert [(r.hold_id, r.author) for r in of(HoldReleased, said)] == [(opened.hold_id, "ben")]


def test_a_person_ends_a_hold_whose_beginning_was_lost() -> None:
    """Found by the simulation: records were lost behind a hold, and nobody could release it."""
    (opened,) = of(HoldOpened, play(an_entry(a_disruption(), offset=4))[1])
    release = ReleaseHold(hold_id=opened.hold_id, reason="over", author="ben")
    _, said = play(an_entry(release, offset=9))
    assert [r.hold_id for r in of(HoldReleased, said)] == [opened.hold_id]
    elsewhere = an_entry(release, offset=9, partition=3)
    assert play(elsewhere)[1] == [], "only the partition that opened it may say so"


def test_people_declare_write_and_resolve() -> None:
    declare = DeclareIncident(
        network="northlink", title="Snow", labels={"line": "coast"}, author="maya"
    )
    state, said = play(an_entry(declare))
    incident_id = of(Incident, said)[0].incident_id
    write = UpdateIncident(incident_id=incident_id, texts={"en": "Buses run."}, author="ben")
    resolve = ResolveIncident(incident_id=incident_id, reason="thawed", author="maya")
    _, said = play(an_entry(write, offset=1), an_entry(resolve, offset=2), state=state)
    assert [(u.moment, u.author) for u in of(StatusUpdate, said)] == [
        ("written", "ben"),
        ("resolved", "detector"),
    ]
    assert of(HoldReleased, said)[0].author == "maya"


def deadline(state: State, kind: str) -> Deadline:
    return next(d for d in Deadlines().until(state, EVER) if d.kind == kind)


def test_the_next_update_is_said_when_its_deadline_is_read() -> None:
    state, _ = play(an_entry(a_disruption()))
    due = deadline(state, "next_update")
    state, said = play(an_entry(due, offset=1, at=due.due_at), state=state)
    assert [u.moment for u in of(StatusUpdate, said)] == ["working"]
    assert deadline(state, "next_update").due_at == due.due_at + timedelta(seconds=1200)


@pytest.mark.parametrize("early", [timedelta(seconds=1), timedelta(hours=1)])
def test_a_deadline_written_by_a_clock_that_runs_fast_is_passed_over(early: timedelta) -> None:
    state, _ = play(an_entry(a_disruption()))
    due = deadline(state, "next_update")
    assert play(an_entry(due, offset=1, at=due.due_at - early), state=state) == (state, [])


def test_a_deadline_that_does_not_stand_any_more_is_passed_over() -> None:
    state, _ = play(an_entry(a_disruption()))
    due = deadline(state, "next_update")
    state, _ = play(an_entry(a_disruption(status="resolved"), offset=1), state=state)
    assert play(an_entry(due, offset=2, at=due.due_at), state=state) == (state, [])


def test_a_resolved_incident_closes_and_is_forgotten() -> None:
    state, _ = play(
        an_entry(a_disruption()), an_entry(a_disruption(status="resolved"), offset=1, at=LATER)
    )
    due = deadline(state, "close")
    state, said = play(an_entry(due, offset=2, at=due.due_at), state=state)
    assert [i.status for i in of(Incident, said)] == ["closed"]
    assert (len(state.stories), len(state.story_of), len(state.waiting)) == (0, 0, 0)


def test_the_state_is_the_same_after_it_was_written_and_read() -> None:
    state, _ = play(an_entry(a_disruption()), an_entry(Unreadable(error="x"), offset=1))
    assert load(json.loads(json.dumps(dump(state)))) == state


def test_an_id_tells_its_partition() -> None:
    assert partition_of(entry_id("hold", partition=3, offset=9, at=AT)) == 3
    assert partition_of(entry_id("hold", partition=3, offset=9, at=AT, number=1)) == 3
    assert partition_of("hold-of-somebody-else") is None
