"""Holds and incidents that nobody ends: which they are."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from schemas.holds import HoldOpened
from schemas.incidents import Incident
from services.detector.fold import fold
from services.detector.orphans import closed, orphans
from services.detector.state import State
from tests.builders import AT, a_disruption, a_hold, a_policy, an_entry


@dataclass
class Folded:
    """A partition in our hands."""

    state: State
    offset: int


@pytest.mark.parametrize(
    ("hold_id", "is_orphan"),
    [
        ("hold-2-7-19de444b245", True),
        ("hold-2-8-19de444b245-1", True),
        ("hold-2-9-19de444b245", False),  # Not folded yet: it may be said again.
        ("hold-3-7-19de444b245", False),  # Another's.
        ("a-hold", False),
    ],
)
def test_a_hold_of_what_we_are_behind_and_do_not_know_is_one(hold_id: str, is_orphan: bool) -> None:
    found, _ = orphans([a_hold(hold_id=hold_id)], [], {2: Folded(State(), 9)})
    assert bool(found) == is_orphan


def test_what_a_person_holds_is_theirs_to_end() -> None:
    hold = a_hold(hold_id="hold-2-7-19de444b245", author="maya")
    assert orphans([hold], [], {2: Folded(State(), 9)}) == ([], [])


def test_what_the_state_knows_is_none() -> None:
    step = fold(State(policy=a_policy()), an_entry(a_disruption(), offset=4))
    holds = [one for one in step.outputs if isinstance(one, HoldOpened)]
    incidents = [one for one in step.outputs if isinstance(one, Incident)]
    assert holds
    assert incidents
    assert orphans(holds, incidents, {2: Folded(step.state, 5)}) == ([], [])
    assert orphans(holds, incidents, {2: Folded(State(), 5)}) == (holds, incidents)
    over = closed(incidents[0], at=AT)
    assert orphans([], [over], {2: Folded(State(), 5)}) == ([], [])
    assert (over.is_open, over.hold_ids) == (False, ())
