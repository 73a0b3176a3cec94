"""More of each service: they share the work, and the death of one stops nothing for long."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from ops.embedded.system import System
from ops.policies import DEFAULT, read_policy
from tests.journey import LEASE_S, Journey, wait_for

OFFERS = 60


@pytest.fixture
def pair(new_system: Callable[..., System]) -> Iterator[System]:
    """Return a system with two of each service."""
    with new_system(copies={"detector": 2, "publisher": 2, "scheduler": 2}) as running:
        with running.client("detector", "admin") as admin:
            policy = read_policy(DEFAULT).model_dump(mode="json")
            admin.put("/v1/policy", json=policy).raise_for_status()
        yield running


def test_two_of_each_keep_the_promise_and_survive_the_loss_of_one(pair: System) -> None:
    with Journey(pair) as journey:
        campaign = journey.campaign(labels={"network": journey.network})
        now = datetime.now(UTC)
        offers = {
            line: journey.offers(
                campaign,
                *(
                    {
                        "account": ("social-en", "social-fr")[number % 2],
                        "due_at": (now + timedelta(seconds=number / 4)).isoformat(),
                        "labels": {"line": line},
                    }
                    for number in range(OFFERS)
                ),
            )
            for line in ("coast", "valley")
        }
        wait_for("offers to flow", lambda: len(journey.seen(among=offers["coast"])) >= 4)
        acknowledged_s = journey.event()
        wait_for("the updates", lambda: len(journey.updates()) == 2)
        for name in ("detector-2", "publisher-2", "scheduler-2"):
            pair.children[name].stop(signal.SIGKILL)
        wait_for(
            "the other line",
            lambda: journey.standing(offers["valley"]) == set(offers["valley"]),
            patience_s=60,
        )
        late = [
            s for s in journey.seen(among=offers["coast"]) if s["at_s"] > acknowledged_s + LEASE_S
        ]
        assert late == []
        wait_for("the take-back", lambda: not journey.standing(offers["coast"]))
        assert max(Counter(s["key"] for s in journey.seen()).values()) == 1
        wait_for("the account", lambda: settled(journey, campaign) == 2 * OFFERS)


def settled(journey: Journey, campaign: str) -> int:
    counts = journey.marketing.get(f"/v1/campaigns/{campaign}").json()["counts"]
    return sum(counts.get(state, 0) for state in ("published", "retracted", "held"))
