"""Holds before our first fence, by their keys: whatever the order, what was released is not open."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from schemas.holds import HoldReleased, OpenHolds
from schemas.topics import key_of
from services.publisher.history import History
from tests.builders import AT, a_hold, a_release


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=30))
def test_it_knows_the_same_holds_as_reading_each_record(facts: list[tuple[str, bool]]) -> None:
    history, read = History(), OpenHolds()
    for name, is_release in facts:
        hold = a_hold(hold_id=name)
        fact = a_release(hold) if is_release else hold
        read.apply(fact)
        assert history.take((key_of(fact) or "").encode(), (), b"words")
    assert set(history.still_open()) == {hold.hold_id for hold in read}
    later = OpenHolds()
    later.released_before(history.released)
    for name in "abcd":
        hold = a_hold(hold_id=name)
        assert later.knows(name) == (read.knows(name) and name not in read)
        if name in read:
            assert later.apply(hold)
    assert {h.hold_id for h in later} == {h.hold_id for h in read}


def test_an_echo_is_no_hold() -> None:
    assert not History().take(b"fence/p/0", (), b"")


def test_a_hold_released_before_our_time_is_not_opened_by_a_repeated_record() -> None:
    known = OpenHolds()
    known.released_before({"a"})
    assert not known.apply(a_hold(hold_id="a"))
    assert not known.apply(HoldReleased(hold_id="a", released_at=AT, reason="again"))
