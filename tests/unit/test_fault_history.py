"""The judge from outside, on made histories, good and bad."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.faults.history import Arrival, Disruption, Verdict, judge

COAST, VALLEY = ("northlink", "coast"), ("northlink", "valley")
LEASE_S = 0.25
STANDS = Disruption("train-1", COAST, acknowledged_s=100.0)
TOLD = Arrival(100.4, "upd-1", "train-1 stands")
OFFERS = {"offer-1": COAST, "offer-2": VALLEY}


def judged(*arrivals: Arrival, disruption: Disruption = STANDS, **outcomes: str) -> Verdict:
    said: dict[str, Any] = {"offer-1": "retracted", "offer-2": "published"}
    said |= {name.replace("_", "-"): result for name, result in outcomes.items()}
    return judge([disruption], OFFERS, [TOLD, *arrivals], said, lease_s=LEASE_S)


@pytest.mark.parametrize(
    "arrivals",
    [
        (),
        (Arrival(99.0, "offer-1", ""),),
        (Arrival(100.2, "offer-1", ""),),  # Within the lease.
        (Arrival(103.0, "offer-1", "", slow_s=2.8),),  # It was on its way for long.
        (Arrival(103.0, "offer-2", ""),),  # It is not covered.
    ],
)
def test_a_good_history(arrivals: tuple[Arrival, ...]) -> None:
    assert judged(*arrivals).holds


def test_an_offer_that_goes_out_behind_the_lease_is_late() -> None:
    verdict = judged(Arrival(100.3, "offer-1", ""))
    assert not verdict.holds
    (late,) = verdict.late
    assert (late.offer, late.disruption) == ("offer-1", "train-1")
    assert late.by_s == pytest.approx(0.05)


def test_when_its_end_is_on_its_way_it_may_go() -> None:
    over = replace(STANDS, over_s=102.0)
    assert judged(Arrival(102.1, "offer-1", ""), disruption=over).holds
    assert not judged(Arrival(101.9, "offer-1", ""), disruption=over).holds


def test_an_offer_that_arrives_twice_is_doubled() -> None:
    verdict = judged(Arrival(99.0, "offer-1", ""), Arrival(99.1, "offer-1", ""))
    assert (verdict.doubled, verdict.holds) == (["offer-1"], False)


def test_a_disruption_that_nobody_is_told_of() -> None:
    for text in ("another", "train-12 stands", ""):
        verdict = judge([STANDS], {}, [Arrival(100.4, "upd-1", text)], {}, lease_s=LEASE_S)
        assert (verdict.untold, verdict.holds) == (["train-1"], False)


def test_told_twice_is_said_and_no_breach() -> None:
    verdict = judged(replace(TOLD, at_s=101.0))
    assert (verdict.told_twice, verdict.holds) == (["train-1"], True)
    assert verdict.first_update_s == [pytest.approx(0.4)]


@pytest.mark.parametrize("said", ["held", ""])
def test_an_offer_that_nobody_knows_of_is_unaccounted_for(said: str) -> None:
    verdict = judged(offer_2=said)
    assert (verdict.unaccounted, verdict.holds) == (["offer-2"], False)
