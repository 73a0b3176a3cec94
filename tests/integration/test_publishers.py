"""Four publishers, and eight with INTERLOCK_LONG=1: none says a thing twice, while some of them go and come."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from ops.embedded.process import free_port
from ops.embedded.system import System
from ops.policies import DEFAULT, read_policy
from tests.builders import APART, at_once
from tests.journey import Journey, wait_for

ACCOUNTS = [f"social-{number}" for number in range(12)]
PER_ACCOUNT = 12
COUNTS = [4, 8] if os.environ.get("INTERLOCK_LONG") else [4]  # Eight take two minutes on two cores.


@pytest.fixture
def many(
    tmp_path: Path, new_system: Callable[..., System], request: pytest.FixtureRequest
) -> Iterator[System]:
    sandbox = free_port()
    known = {
        name: {"channel": "mastodon", "url": f"http://127.0.0.1:{sandbox}", "token": name}
        for name in ACCOUNTS
    }
    (tmp_path / "accounts.yaml").write_text(yaml.safe_dump({"accounts": known}))
    copies, ports = {"publisher": request.param}, {"sandbox": sandbox}
    with new_system(copies=copies, ports=ports) as running:
        with running.client("detector", "admin") as admin:
            policy = read_policy(DEFAULT).model_dump(mode="json")
            admin.put("/v1/policy", json=policy).raise_for_status()
        yield running


@pytest.fixture
def apart(new_system: Callable[..., System]) -> Iterator[System]:
    """Return a system whose offers and updates have a publisher each."""
    with_two = new_system(copies={"publisher": 2})
    with_two.env_of |= APART
    with with_two as running:
        with running.client("detector", "admin") as admin:
            admin.put("/v1/policy", json=at_once()).raise_for_status()
        yield running


def test_offers_and_updates_may_have_a_publisher_each(apart: System) -> None:
    with Journey(apart) as journey:
        campaign = journey.campaign(
            labels={"network": journey.network, "line": "coast"}, recovery={"plan": "resume"}
        )
        apart.children["publisher-2"].tell(signal.SIGSTOP)
        try:
            (first,) = journey.offers(campaign, {})
            wait_for("the first offer", lambda: journey.seen(among=[first]))
            journey.event()
            wait_for("the hold in force", lambda: journey.gate()["open_holds"])
            assert journey.updates() == []
        finally:
            apart.children["publisher-2"].tell(signal.SIGCONT)
        wait_for("the updates", journey.updates)
        (second,) = journey.offers(campaign, {})
        apart.children["publisher"].tell(signal.SIGSTOP)
        try:
            told = len(journey.updates())
            journey.event(status="resolved")
            wait_for("the last updates", lambda: len(journey.updates()) > told)
            assert journey.seen(among=[second]) == []
        finally:
            apart.children["publisher"].tell(signal.SIGCONT)
        wait_for("the second offer", lambda: journey.seen(among=[second]))


def publishers(system: System) -> list[str]:
    return [name for name in system.children if name.startswith("publisher")]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("many", COUNTS, indirect=True)
def test_no_offer_is_published_twice_while_publishers_go_and_come(many: System) -> None:
    with Journey(many) as journey:
        campaign = journey.campaign(labels={"network": journey.network, "line": "coast"})
        now = datetime.now(UTC)
        offers = journey.offers(
            campaign,
            *(
                {
                    "account": ACCOUNTS[number % len(ACCOUNTS)],
                    "due_at": (now + timedelta(seconds=number / 20)).isoformat(),
                }
                for number in range(PER_ACCOUNT * len(ACCOUNTS))
            ),
        )
        wait_for("offers to flow", lambda: len(journey.seen(among=offers)) >= len(ACCOUNTS))
        names = publishers(many)
        for name in (names[1], names[-1]):
            many.replace(name)  # Killed, and started again: two rebalances.
        wait_for("all offers", lambda: journey.standing(offers) == set(offers), patience_s=90)
        assert max(Counter(s["key"] for s in journey.seen(among=offers)).values()) == 1
