"""The take-back as people see it: tried first, apologised for, in its order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from ops.embedded.system import System
from services.kit.telemetry import Clock
from services.publisher import takeback
from services.publisher.ledger import Attempt
from services.publisher.rates import Told
from services.publisher.store import Sent
from services.publisher.takeback import APOLOGY_LEFT_S
from tests.builders import a_post
from tests.journey import Journey, wait_for
from tests.went_out import SORRY, WentOut, went_out_on

MANY = """
INSERT INTO ledger (post_id, kind, account, state, attempt, publisher, labels, intent_at)
SELECT gen_random_uuid()::text, 'offer', :account, 'intent', 1, 'many', '{"line": "another"}', now()
FROM generate_series(1, :count)
"""
MANY_SENT = """
UPDATE ledger SET state = 'sent', done_at = now(), publication = '1' WHERE account = :account AND publisher = 'many'
"""


@pytest.fixture
async def desk(system: System) -> AsyncIterator[WentOut]:
    async with went_out_on(system) as made:
        yield made


async def test_what_would_be_taken_back_is_told_and_nothing_is_done(desk: WentOut) -> None:
    old = await desk.went_out(desk.account, minutes_ago=30)
    new = await desk.went_out(f"{desk.account}x", minutes_ago=10)
    since = Clock().now() - timedelta(hours=1)
    found = await desk.take_back.would_take(lambda labels: desk.hold().covers(labels), since=since)
    ours = [(e.post_id, can) for e, can in found.newest if e.account.startswith(desk.account)]
    assert ours == [(new, False), (old, True)]
    assert set(desk.can.standing) == {old, new}


async def test_the_newest_goes_first_and_each_outcome_says_what_became_of_it(desk: WentOut) -> None:
    old = await desk.went_out(desk.account, minutes_ago=30)
    new = await desk.went_out(desk.account, minutes_ago=10)
    stays = await desk.went_out(f"{desk.account}x", minutes_ago=20)
    await desk.went_out(desk.account, minutes_ago=90)  # Outside the window.
    await desk.take_back.take_back(desk.hold())
    ours = [o for o in desk.outcomes if o.account == desk.account]
    assert [(o.post_id, o.result) for o in ours] == [(new, "retracted"), (old, "retracted")]
    (other,) = [o for o in desk.outcomes if o.account == f"{desk.account}x"]
    assert (other.post_id, other.result) == (stays, "retraction_failed")
    assert other.reason == f"impossible: {desk.account}x cannot delete; do it by hand"


async def test_what_was_on_its_way_is_taken_back_by_a_hold_that_takes_back_nothing_of_before(
    desk: WentOut,
) -> None:
    """A person's hold, a precaution: sent within the lease, and written down before its publisher had read the hold."""
    before = await desk.went_out(desk.account, minutes_ago=10)
    under = await desk.went_out(desk.account, minutes_ago=3)
    opened_at = Clock().now() - timedelta(minutes=5)
    hold = desk.hold().model_copy(update={"take_back_s": 0, "opened_at": opened_at})
    await desk.take_back.take_back(hold)
    assert [(o.post_id, o.result) for o in desk.outcomes] == [(under, "retracted")]
    assert set(desk.can.standing) == {before}


async def test_all_that_is_covered_is_taken_back_however_much_else_went_out_since(
    desk: WentOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of ten thousand a minute one tenth is covered: only the newest ten thousand of all were looked at."""
    monkeypatch.setattr(takeback, "PAGE_POSTS", 2)
    covered = [await desk.went_out(desk.account, minutes_ago=number + 2) for number in range(5)]
    async with desk.store.engine.begin() as connection:
        await connection.execute(text(MANY), {"account": desk.account, "count": 12_000})
        await connection.execute(text(MANY_SENT), {"account": desk.account})
    hold = desk.hold()
    plan = await desk.take_back.would_take(hold.covers, since=takeback.window_begin(hold))
    assert (plan.deleted, len(plan.newest)) == (len(covered), len(covered))
    await desk.take_back.take_back(hold)
    assert [o.post_id for o in desk.outcomes] == covered, "the newest first"
    assert desk.can.standing == {}


async def test_who_is_killed_before_it_is_said_leaves_it_to_be_said(desk: WentOut) -> None:
    """The queue would have called it published for ever."""
    post_id, desk.is_killed = await desk.went_out(desk.account, minutes_ago=10), True
    with pytest.raises(OSError, match="killed"):
        await desk.take_back.take_back(desk.hold())
    desk.is_killed = False
    await desk.take_back.resume(left_s=-60)
    (outcome,) = [one for one in desk.outcomes if one.post_id == post_id]
    assert outcome.result == "retracted"
    entry = await desk.store.find(post_id)
    assert entry is not None
    assert entry.state == "retracted"


async def test_an_account_says_sorry_once_for_all_that_it_took_back(desk: WentOut) -> None:
    for minutes in (10, 20):
        await desk.went_out(desk.account, minutes_ago=minutes)
    hold = desk.hold()
    await desk.take_back.take_back(hold)
    await desk.take_back.take_back(hold)
    (sorry,) = desk.said
    assert (sorry.text, sorry.kind, sorry.account) == (SORRY, "update", desk.account)
    assert hold.hold_id in sorry.post_id


@pytest.mark.parametrize(
    ("apology", "is_said"), [("none", True), ("sent", False), ("begun", False), ("left", True)]
)
async def test_an_apology_that_was_lost_with_its_publisher_is_said_by_another(
    desk: WentOut, apology: str, is_said: bool
) -> None:
    hold, now = desk.hold(), Clock().now()
    post_id = await desk.went_out(desk.account, minutes_ago=10)
    for state in ("retracting", "retracted"):
        assert await desk.store.record(post_id, state, hold_id=hold.hold_id)
    if apology != "none":
        sorry = a_post(
            post_id=f"{hold.hold_id}.apology.{desk.account}", kind="update", account=desk.account
        )
        at = now - timedelta(seconds=APOLOGY_LEFT_S + 1 if apology == "left" else 1)
        await desk.store.record_intent(sorry, attempt=1, fence=None, at=at)
        if apology == "sent":
            attempt = Attempt(at=at, publisher="other", answer="published")
            sent = Sent(post_id=sorry.post_id, at=at, attempt=attempt, publication="p", url=None)
            assert await desk.store.record_sent(sent)
    await desk.take_back.resume(left_s=60)
    assert not desk.ours(), "whoever took it back may still say it"
    await desk.take_back.resume(left_s=-60)
    assert bool(desk.ours()) is is_said


async def test_deletions_leave_the_last_tenth_of_the_rate_to_updates(desk: WentOut) -> None:
    reset_at = Clock().now() + timedelta(minutes=1)
    await desk.paces.hear(
        desk.account, Told(limit=30, remaining=3, reset_at=reset_at, bucket="delete")
    )
    waits = {
        purpose: await desk.paces.wait_s(desk.account, purpose, has_rate=True, bucket="delete")
        for purpose in ("retraction", "update")
    }  # fmt: skip
    assert waits["retraction"] > 0
    assert waits["update"] == 0


def test_the_dry_run_over_http_names_each_post_and_the_accounts_say_what_they_can(
    journey: Journey,
) -> None:
    (offer,) = journey.hand_over(1, account="social-en")
    wait_for("the offer", lambda: journey.standing([offer]))
    asked = {"matchers": f'{{network="{journey.network}"}}', "within_s": 3600}

    def plan() -> dict[str, Any]:
        answer = journey.publisher.post("/v1/take-back/dry-run", json=asked)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ours() -> list[dict[str, Any]]:
        return [post for post in plan()["posts"] if post["post_id"] == offer]

    (found,) = wait_for("the ledger", ours)
    assert found["can_be_deleted"]
    assert plan()["deleted"] >= 1
    assert journey.standing([offer]) == {offer}
    wrong = journey.publisher.post("/v1/take-back/dry-run", json=asked | {"within_s": 0})
    assert wrong.status_code == 422
    assert "within_s" in wrong.json()["detail"]
    accounts = journey.publisher.get("/v1/accounts").json()
    assert accounts["web"]["capabilities"]["idempotent_s"] == "for ever"
    assert accounts["social-en"]["circuit"]["failures"] == 0
    assert "token" not in str(accounts)
