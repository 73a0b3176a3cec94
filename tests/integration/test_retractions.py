"""Deletions that do not get through: how long each is tried, and that none keeps another waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from ops.embedded.system import System
from schemas.posts import Outcome
from services.publisher import backoff, retractions, takeback
from services.publisher.channels import NotSent, Publication, Retracted, Unknown
from tests.went_out import WentOut, went_out_on

CHANGED = text("SELECT changed_at FROM ledger WHERE post_id = :post_id")


@pytest.fixture
async def desk(system: System) -> AsyncIterator[WentOut]:
    async with went_out_on(system) as made:
        yield made


async def changed_at(desk: WentOut, post_id: str) -> Any:
    async with desk.store.engine.connect() as connection:
        return await connection.scalar(CHANGED, {"post_id": post_id})


async def test_a_retraction_that_takes_long_is_nobody_elses(
    desk: WentOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was killed in the middle left an offer standing through an incident for a minute."""
    monkeypatch.setattr(retractions, "BEAT_S", 0.05)
    post_id = await desk.went_out(desk.account, minutes_ago=10)
    began, answers = asyncio.Event(), asyncio.Event()

    async def slow(_: Publication) -> Retracted:
        began.set()
        await answers.wait()
        return Retracted()

    monkeypatch.setattr(desk.can, "retract", slow)
    taking = asyncio.create_task(desk.take_back.take_back(desk.hold()))
    await began.wait()
    first = await changed_at(desk, post_id)
    async with asyncio.timeout(30):
        while await changed_at(desk, post_id) < first + timedelta(seconds=0.5):
            assert not await desk.store.adopt_retraction(post_id, left_s=10)
            await asyncio.sleep(0.05)
    answers.set()
    await taking
    assert [o.result for o in desk.outcomes] == ["retracted"]


async def test_what_was_left_on_an_account_that_does_not_answer_keeps_no_other_waiting(
    desk: WentOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = await desk.went_out(desk.account, minutes_ago=10)
    other = await desk.went_out(f"{desk.account}x", minutes_ago=20)
    for post_id in (silent, other):
        assert await desk.store.record(post_id, "retracting", hold_id="hold-1")
    monkeypatch.setattr(desk.can, "retract", lambda _: asyncio.Event().wait())
    told = asyncio.Queue[str]()

    async def tell(outcome: Outcome, _: str) -> None:
        await told.put(outcome.post_id)

    monkeypatch.setattr(desk.take_back.retractions, "emit", tell)
    resuming = asyncio.create_task(desk.take_back.resume(left_s=-60))
    async with asyncio.timeout(30):
        while await told.get() != other:
            pass
    resuming.cancel()
    await asyncio.gather(resuming, return_exceptions=True)


async def test_one_that_is_never_deleted_keeps_no_other_of_its_account_waiting(
    desk: WentOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two minutes each: the older offers stood as long, though their network took deletions."""
    old = await desk.went_out(desk.account, minutes_ago=30)
    new = await desk.went_out(desk.account, minutes_ago=10)
    deletes = desk.can.retract

    async def picky(publication: Publication) -> Retracted:
        if publication.id == new:
            raise NotSent("500")
        return await deletes(publication)

    monkeypatch.setattr(desk.can, "retract", picky)
    monkeypatch.setattr(retractions, "TELL_AFTER_S", 0)
    taking = asyncio.create_task(desk.take_back.take_back(desk.hold()))
    async with asyncio.timeout(30):
        while old in desk.can.standing:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert set(desk.can.standing) == {new}
    assert desk.take_back.retractions.late() == {new: f"{desk.account}: 500"}
    monkeypatch.setattr(desk.can, "retract", deletes)
    await taking
    assert [o.post_id for o in desk.outcomes] == [old, new]
    assert not desk.can.standing
    assert not desk.take_back.retractions.late()


async def test_a_network_that_was_away_for_long_deletes_what_it_has_when_it_is_back(
    desk: WentOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had not deleted at the tenth time stood through the whole incident."""
    monkeypatch.setattr(backoff, "LAST_RETRY_S", 0.01)
    monkeypatch.setattr(retractions, "IN_LINE", 3)
    for minutes in range(2, 8):
        await desk.went_out(desk.account, minutes_ago=minutes)
    desk.can.failures = [NotSent("no connection") for _ in range(100)]
    await desk.take_back.take_back(desk.hold())
    assert (desk.can.standing, desk.can.failures) == ({}, [])
    assert {o.result for o in desk.outcomes} == {"retracted"}


async def test_what_is_not_deleted_within_an_hour_is_a_persons_task(
    desk: WentOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "LAST_RETRY_S", 0.01)
    monkeypatch.setattr(retractions, "TRY_FOR_S", 0.3)
    post_id = await desk.went_out(desk.account, minutes_ago=10)
    monkeypatch.setattr(desk.can, "failures", [Unknown("no answer")] * 100_000)
    await desk.take_back.take_back(desk.hold())
    (outcome,) = desk.outcomes
    assert (outcome.post_id, outcome.result) == (post_id, "retraction_failed")
    assert outcome.reason.startswith(f"{desk.account} did not delete it, asked ")
    assert outcome.reason.endswith(" times: no answer")


async def test_what_we_have_not_tried_yet_others_may_take_back(
    desk: WentOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a page were ours, and stood for ten seconds more where we were killed."""
    posts = [await desk.went_out(desk.account, minutes_ago=minutes) for minutes in (1, 2, 3)]
    began = asyncio.Event()

    async def hang(_: Publication) -> Retracted:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    monkeypatch.setattr(desk.can, "retract", hang)
    taking = asyncio.create_task(desk.take_back.take_back(desk.hold()))
    await began.wait()
    await asyncio.sleep(0.2)
    found = [await desk.store.find(post_id) for post_id in posts]
    assert [entry.state for entry in found if entry] == ["retracting", "sent", "sent"]
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)


async def test_who_sends_does_not_wait_for_a_deletion_that_does_not_get_through(
    desk: WentOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An offer's task stood still with it, and the offers behind: it will be deleted by whoever is there then."""
    monkeypatch.setattr(takeback, "PATIENCE_S", 0.05)
    monkeypatch.setattr(desk.can, "retract", lambda _: asyncio.Event().wait())
    entry = await desk.store.find(await desk.went_out(desk.account, minutes_ago=10))
    assert entry is not None
    async with asyncio.timeout(10):
        await desk.take_back.take_back_one(entry, "hold-1")
    found = await desk.store.find(entry.post_id)
    assert found is not None
    assert found.state == "retracting"
