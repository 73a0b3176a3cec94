"""Voice: status updates wait for no fence, no hold, no scheduler and no backlog of offers.

Everything at once: all offers are held, a backlog waits on the same account, and the scheduler is
dead. Mechanism off: `updates_wait` judges an update as an offer.
"""

from __future__ import annotations

import signal

import pytest

from tests.journey import Journey, wait_for

BACKLOG = 300


def everything_is_against_it(journey: Journey) -> None:
    journey.system.children["scheduler"].stop(signal.SIGKILL)
    journey._broken.add("scheduler")
    journey.hold(f'{{network="{journey.network}"}}')
    journey.faults(slow_s=0.05)
    journey.hand_over(BACKLOG, labels={"network": "other", "line": "valley"})
    journey.event()


def check(journey: Journey, *, patience_s: float = 10) -> None:
    def languages() -> set[str]:
        return {s["account"] for s in journey.updates()}

    accounts = {"northlink-en", "northlink-fr"}
    wait_for("the updates", lambda: accounts <= languages(), patience_s=patience_s)


def test_an_update_goes_out_when_everything_is_against_it(journey: Journey) -> None:
    everything_is_against_it(journey)
    check(journey)
    offers_out = [s for s in journey.seen() if s["key"].startswith("post-")]
    assert len(offers_out) < BACKLOG, "the backlog was out before the update: nothing was shown"


def test_judged_as_an_offer_it_does_not(journey: Journey) -> None:
    journey.break_service("publisher", "updates_wait")
    everything_is_against_it(journey)
    with pytest.raises(AssertionError, match="the updates"):
        check(journey, patience_s=3)


def test_a_person_speaks_for_themselves(journey: Journey) -> None:
    body = {"network": journey.network, "title": "Snow", "labels": {"line": "coast"}}
    incident = journey.operations.post("/v1/incidents", json=body).raise_for_status().json()["id"]
    texts = {"en": f"Buses run. {journey.network}", "fr": f"Des bus roulent. {journey.network}"}
    journey.operations.post(
        f"/v1/incidents/{incident}/updates", json={"texts": texts}
    ).raise_for_status()
    wait_for("both languages", lambda: len(journey.updates()) >= 2)
