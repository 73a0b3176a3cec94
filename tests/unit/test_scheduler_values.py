"""Lanes, recovery, and the life of an offer."""

from __future__ import annotations

from datetime import timedelta
from typing import get_args

import pytest
from pydantic import ValidationError

from schemas.posts import Result
from services.scheduler.bodies import PostBody
from services.scheduler.lanes import covered, held_by, lane_key
from services.scheduler.life import State, after
from services.scheduler.recovery import (
    Decision,
    Expire,
    Plan,
    Resume,
    Review,
    Shift,
    Slots,
    Spread,
    latest_of,
    recover,
    recovers_at,
)
from tests.builders import AT, a_hold, an_outcome

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("plan", "due", "latest", "state", "then"),
    [
        (Review(), -10, -1, "expired", -10),
        (Review(), -10, 0, "expired", -10),
        (Review(), -10, 1, "review", -10),
        (Review(), 0, 1, "review", 0),
        (Review(), 1, 2, "queued", 1),
        (Resume(plan="resume"), -10, 1, "queued", 0),
        (Resume(plan="resume"), -10, 0, "expired", -10),
        (Resume(plan="resume"), 5, 9, "queued", 5),
        (Expire(plan="expire", after_s=300), -4, 9, "queued", 0),
        (Expire(plan="expire", after_s=300), -6, 9, "expired", -6),
        (Shift(plan="shift"), -10, -5, "queued", 20),
        (Shift(plan="shift"), 5, 9, "queued", 35),
        (Shift(plan="shift"), -40, -35, "expired", -10),
        (Shift(plan="shift"), -40, -5, "queued", 0),
    ],
)
def test_the_plan_decides_of_what_was_due_during_a_stop_of_half_an_hour(
    plan: Plan, due: int, latest: int, state: str, then: int
) -> None:
    decided = a_decision(plan, due=due, latest=latest)
    assert (decided.state, decided.due_at) == (state, AT + then * MINUTE)


def a_decision(plan: Plan, *, due: int, latest: int, slots: Slots | None = None) -> Decision:
    return recover(
        due_at=AT + due * MINUTE, latest_at=AT + latest * MINUTE, now=AT, plan=plan,
        stopped=30 * MINUTE, slots=slots or Slots(AT), why="due during a stop",
    )  # fmt: skip


def test_spread_sends_one_behind_the_other_and_none_of_them_too_late() -> None:
    slots, plan = Slots(AT), Spread(plan="spread", per_hour=60)
    decided = [a_decision(plan, due=-5, latest=3, slots=slots) for _ in range(5)]
    assert [one.due_at for one in decided] == [AT + n * MINUTE for n in range(5)]
    assert [one.state for one in decided] == ["queued"] * 3 + ["expired"] * 2


@pytest.mark.parametrize("plan", [Review(), Resume(plan="resume"), Shift(plan="shift"),
                                  Spread(plan="spread", per_hour=1), Expire(plan="expire", after_s=1)])  # fmt: skip
def test_whatever_the_plan_nothing_goes_out_behind_its_latest_useful_time(plan: Plan) -> None:
    for latest in range(-60, 60, 7):
        for due in range(latest - 50, latest, 7):
            one = a_decision(plan, due=due, latest=latest)
            assert one.state != "queued" or max(one.due_at, AT) < one.latest_at


def test_a_lane_recovers_after_the_quiet_period() -> None:
    assert recovers_at(AT, quiet_s=300) == AT + 5 * MINUTE


def test_an_offer_is_useful_for_a_while_unless_it_says_otherwise() -> None:
    assert latest_of(AT, None, useful_s=60) == AT + MINUTE
    assert latest_of(AT, AT + 2 * MINUTE, useful_s=60) == AT + 2 * MINUTE


@pytest.mark.parametrize("name", ["due_at", "latest_at"])
@pytest.mark.parametrize("at", ["9999-12-31T23:59:59Z", "0099-12-31T23:59:59Z"])
def test_a_time_that_nobody_means_is_refused_by_name(name: str, at: str) -> None:
    with pytest.raises(ValidationError, match="between the years 100 and 9000") as refused:
        PostBody.model_validate({"account": "a", "text": "To the sea", name: at})
    assert refused.value.errors()[0]["loc"] == (name,)


def test_equal_labels_share_a_lane() -> None:
    assert lane_key({"a": "1", "b": "2"}) == lane_key({"b": "2", "a": "1"})


def test_holds_are_judged_per_lane() -> None:
    coast, network = a_hold('{line="coast"}'), a_hold('{network="northlink"}')
    assert held_by({"line": "valley", "network": "northlink"}, [coast, network]) == [
        network.hold_id
    ]
    assert covered([(1, {"line": "coast"}), (2, {"line": "valley"}), (3, {})], coast) == [1, 3]


@pytest.mark.parametrize(
    ("state", "result", "then"),
    [
        ("handed", "published", "published"),
        ("claimed", "held", "held"),
        ("handed", "uncertain", "uncertain"),
        ("queued", "held", None),
        ("published", "held", None),
        ("published", "expired", None),
        ("published", "retracted", "retracted"),
        ("retracted", "published", None),
        ("retraction_failed", "retracted", "retracted"),
        ("cancelled", "published", "published"),
        ("expired", "published", "published"),
        ("failed", "published", "published"),
    ],
)
def test_outcomes_move_offers(state: State, result: Result, then: State | None) -> None:
    assert after(state, 1, an_outcome(result=result)) == then


@pytest.mark.parametrize("result", ["held", "expired", "failed", "uncertain"])
def test_an_outcome_of_an_earlier_attempt_changes_nothing(result: Result) -> None:
    assert after("handed", 2, an_outcome(result=result, attempt=1)) is None


def test_that_it_went_out_is_believed_of_any_attempt() -> None:
    assert after("handed", 2, an_outcome(attempt=1)) == "published"


def test_every_result_is_in_the_table() -> None:
    for result in get_args(Result):
        after("handed", 1, an_outcome(result=result))
