"""When the detector looks at its deadlines: at all of them only behind a change; and when it writes snapshots."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from schemas.disruptions import Fence
from services.detector import stream
from services.detector.fold import fold
from services.detector.state import State, deadlines_of, first_deadline
from services.detector.stream import Partition, snapshot_pause_s
from tests.builders import a_disruption, a_policy, an_entry

EVER = datetime.max.replace(tzinfo=UTC)
MOMENT = timedelta(microseconds=1)


def a_state() -> State:
    """Return a state that waits for something."""
    return fold(State(policy=a_policy()), an_entry(a_disruption(), offset=1)).state


def test_the_first_deadline_is_the_earliest_of_all() -> None:
    state = a_state()
    assert first_deadline(state) == min(d.due_at for d in deadlines_of(state, until=EVER))
    assert first_deadline(State()) is None


def test_a_state_that_did_not_change_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[State] = []

    def counted(state: State) -> datetime | None:
        looked.append(state)
        return first_deadline(state)

    monkeypatch.setattr(stream, "first_deadline", counted)
    ours = Partition(a_state(), offset=2, saved_offset=0)
    due_at = first_deadline(ours.state)
    assert due_at is not None
    for now, is_due in ((due_at - MOMENT, False), (due_at, True), (due_at + MOMENT, True)):
        assert ours.is_due(now) is is_due
    fence = an_entry(Fence(publisher="p", number=1, partition=0), offset=2)
    ours.state = fold(ours.state, fence).state  # It changes nothing.
    assert ours.is_due(due_at)
    assert len(looked) == 1
    ours.state = State(policy=ours.state.policy)
    assert not ours.is_due(EVER)


@pytest.mark.parametrize(
    ("took_s", "pause_s"), [(0.0, 2.0), (0.1, 2.0), (0.5, 10.0), (1.2, 24.0), (12.0, 30.0)]
)
def test_large_snapshots_are_written_less_often_and_never_put_off_for_long(
    took_s: float, pause_s: float
) -> None:
    assert snapshot_pause_s(took_s) == pause_s
