"""What becomes of an offer whose channel needs longer than a lease before its first byte, by delivery and ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from ops.embedded.system import System
from schemas.holds import OpenHolds
from schemas.posts import Post
from services.kit import database
from services.kit.telemetry import Clock
from services.publisher import backoff
from services.publisher.channels import Publication
from services.publisher.clearance import Clearance
from services.publisher.gate import Passed, Verdict, judge
from services.publisher.store import SCHEMA, Store
from tests import desk as desks
from tests.builders import AT, a_hold
from tests.fakes import FakeChannel

LEASE_S = 0.2  # Far above what a noisy machine takes from a judgement to its look.
SLOW_S = 2 * LEASE_S


@dataclass
class Ageing(desks.Open):
    """A gate whose fences are as old as they are; a new one passes for whoever waits."""

    passed: Passed | None = None
    fences: list[Passed] = field(default_factory=list)

    def judge(self, post: Post) -> Verdict:
        return judge(
            post, open_holds=self.holds, passed=self.passed, now_s=Clock().monotonic_s(), now=AT,
            lease_s=LEASE_S,
        )  # fmt: skip

    async def changed(self) -> None:
        self.passed = Passed(
            number=len(self.fences) + 1, begun_s=Clock().monotonic_s(), begun_at=Clock().now()
        )
        self.fences.append(self.passed)


class Far(FakeChannel):
    """A network to which a connection takes two leases; `holds` get one more meanwhile."""

    connections = 0

    def __init__(self, holds: OpenHolds, *, opens: bool = False) -> None:
        super().__init__(Clock())
        self.holds, self.opens = holds, opens

    async def publish(self, clearance: Clearance, *, key: str) -> Publication:
        self.connections += 1
        await asyncio.sleep(SLOW_S)
        if self.opens:
            self.holds.apply(a_hold())
        await clearance.confirm()
        return await super().publish(clearance, key=key)


@pytest.fixture
async def store(system: System) -> AsyncIterator[Store]:
    engine = database.new_engine(system.database, schema=SCHEMA)
    yield Store(engine, publisher="clearance")
    await engine.dispose()


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_RETRY_S", 0.001)


def a_desk(store: Store, *, opens: bool = False) -> tuple[desks.Desk, Far, Ageing]:
    gate = Ageing()
    channel = Far(gate.holds, opens=opens)
    return desks.Desk(store, "far", channel, gate), channel, gate


async def test_an_offer_to_a_network_that_is_far_away_goes_out_behind_a_fence_of_its_own(
    store: Store,
) -> None:
    """It was looked at before the connection, and sent however long that took."""
    desk, channel, gate = a_desk(store)
    post = desk.new_post("offer")
    assert (await desk.send(post)).result == "published"
    assert channel.connections == 1
    entry = await store.find(post.post_id)
    assert entry is not None
    assert entry.begun_at is not None
    assert entry.fence_begun_at is not None
    assert (entry.begun_at - entry.fence_begun_at).total_seconds() < LEASE_S
    assert entry.fence == desk.said[-1].fence == len(gate.fences)


async def test_a_hold_that_opens_while_a_channel_connects_stops_the_offer(store: Store) -> None:
    desk, channel, _ = a_desk(store, opens=True)
    post = desk.new_post("offer")
    assert (await desk.send(post)).result == "held"
    assert (channel.connections, channel.tries) == (1, 0)
    entry = await store.find(post.post_id)
    assert entry is not None
    assert entry.state == "withdrawn"


async def test_without_a_fence_a_connection_does_not_wait_for_ever(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, channel, gate = a_desk(store)
    monkeypatch.setattr("services.publisher.delivery.RENEW_S", LEASE_S)
    fences = gate.changed

    async def stands_still() -> None:
        if channel.connections == 1 and not renewals:
            renewals.append(True)
            await asyncio.Event().wait()
        await fences()

    renewals: list[bool] = []
    monkeypatch.setattr(gate, "changed", stands_still)
    assert (await desk.send(desk.new_post("offer"))).result == "published"
    assert channel.connections == 2, "another one, behind a fence"
