"""Open holds, from facts in any order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.holds import HoldOpened, HoldReleased, OpenHolds
from tests.builders import a_hold, a_release

HOLDS = [a_hold() for _ in range(3)]
FACTS: list[HoldOpened | HoldReleased] = [*HOLDS, *(a_release(hold) for hold in HOLDS)]


@given(st.lists(st.sampled_from(FACTS)))
def test_releasing_wins_over_opening_in_any_order(facts: list[HoldOpened | HoldReleased]) -> None:
    holds = OpenHolds()
    for fact in facts:
        holds.apply(fact)
    released = {fact.hold_id for fact in facts if isinstance(fact, HoldReleased)}
    opened = {fact.hold_id for fact in facts if isinstance(fact, HoldOpened)}
    assert {hold.hold_id for hold in holds} == opened - released


def test_the_same_fact_again_changes_nothing() -> None:
    holds, hold = OpenHolds(), a_hold()
    assert holds.apply(hold)
    assert not holds.apply(hold)
    assert holds.apply(a_release(hold))
    assert not holds.apply(a_release(hold))
    assert not holds.apply(hold)


def test_an_offer_is_covered_by_the_hold_that_stands_longest() -> None:
    holds, first, second = OpenHolds(), a_hold(), a_hold()
    holds.apply(first)
    holds.apply(second)
    assert holds.covering({"line": "coast"}) == first
    assert holds.covering({"line": "valley"}) is None
