"""Take-back: an offer that went out shortly before is deleted from a channel that can delete.

Mechanism off: `no_take_back` leaves what went out where it is.
"""

from __future__ import annotations

import pytest

from tests.journey import Journey, wait_for

COUNT = 4


def offers_go_out_and_then_the_event(journey: Journey) -> tuple[list[str], list[str]]:
    covered = journey.hand_over(COUNT)
    other = journey.hand_over(COUNT, labels={"network": journey.network, "line": "valley"})
    wait_for("all offers", lambda: len(journey.seen(among=covered + other)) == 2 * COUNT)
    wait_for("the ledger", lambda: all(state(journey, p) == "sent" for p in covered))
    journey.event()
    wait_for("the update", lambda: len(journey.updates()) >= 2)
    return covered, other


def state(journey: Journey, post_id: str) -> str:
    return str((journey.ledger(post_id) or {}).get("state"))


def check(journey: Journey, covered: list[str], *, patience_s: float = 10) -> None:
    wait_for("the take-back", lambda: not journey.standing(covered), patience_s=patience_s)


def test_what_went_out_just_before_is_deleted_and_the_rest_stands(journey: Journey) -> None:
    covered, other = offers_go_out_and_then_the_event(journey)
    check(journey, covered)
    assert journey.standing(other) == set(other)
    wait_for("the ledger", lambda: all(state(journey, p) == "retracted" for p in covered))


def test_without_it_they_stand(journey: Journey) -> None:
    journey.break_service("publisher", "no_take_back")
    covered, _ = offers_go_out_and_then_the_event(journey)
    with pytest.raises(AssertionError, match="the take-back"):
        check(journey, covered, patience_s=2)


def test_it_is_gone_from_the_public_page_too(journey: Journey) -> None:
    covered = journey.hand_over(1, account="web")
    wait_for("the ledger", lambda: state(journey, covered[0]) == "sent")
    journey.event()
    wait_for("the ledger", lambda: state(journey, covered[0]) == "retracted")
    wait_for("the page", lambda: covered[0] not in journey.publisher.get("/").text)
