"""An offer that was taken back does not stand once more, whoever had taken its send over meanwhile."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ops.embedded.system import System
from schemas.posts import Post
from services.kit import database
from services.kit.telemetry import Clock
from services.publisher import doubts
from services.publisher.channels import Publication
from services.publisher.clearance import Clearance
from services.publisher.ledger import Attempt, State
from services.publisher.store import SCHEMA, Sent, Store
from tests.builders import a_hold, a_release
from tests.desk import Desk
from tests.fakes import FakeChannel


@pytest.fixture
async def other(system: System, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """Whoever takes over what `one` was sending, on a network that knows its keys for ever and can be asked."""
    monkeypatch.setattr(doubts, "LANDS_S", 0.0)
    engine = database.new_engine(system.database, schema=SCHEMA)
    channel = FakeChannel(Clock(), reads_back="exact")
    yield Desk(Store(engine, publisher="other"), f"again-{uuid.uuid4().hex[:6]}", channel)
    await engine.dispose()


async def begun_by_one(other: Desk) -> tuple[Store, Post]:
    one, post = Store(other.store.engine, publisher="one"), other.new_post("offer")
    assert await one.record_intent(post, attempt=1, fence=1, at=Clock().now())
    return one, post


async def ends(one: Store, post: Post, *states: State) -> None:
    """Let who began it hear the network's answer, and take it back."""
    tried = Attempt(at=Clock().now(), publisher="one", answer="published")
    assert await one.record_sent(
        Sent(post_id=post.post_id, at=Clock().now(), attempt=tried, publication="1", url=None)
    )
    for state in states:
        assert await one.record(post.post_id, state, hold_id="hold-1")


async def test_what_was_taken_back_while_it_was_looked_for_is_not_sent_again(
    other: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not there, and the hold had ended: it went out behind its take-back, and stood for good."""
    one, post = await begun_by_one(other)
    hold = a_hold("{}")
    other.gate.holds.apply(hold)

    async def look_up(*_: Any, **__: Any) -> None:
        await ends(one, post, "retracting", "retracted")
        other.gate.holds.apply(a_release(hold))

    monkeypatch.setattr(other.channel, "look_up", look_up)
    assert (await other.send(post)).result == "retracted"
    assert other.channel.tries == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "states",
    [("retracting",), ("retracting", "retracted"), ("retracting", "retraction_failed")],
)
async def test_what_went_out_again_behind_its_take_back_is_taken_back_too(
    other: Desk, states: tuple[State, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each publisher sent it with the same key; the network knows no key of what it has deleted."""
    one, post = await begun_by_one(other)
    publish = other.channel.publish

    async def late(clearance: Clearance, *, key: str) -> Publication:
        await ends(one, post, *states)
        return await publish(clearance, key=key)

    monkeypatch.setattr(other.channel, "publish", late)
    async with asyncio.timeout(30):
        assert (await other.send(post)).result == "retracted"
    assert other.channel.standing == {}  # type: ignore[attr-defined]
    entry = await one.find(post.post_id)
    assert entry is not None
    assert entry.state == "retracted"
