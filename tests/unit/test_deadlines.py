"""When the detector looks at its deadlines: at all of them only behind a change; and when it writes snapshots."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from rpds import HashTrieMap

from schemas.disruptions import Fence
from schemas.snapshots import Snapshot
from services.detector.deadlines import Deadlines
from services.detector.fold import fold
from services.detector.state import PerStory, State, Story, dump, items_of, load, values_of
from services.detector.store import Texts
from services.detector.stream import Partition, snapshot_pause_s
from tests.builders import a_disruption, a_policy, a_rule, an_entry

EVER = datetime.max.replace(tzinfo=UTC)
MOMENT = timedelta(microseconds=1)


def a_state() -> State:
    """Return a state that waits for something."""
    return fold(State(policy=a_policy()), an_entry(a_disruption(), offset=1)).state


def of_lines(*names: str) -> State:
    """Return a state with an incident on each line."""
    state = State(policy=a_policy(a_rule("line", group_by=("line",))))
    for offset, name in enumerate(names, start=1):
        told = a_disruption(disruption_id=f"d-{name}", labels={"line": name})
        state = fold(state, an_entry(told, offset=offset)).state
    return state


def test_the_first_deadline_is_the_earliest_of_all() -> None:
    state, deadlines = a_state(), Deadlines()
    assert deadlines.first(state) == min(d.due_at for d in deadlines.until(state, EVER))
    assert deadlines.first(State()) is None


def test_only_what_has_changed_is_made_anew() -> None:
    made: list[str] = []
    state = of_lines("coast", "valley")

    def title_of(story: Story) -> str:
        made.append(story.incident.title)
        return story.incident.title

    changed = PerStory(title_of)
    first = dict(changed.of(state))
    assert len(first) == len(made) == len(state.stories) == 2
    told = a_disruption(disruption_id="d-coast", labels={"line": "coast"}, title="worse")
    state = fold(state, an_entry(told, offset=3)).state
    assert sorted(title for _, title in changed.of(state)) == sorted({*first.values(), "worse"})
    assert made[2:] == ["worse"]
    assert list(changed.of(State())) == []


def test_a_snapshot_says_all_of_the_state_whatever_was_written_before() -> None:
    texts, known = Texts(), Snapshot(partition=3, offset=7, taken_at=EVER, state={})
    for state in (of_lines("coast", "valley"), of_lines("coast"), State(), a_state()):
        read = Snapshot.model_validate_json(texts.of(known, state))
        assert read == known.model_copy(update={"state": {"stories": {}} | dump(state)})
        assert load(read.state) == state


def test_all_of_a_map_is_what_its_own_iterator_says() -> None:
    for size in (0, 1, 1_000):
        found = HashTrieMap({str(number): number for number in range(size)})
        assert sorted(items_of(found)) == sorted(found.items())
        assert sorted(values_of(found)) == list(range(size))


def test_a_state_that_did_not_change_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Partition(a_state(), offset=2, saved_offset=0)
    looked: list[State] = []
    first = ours.deadlines.first

    def counted(state: State) -> datetime | None:
        looked.append(state)
        return first(state)

    monkeypatch.setattr(ours.deadlines, "first", counted)
    due_at = first(ours.state)
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
