"""Lanes, recovery, and the life of an offer."""

from __future__ import annotations

from datetime import timedelta
from typing import get_args

import pytest

from schemas.posts import Result
from services.scheduler.lanes import covered, held_by, lane_key
from services.scheduler.life import State, after
from services.scheduler.recovery import latest_of, recover, recovers_at
from tests.builders import AT, a_hold, an_outcome

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("due", "latest", "decision"),
    [
        (-10, -1, "expired"),
        (-10, 0, "expired"),
        (-10, 1, "review"),
        (0, 1, "review"),
        (1, 2, "queued"),
    ],
)
def test_after_a_hold_stale_offers_expire_past_due_ones_wait_and_the_rest_go_on(
    due: int, latest: int, decision: str
) -> None:
    assert recover(due_at=AT + due * MINUTE, latest_at=AT + latest * MINUTE, now=AT) == decision


def test_a_lane_recovers_after_the_quiet_period() -> None:
    assert recovers_at(AT, quiet_s=300) == AT + 5 * MINUTE


def test_an_offer_is_useful_for_a_while_unless_it_says_otherwise() -> None:
    assert latest_of(AT, None, useful_s=60) == AT + MINUTE
    assert latest_of(AT, AT + 2 * MINUTE, useful_s=60) == AT + 2 * MINUTE


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
