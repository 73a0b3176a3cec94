"""The audit of a real ledger and a real log of holds; what was broken on purpose is found."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from ops.embedded.system import System
from services.cli import app
from services.commands.audit import check, read_holds
from services.kit import database
from services.kit.cluster import Cluster
from services.kit.telemetry import Clock
from services.publisher.audit import Audit
from services.publisher.ledger import Attempt
from services.publisher.proof import Rule
from services.publisher.store import SCHEMA, Sent, Store
from tests.builders import a_post
from tests.journey import Journey, wait_for

LEASE = timedelta(milliseconds=250)


@pytest.fixture
async def store(system: System) -> AsyncIterator[Store]:
    engine = database.new_engine(system.database, schema=SCHEMA)
    yield Store(engine, publisher="audit")
    await engine.dispose()


async def a_sent(store: Store, *, at: datetime, age: timedelta | None, line: str = "x") -> str:
    """Write an offer that went out at a time, behind a fence of an age, or of none."""
    post = a_post(post_id=uuid.uuid4().hex, labels={"line": line})
    assert await store.record_intent(post, attempt=1, fence=7, at=at)
    fence_at = None if age is None else at - age
    attempt = Attempt(
        at=at, publisher="audit", answer="published", fence=7, fence_begun_at=fence_at
    )
    sent = Sent(post_id=post.post_id, at=at, attempt=attempt, publication="1", url=None)
    assert await store.record_sent(sent)
    return post.post_id


async def test_each_send_that_its_row_does_not_prove_is_found_and_no_other(
    store: Store, system: System
) -> None:
    begin = datetime(1990, 1, 1, tzinfo=UTC) + timedelta(seconds=random.randrange(10**8))
    for number in range(20):
        at = begin + timedelta(seconds=number)
        await a_sent(store, at=at, age=timedelta(milliseconds=10 * number))
    late = await a_sent(store, at=begin, age=LEASE)
    blind = await a_sent(store, at=begin, age=None)
    until = begin + timedelta(minutes=1)
    counts, wrong = await check(system.database, begin, until, [], Rule(lease=LEASE))
    assert counts == {"proven": 20, "fence too old": 1, "no fence": 1}
    assert {one[0]: one[2] for one in wrong} == {late: "fence too old", blind: "no fence"}
    registry = CollectorRegistry()

    class Then(Clock):
        def now(self) -> datetime:
            return until + timedelta(seconds=30)

    running = Audit(store.engine, clock=Then(), lease_s=0.25, registry=registry)
    running.since = begin
    assert await running.check() == 2
    assert registry.get_sample_value("interlock_unproven_sends_total") == 2
    assert await running.check() == 0, "what was looked at is not counted again"


async def test_a_send_behind_a_real_hold_is_found(
    store: Store, system: System, journey: Journey
) -> None:
    line = uuid.uuid4().hex
    begin = Clock().now()
    before = await a_sent(store, at=begin, age=timedelta(milliseconds=5), line=line)
    journey.hold(f'{{line="{line}"}}')
    spans = read_holds(Cluster(system.kafka))
    at = Clock().now() + timedelta(milliseconds=100)
    behind = await a_sent(store, at=at, age=timedelta(milliseconds=5), line=line)
    other = await a_sent(store, at=at, age=timedelta(milliseconds=5), line=uuid.uuid4().hex)
    # The system is shared: what another test holds meanwhile may cover these as well.
    mine = [span for span in spans if str(span.matchers).find(line) >= 0]
    assert len(mine) == 1
    until = Clock().now() + timedelta(seconds=5)
    _, wrong = await check(system.database, begin, until, mine, Rule(lease=LEASE))
    found = {post_id: (verdict, why) for post_id, _, verdict, why in wrong}
    assert found.get(behind) == ("covered by a hold", mine[0].hold_id)
    assert before not in found
    assert other not in found


def test_the_command_says_what_went_out_and_proves_it(system: System, journey: Journey) -> None:
    (offer,) = journey.hand_over(1)
    wait_for("the offer", lambda: (journey.ledger(offer) or {}).get("state") == "sent")
    command = ["audit", "verify", "--since", "1m", "--kafka", system.kafka]
    answer = CliRunner().invoke(app, [*command, "--database", system.database])
    counted = re.search(r"proven: a fence younger than the lease\D+(\d+)", answer.output)
    assert counted is not None
    assert int(counted[1]) >= 1
    assert "sends" in answer.output
    wrong = CliRunner().invoke(app, [*command, "--database", "mysql://x"])
    assert wrong.exit_code != 0
    asked = CliRunner().invoke(app, ["audit", "verify", "--since", "yesterday", "--database", "x"])
    assert "such as 30m, 24h, 7d" in asked.output
