"""When in doubt, quiet: without a detector, with unreadable events, without labels, offers wait.

Mechanisms off: `no_fence` sends what no fence vouches for; `unreadable_is_nothing` passes over what
cannot be read.
"""

from __future__ import annotations

import signal
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.topics import DISRUPTIONS, dead_letters_of
from tests.builders import a_disruption
from tests.journey import LEASE_S, Journey, wait_for

A_WHILE_S = 2.0


def the_detector_dies(journey: Journey) -> list[str]:
    journey.system.children["detector"].stop(signal.SIGKILL)
    journey._broken.add("detector")
    wait_for("the lease to end", lambda: journey.gate()["fence_age_s"] > 2 * LEASE_S)
    return journey.hand_over(3, labels={"network": journey.network, "line": "valley"})


def nothing_goes_out(journey: Journey, offers: list[str]) -> None:
    until_s = time.monotonic() + A_WHILE_S
    while time.monotonic() < until_s:
        assert journey.seen(among=offers) == [], "an offer went out in doubt"
        time.sleep(0.05)


def test_without_a_detector_offers_wait_and_then_go_on(journey: Journey) -> None:
    offers = the_detector_dies(journey)
    nothing_goes_out(journey, offers)
    assert journey.gate()["waiting_offers"] > 0
    journey.system.replace("detector")
    wait_for("the offers", lambda: journey.standing(offers) == set(offers))


def test_without_the_fence_they_do_not_wait(journey: Journey) -> None:
    journey.break_service("publisher", "no_fence")
    offers = the_detector_dies_quietly(journey)
    with pytest.raises(AssertionError, match="went out in doubt"):
        nothing_goes_out(journey, offers)


def the_detector_dies_quietly(journey: Journey) -> list[str]:
    """As above, for a publisher whose fence is not looked at."""
    journey.system.children["detector"].stop(signal.SIGKILL)
    journey._broken.add("detector")
    return journey.hand_over(3, labels={"network": journey.network, "line": "valley"})


def an_unreadable_event(journey: Journey) -> str:
    journey.produce(DISRUPTIONS.name, a_disruption(network=journey.network), value=b"\x00not JSON")
    return journey.network


def is_held(journey: Journey, *, patience_s: float = 10) -> dict[str, Any]:
    def found() -> list[dict[str, Any]]:
        return [h for h in journey.holds() if h["reason"].startswith("unreadable event")]

    return wait_for("the precautionary hold", found, patience_s=patience_s)[0]


def test_an_unreadable_event_holds_everything_and_its_bytes_are_kept(journey: Journey) -> None:
    an_unreadable_event(journey)
    hold = is_held(journey)
    assert hold["matchers"] == "{}"
    journey.in_force(hold["hold_id"])
    (offer,) = journey.hand_over(1, labels={"network": "quite-another", "line": "valley"})
    dead = [r for r in journey.read_all(dead_letters_of(DISRUPTIONS)) if r.value == b"\x00not JSON"]
    assert dead
    assert b"Invalid JSON" in dict(dead[-1].headers)["interlock_error"]
    assert journey.seen(among=[offer]) == []


def test_passed_over_it_holds_nothing(journey: Journey) -> None:
    journey.break_service("detector", "unreadable_is_nothing")
    an_unreadable_event(journey)
    with pytest.raises(AssertionError, match="the precautionary hold"):
        is_held(journey, patience_s=3)


def test_the_http_door_refuses_what_it_cannot_read_and_holds_nothing(journey: Journey) -> None:
    answer = journey.emit({"disruption_id": "d", "network": journey.network})
    assert answer.status_code == 422
    assert "title: Field required" in answer.json()["detail"]
    assert journey.holds() == []


def test_an_offer_that_does_not_say_what_it_is_about_is_held(journey: Journey) -> None:
    journey.event()
    wait_for("the hold", journey.holds)
    journey.in_force(journey.holds()[0]["hold_id"])
    (offer,) = journey.hand_over(1, labels={"network": journey.network})
    time.sleep(A_WHILE_S)
    assert journey.seen(among=[offer]) == []


def test_an_offer_that_waited_too_long_expires(journey: Journey) -> None:
    past = datetime.now(UTC) - timedelta(minutes=1)
    (offer,) = journey.hand_over(1, due_at=past - timedelta(hours=1), latest_at=past)
    outcomes = wait_for(
        "the outcome",
        lambda: [r for r in journey.read_all("posts.outcomes") if r.key == offer.encode()],
    )
    assert b'"expired"' in outcomes[0].value
    assert journey.seen(among=[offer]) == []
