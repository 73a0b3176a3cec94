"""An evening against the queue: each plan, overlapping holds, what is taken back and what stays held."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from schemas.labels import parse_matchers
from services.scheduler.recovery import Expire, Plan, Resume, Review, Shift, Spread
from services.scheduler.rehearsal import Fated, Hold, Lane, Offer, rehearse
from tests.builders import AT

MINUTE = timedelta(minutes=1)
COAST, VALLEY = 1, 2


def a_hold(begin: float, end: float | None, *, line: str = "coast", take_back: float = 0) -> Hold:
    return Hold(
        hold_id=f"{line}-{begin:g}", matchers=parse_matchers(f'{{line="{line}"}}'),
        opened_at=AT + begin * MINUTE, released_at=None if end is None else AT + end * MINUTE,
        take_back_s=int(take_back * 60),
    )  # fmt: skip


def play(
    *due: float, holds: list[Hold], plan: Plan | None = None, useful: float = 600, quiet: float = 0
) -> list[Fated]:
    known: dict[str, Any] = {
        "campaign_id": "c", "plan": plan or Resume(plan="resume"), "quiet_s": int(quiet * 60),
    }  # fmt: skip
    lanes = {
        COAST: Lane(labels={"line": "coast"}, **known),
        VALLEY: Lane(labels={"line": "valley"}, **known),
    }
    offers = [
        Offer(
            post_id=f"p{minute:g}", lane_id=COAST, due_at=AT + minute * MINUTE,
            latest_at=AT + (minute + useful) * MINUTE,
        )
        for minute in due
    ]  # fmt: skip
    return rehearse(offers, lanes, holds, now=AT)


def told(found: list[Fated]) -> list[tuple[str, float | None]]:
    return [(one.fate, (one.then_at - AT) / MINUTE if one.then_at else None) for one in found]


@pytest.mark.parametrize(
    ("plan", "fates"),
    [
        (Resume(plan="resume"), [("as planned", 5), ("late", 30), ("late", 30), ("as planned", 40)]),
        (Review(), [("as planned", 5), ("review", None), ("review", None), ("as planned", 40)]),
        (Spread(plan="spread", per_hour=6), [("as planned", 5), ("late", 30), ("late", 40), ("as planned", 40)]),
        (Shift(plan="shift"), [("as planned", 5), ("late", 32), ("late", 40), ("late", 60)]),
        (Expire(plan="expire", after_s=900), [("as planned", 5), ("expired", None), ("late", 30), ("as planned", 40)]),
    ],
)  # fmt: skip
def test_each_plan_decides_of_a_stop_of_twenty_minutes(
    plan: Plan, fates: list[tuple[str, float | None]]
) -> None:
    assert told(play(5, 12, 20, 40, holds=[a_hold(10, 30)], plan=plan)) == fates


def test_what_no_hold_covers_goes_as_planned() -> None:
    assert told(play(15, holds=[a_hold(10, 30, line="valley")])) == [("as planned", 15)]


def test_holds_that_overlap_or_follow_in_the_quiet_period_are_one_stop() -> None:
    overlapping = [a_hold(10, 20), a_hold(15, 40), a_hold(43, 50)]
    assert told(play(12, holds=overlapping, quiet=5)) == [("late", 55)]
    assert told(play(12, 47, holds=overlapping)) == [("late", 40), ("late", 50)]


def test_what_comes_late_into_another_stop_waits_again() -> None:
    shifted = play(12, 25, holds=[a_hold(10, 20), a_hold(30, 40)], plan=Shift(plan="shift"))
    assert told(shifted) == [("late", 22), ("late", 45)]


def test_a_hold_without_an_end_and_one_too_long() -> None:
    assert told(play(12, holds=[a_hold(10, None)])) == [("still held", None)]
    assert told(play(12, holds=[a_hold(10, 30)], useful=5)) == [("expired", None)]
    (fated,) = play(12, holds=[a_hold(10, 20), a_hold(15, None)])
    assert (fated.fate, fated.hold_id) == ("still held", "coast-10")


def test_what_went_out_just_before_is_taken_back() -> None:
    assert told(play(7, 9, holds=[a_hold(10, 20, take_back=2)])) == [
        ("as planned", 7), ("taken back", None),
    ]  # fmt: skip
