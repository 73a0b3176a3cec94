"""An offer whose answer was lost while its hold came: where the network can be asked, it is found and taken back."""

from __future__ import annotations

from typing import Any

import pytest

from ops.embedded.system import System
from services.kit import database
from services.kit.telemetry import Clock
from services.publisher import doubts
from services.publisher.channels import NotSent, Publication, Unknown
from services.publisher.channels.feed import Feed
from services.publisher.clearance import Clearance
from services.publisher.page_store import PageStore
from services.publisher.store import SCHEMA, Store
from tests.builders import a_hold
from tests.contracts.test_faults import quick, store
from tests.contracts.test_threads import Looks, a_stage
from tests.desk import Desk
from tests.fakes import FakeChannel
from tests.faulty import Fault

__all__ = ["quick", "store"]  # Fixtures.
ASKED = ("mastodon", "mastodon (GoToSocial)", "bluesky", "discord (bot)", "slack")
NOT_ASKED = ("discord (webhook)", "webhook", "telegram", "x")


def holds(desk: Desk, clock: Looks) -> None:
    """Let a hold come right behind the last look: nothing could have kept that offer."""
    hold = a_hold("{}", take_back_s=60, opened_at=Clock().now())
    clock.then[1] = lambda: desk.gate.holds.apply(hold)


@pytest.mark.parametrize("fault", ["500 behind", "reset behind"])
@pytest.mark.parametrize("name", ASKED)
async def test_what_stands_there_is_found_and_taken_back(
    name: str, fault: Fault, store: Store, system: System
) -> None:
    async with a_stage(name, store, system) as stage:
        holds(stage.desk, stage.clock)
        stage.case.breaks(fault)
        post = stage.desk.new_post("offer")
        await stage.desk.send(post)
        assert [said.result for said in stage.desk.said[-2:]] == ["published", "retracted"]
        assert stage.case.standing(post.text) == 0
        entry = await store.find(post.post_id)
        assert entry is not None
        assert entry.state == "retracted"


@pytest.mark.parametrize("name", ["bluesky", "mastodon"])
async def test_what_is_not_there_is_held_where_one_can_know_and_else_uncertain(
    name: str, store: Store, system: System
) -> None:
    async with a_stage(name, store, system) as stage:
        holds(stage.desk, stage.clock)
        stage.case.breaks("reset before")
        outcome = await stage.desk.send(stage.desk.new_post("offer"))
        assert outcome.result == ("held" if name == "bluesky" else "uncertain")


@pytest.mark.parametrize("name", NOT_ASKED)
async def test_where_nobody_can_be_asked_it_is_uncertain(
    name: str, store: Store, system: System
) -> None:
    async with a_stage(name, store, system) as stage:
        holds(stage.desk, stage.clock)
        stage.case.breaks("reset behind")
        outcome = await stage.desk.send(stage.desk.new_post("offer"))
        assert outcome.result == "uncertain"


async def test_our_own_page_is_asked_too(
    store: Store, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = database.new_engine(system.database, schema=SCHEMA)
    rows = PageStore(engine)
    channel, clock = Feed(rows), Looks()
    publish = channel.publish

    async def lost(clearance: Clearance, **values: Any) -> Publication:
        await publish(clearance, **values)
        raise Unknown("the answer to a commit was lost")

    monkeypatch.setattr(channel, "publish", lost)
    desk = Desk(store, "feed-in-doubt", channel, clock=clock)
    holds(desk, clock)
    post = desk.new_post("offer")
    assert (await desk.send(post)).result == "retracted"
    assert not await rows.is_in_feed(post.post_id)
    await engine.dispose()


async def test_what_a_network_is_still_at_work_on_is_found_when_it_stands_there(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was said to be held, as not there, and then stood there through the whole incident."""
    monkeypatch.setattr(doubts, "LANDS_S", 30)
    channel, clock = FakeChannel(Clock(), reads_back="exact"), Looks()
    desk = Desk(store, "still-at-work", channel, clock=clock)
    holds(desk, clock)
    channel.lost_answers = [Unknown("the connection broke")]
    post, looks = desk.new_post("offer"), channel.look_up

    async def not_yet(*given: Any, **values: Any) -> Publication | None:
        found = await looks(*given, **values)
        return found if channel.looks > 2 else None

    channel.look_up = not_yet  # type: ignore[method-assign]
    assert (await desk.send(post)).result == "retracted"
    assert channel.standing == {}


async def test_a_network_that_cannot_be_asked_now_is_asked_again(store: Store) -> None:
    channel, clock = FakeChannel(Clock(), reads_back="exact"), Looks()
    desk = Desk(store, "asked-again", channel, clock=clock)
    holds(desk, clock)
    channel.lost_answers = [Unknown("time-out")]
    post = desk.new_post("offer")
    looks = channel.look_up

    async def not_yet(*given: Any, **values: Any) -> Publication | None:
        if channel.looks < 2:
            channel.looks += 1
            raise NotSent("no connection")
        return await looks(*given, **values)

    channel.look_up = not_yet  # type: ignore[method-assign]
    assert (await desk.send(post)).result == "retracted"
    assert channel.standing == {}
