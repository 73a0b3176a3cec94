"""The judge from outside, on made histories, good and bad."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from ops.demo.judge import Arrival, Disruption, Labels, Verdict, judge
from ops.demo.observer import arrivals_of, ends_of

COAST, VALLEY = [{"network": "northlink", "line": line} for line in ("coast", "valley")]
LEASE_S = 0.25
STANDS = Disruption("train-1", COAST, acknowledged_s=100.0)
TOLD = Arrival(100.4, "upd-1", "train-1 stands")
OFFERS = {"offer-1": COAST, "offer-2": VALLEY}


def judged(*arrivals: Arrival, disruption: Disruption = STANDS, **outcomes: str) -> Verdict:
    said: dict[str, Any] = {"offer-1": "expired", "offer-2": "expired"}
    said |= {one.key: "published" for one in arrivals}
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


@pytest.mark.parametrize(
    ("at_s", "slow_s", "is_unwanted"), [(98, 0, False), (99.5, 0, True), (99.5, 1, False)]
)
def test_what_was_cancelled_does_not_go_out_behind_that(
    at_s: float, slow_s: float, is_unwanted: bool
) -> None:
    arrival = Arrival(at_s, "offer-2", "", slow_s=slow_s)
    said = {"offer-1": "expired", "offer-2": "published"}
    verdict = judge(
        [STANDS], OFFERS, [TOLD, arrival], said, lease_s=LEASE_S, cancelled={"offer-2": 99.0}
    )
    assert (verdict.unwanted == ["offer-2"], verdict.holds) == (is_unwanted, not is_unwanted)


def test_an_offer_that_arrives_twice_is_doubled() -> None:
    verdict = judged(Arrival(99.0, "offer-1", ""), Arrival(99.1, "offer-1", ""))
    assert (verdict.doubled, verdict.holds) == (["offer-1"], False)


def test_the_parts_of_a_thread_are_not_one_another_and_each_may_be_late() -> None:
    first, second = (Arrival(99.0 + n, "offer-1", "", part=n) for n in (1, 2))
    assert judged(Arrival(99.0, "offer-1", ""), replace(first, at_s=99.2, part=2)).doubled == []
    assert judged(first, replace(first, at_s=99.3)).doubled == ["offer-1"]
    assert [late.offer for late in judged(first, second).late] == ["offer-1"]


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


@pytest.mark.parametrize(
    ("offer", "covered"), [({"line": "coast"}, True), ({}, True), ({"line": "valley"}, False)]
)
def test_a_label_that_an_offer_lacks_is_a_doubt(offer: Labels, covered: bool) -> None:
    arrivals = [TOLD, Arrival(103.0, "p")]
    verdict = judge([STANDS], {"p": offer}, arrivals, {"p": "published"}, lease_s=LEASE_S)
    assert verdict.holds is not covered


@pytest.mark.parametrize(
    ("said", "stands", "holds"),
    [
        ("published", True, True),
        ("published", False, False),
        ("retracted", False, True),
        ("retracted", True, False),
        ("retraction_failed", True, True),
        ("expired", True, False),
        ("review", False, True),
        ("failed", True, False),
        ("uncertain", True, True),
        ("uncertain", False, True),
    ],
)
def test_what_is_said_of_an_offer_is_so_on_the_network(
    said: str, stands: bool, holds: bool
) -> None:
    verdict = judged(Arrival(99.0, "offer-2", gone_s=math.inf if stands else 99.5), offer_2=said)
    assert verdict.holds is holds


@pytest.mark.parametrize(
    ("at_s", "gone_s", "stood"),
    [
        (99.0, 103.0, [3.0]),  # It stood there before.
        (100.2, 103.0, [2.8]),  # It was on its way.
        (99.0, 99.5, []),  # For another reason.
        (99.0, math.inf, []),
    ],
)
def test_how_long_what_is_covered_stood_is_told(
    at_s: float, gone_s: float, stood: list[float]
) -> None:
    verdict = judged(Arrival(at_s, "offer-1", gone_s=gone_s), TOLD)
    assert verdict.taken_back_s == pytest.approx(stood)


def test_the_record_of_the_network_is_read_with_what_was_deleted() -> None:
    record = [
        {"what": "published", "id": "1", "key": "p", "at_s": 1.0, "text": "a"},
        {"what": "published", "id": "2", "key": "q", "at_s": 2.0, "text": "b"},
        {"what": "deleted", "id": "1", "key": "p", "at_s": 3.0, "text": ""},
        {"what": "published", "id": "3", "key": "post-1f.2", "at_s": 4.0, "text": "c"},
    ]
    assert arrivals_of(record) == [
        Arrival(1.0, "p", "a", gone_s=3.0),
        Arrival(2.0, "q", "b"),
        Arrival(4.0, "post-1f", "c", part=2),
    ]


@pytest.mark.parametrize(
    ("state", "results", "end"),
    [
        ("published", ["published"], "published"),
        ("retracted", ["published", "retracted"], "retracted"),
        ("handed", ["published"], None),
        ("published", [], None),
        ("expired", ["held"], "expired"),
        ("queued", [], None),
    ],
)
def test_the_scheduler_and_the_topic_must_agree(
    state: str, results: list[str], end: str | None
) -> None:
    outcomes = [{"post_id": "p", "kind": "offer", "result": result} for result in results]
    assert ends_of({"p": state}, outcomes) == {"p": end}
