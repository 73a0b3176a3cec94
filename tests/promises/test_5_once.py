"""Once: a post appears once per channel account, across crashes and lost answers.

A publisher is killed with kill -9 while the channel has created posts whose answers it never read;
other answers are lost on the way. Mechanism off: `fresh_keys` gives every try a key of its own.
"""

from __future__ import annotations

import signal
from collections import Counter

import pytest

from tests.journey import Journey, wait_for

COUNT = 12
SLOW_S = 0.3


def killed_in_mid_send(journey: Journey) -> list[str]:
    offers = journey.hand_over(COUNT)
    wait_for("offers to flow", lambda: len(journey.seen(among=None)) >= 1)
    # The sandbox creates at once and then loses the answer: the next one hangs with its post made.
    journey.faults(lose_next=1)
    before = len(journey.seen())
    wait_for("a post whose answer is lost", lambda: len(journey.seen()) > before)
    journey.system.children["publisher"].stop(signal.SIGKILL)
    journey.system.replace("publisher", journey.system.launch.get("publisher"))
    wait_for("all texts", lambda: {s["text"] for s in journey.seen()} >= set(offers))
    wait_for(
        "the ledger", lambda: all((journey.ledger(p) or {}).get("state") == "sent" for p in offers)
    )
    return offers


def check(journey: Journey, offers: list[str]) -> None:
    times = Counter(s["text"] for s in journey.seen() if s["text"] in offers)
    doubled = {text: count for text, count in times.items() if count > 1}
    assert not doubled, f"published twice: {doubled}"
    assert set(times) == set(offers)


def slow(journey: Journey) -> None:
    journey.faults(slow_s=SLOW_S)


def test_a_publisher_killed_in_mid_send_publishes_each_offer_once(journey: Journey) -> None:
    slow(journey)
    check(journey, killed_in_mid_send(journey))
    assert journey.seen("again"), "no second try was made: nothing was shown"


def test_with_a_key_for_each_try_it_does_not(journey: Journey) -> None:
    journey.break_service("publisher", "fresh_keys")
    slow(journey)
    offers = killed_in_mid_send(journey)
    with pytest.raises(AssertionError, match="published twice"):
        check(journey, offers)


def test_the_same_event_twice_is_one_incident(journey: Journey) -> None:
    data = {
        "disruption_id": "d-1",
        "network": journey.network,
        "status": "opened",
        "title": f"Trains are standing ({journey.network})",
    }
    for _ in range(2):
        journey.emit(data, **{"ce-id": f"same-{journey.network}"}).raise_for_status()
    wait_for("the hold", journey.holds)
    wait_for("the updates", lambda: len(journey.updates()) >= 2)
    assert len(journey.holds()) == 1
    assert len({s["key"] for s in journey.updates()}) == len(journey.updates()) == 2


def test_a_repeated_request_queues_an_offer_once(journey: Journey) -> None:
    campaign = journey.campaign()
    body = {"account": "social-en", "text": "once", "due_at": "2099-01-01T00:00:00Z"}
    answers = [
        journey.marketing.post(
            f"/v1/campaigns/{campaign}/posts", json=body, headers={"idempotency-key": campaign}
        )
        for _ in range(2)
    ]
    assert answers[0].json() == answers[1].json()
    assert answers[1].headers["idempotency-replayed"] == "true"
    listed = journey.marketing.get("/v1/posts", params={"campaign_id": campaign}).json()["posts"]
    assert len(listed) == 1
