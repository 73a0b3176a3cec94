"""Silence: from a quarter of a second after a disruption is acknowledged, no covered offer starts.

The race: offers that the scheduler handed over before the event queue up in front of a slow channel.
The event arrives when some of them are out. Mechanism off: `no_gate` clears every offer.
"""

from __future__ import annotations

import pytest

from tests.journey import LEASE_S, Journey, wait_for

BACKLOG = 60
SLOW_S = 0.04
OUT_BEFORE = 5
PARTS = 15
SLOW_PART_S = 0.15  # Of one thread: it needs several fences, one behind the other.


def offers_race_the_event(journey: Journey) -> tuple[list[str], list[str], float]:
    """Return the covered offers, those of another line, and when the event was acknowledged."""
    journey.faults(slow_s=SLOW_S)
    covered = journey.hand_over(BACKLOG)
    other = journey.hand_over(
        BACKLOG, labels={"network": journey.network, "line": "valley"}, account="social-fr"
    )
    wait_for("offers to flow", lambda: len(journey.seen(among=covered)) >= OUT_BEFORE)
    acknowledged_s = journey.event()
    wait_for("the other line", lambda: len(journey.seen(among=other)) == BACKLOG)
    return covered, other, acknowledged_s


def check(journey: Journey, covered: list[str], acknowledged_s: float) -> None:
    late = [s for s in journey.seen(among=covered) if s["at_s"] - SLOW_S > acknowledged_s + LEASE_S]
    assert late == [], f"{len(late)} covered offers went out after the event"


def test_no_covered_offer_starts_after_the_lease(journey: Journey) -> None:
    covered, _, acknowledged_s = offers_race_the_event(journey)
    check(journey, covered, acknowledged_s)
    assert OUT_BEFORE <= len(journey.seen(among=covered)) < BACKLOG


def test_without_the_gate_they_do(journey: Journey) -> None:
    journey.break_service("publisher", "no_gate")
    covered, _, acknowledged_s = offers_race_the_event(journey)
    wait_for("the backlog", lambda: len(journey.seen(among=covered)) == BACKLOG)
    with pytest.raises(AssertionError, match="covered offers went out after the event"):
        check(journey, covered, acknowledged_s)


def test_a_thread_ends_between_two_parts_and_what_is_out_is_taken_back(journey: Journey) -> None:
    journey.faults(slow_s=SLOW_PART_S)
    rest = tuple(f"part {number}" for number in range(2, PARTS + 1))
    (thread,) = journey.hand_over(1, text="part 1", thread=rest)
    parts = [f"{thread}.{number}" for number in range(1, PARTS + 1)]
    wait_for("some parts", lambda: len(journey.seen(among=parts)) >= OUT_BEFORE)
    acknowledged_s = journey.event()
    wait_for("the take-back", lambda: (journey.ledger(thread) or {}).get("state") == "retracted")
    out = journey.seen(among=parts)
    assert [one["key"] for one in out] == parts[: len(out)]
    assert OUT_BEFORE <= len(out) < PARTS
    assert not [s for s in out if s["at_s"] - SLOW_PART_S > acknowledged_s + LEASE_S]
    assert journey.standing(parts) == set()


def test_an_offer_queued_under_a_hold_goes_out_only_when_somebody_approves_it(
    journey: Journey,
) -> None:
    hold_id = journey.hold(f'{{network="{journey.network}"}}')
    campaign = journey.campaign()
    (offer,) = journey.offers(campaign, {})
    journey.wait_state(offer, "held")
    journey.release(hold_id)
    journey.wait_state(offer, "review")
    journey.approver.post(f"/v1/posts/{offer}/approve").raise_for_status()
    journey.wait_state(offer, "published")
    assert journey.standing([offer]) == {offer}
