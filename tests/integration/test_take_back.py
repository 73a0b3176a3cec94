"""The take-back as people see it: tried first, apologised for, in its order."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from ops.embedded.system import System
from schemas.posts import Outcome, Post
from services.kit import database
from services.kit.telemetry import Clock
from services.publisher import backoff, retractions, takeback
from services.publisher.accounts import WebhookAccount
from services.publisher.channels import Channel, NotSent, Publication, Retracted, Unknown
from services.publisher.ledger import Attempt
from services.publisher.paces import Paces
from services.publisher.rates import Told
from services.publisher.store import SCHEMA, Sent, Store
from services.publisher.takeback import APOLOGY_LEFT_S, TakeBack
from tests.builders import a_hold, a_post, acknowledged
from tests.fakes import FakeChannel
from tests.journey import Journey, wait_for

MANY = """
INSERT INTO ledger (post_id, kind, account, state, attempt, publisher, labels, intent_at)
SELECT gen_random_uuid()::text, 'offer', :account, 'intent', 1, 'many', '{"line": "another"}', now()
FROM generate_series(1, :count)
"""
MANY_SENT = """
UPDATE ledger SET state = 'sent', done_at = now(), publication = '1' WHERE account = :account AND publisher = 'many'
"""
CHANGED = text("SELECT changed_at FROM ledger WHERE post_id = :post_id")
SORRY = "We have taken back an offer that came at the wrong moment."


class Desk:
    """Two accounts, one that can delete and says sorry, and one that cannot."""

    def __init__(self, store: Store) -> None:
        self.store, self.line = store, uuid.uuid4().hex
        self.account = f"a{self.line[:10]}"
        self.order: list[str] = []
        self.can, self.cannot = FakeChannel(Clock()), FakeChannel(Clock(), can_delete=False)
        channels: dict[str, Channel] = {self.account: self.can, f"{self.account}x": self.cannot}
        known = {"channel": "webhook", "url": "http://a.example", "secret": "x" * 16}
        accounts: dict[str, Any] = {
            self.account: WebhookAccount.model_validate(known | {"apology": SORRY})
        }
        self.is_killed = False
        self.said: list[Post] = []
        self.outcomes: list[Outcome] = []
        self.paces = Paces(store.engine, clock=Clock())
        self.take_back = TakeBack(
            store, channels, accounts, self.paces, clock=Clock(), emit=self._emit, say=self._say
        )

    async def _emit(self, outcome: Outcome, _: str) -> asyncio.Future[None]:
        if self.is_killed:
            raise OSError("killed")
        self.outcomes.append(outcome)
        return acknowledged()

    def _say(self, post: Post) -> None:
        self.said.append(post)

    async def went_out(self, account: str, *, minutes_ago: int) -> str:
        at = Clock().now() - timedelta(minutes=minutes_ago)
        post = a_post(post_id=uuid.uuid4().hex, account=account, labels={"line": self.line})
        await self.store.record_intent(post, attempt=1, fence=1, at=at)
        attempt = Attempt(at=at, publisher="test", answer="published")
        sent = Sent(
            post_id=post.post_id, at=at, attempt=attempt, publication=post.post_id, url=None
        )
        assert await self.store.record_sent(sent)
        self.can.standing[post.post_id] = post
        return post.post_id

    def ours(self) -> list[Post]:
        return [post for post in self.said if post.account == self.account]

    def hold(self) -> Any:
        return a_hold(f'{{line="{self.line}"}}', take_back_s=3600, opened_at=Clock().now())


@pytest.fixture
async def desk(system: System) -> AsyncIterator[Desk]:
    engine = database.new_engine(system.database, schema=SCHEMA)
    made = Desk(Store(engine, publisher="take-back"))
    yield made
    await made.take_back.retractions.stop()
    await engine.dispose()


async def test_what_would_be_taken_back_is_told_and_nothing_is_done(desk: Desk) -> None:
    old = await desk.went_out(desk.account, minutes_ago=30)
    new = await desk.went_out(f"{desk.account}x", minutes_ago=10)
    since = Clock().now() - timedelta(hours=1)
    found = await desk.take_back.would_take(lambda labels: desk.hold().covers(labels), since=since)
    ours = [(e.post_id, can) for e, can in found.newest if e.account.startswith(desk.account)]
    assert ours == [(new, False), (old, True)]
    assert set(desk.can.standing) == {old, new}


async def test_the_newest_goes_first_and_each_outcome_says_what_became_of_it(desk: Desk) -> None:
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
    desk: Desk,
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
    desk: Desk, monkeypatch: pytest.MonkeyPatch
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


async def test_who_is_killed_before_it_is_said_leaves_it_to_be_said(desk: Desk) -> None:
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


async def changed_at(desk: Desk, post_id: str) -> Any:
    async with desk.store.engine.connect() as connection:
        return await connection.scalar(CHANGED, {"post_id": post_id})


async def test_a_retraction_that_takes_long_is_nobody_elses(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
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
    desk: Desk, monkeypatch: pytest.MonkeyPatch
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
    desk: Desk, monkeypatch: pytest.MonkeyPatch
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
    desk: Desk, monkeypatch: pytest.MonkeyPatch
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
    desk: Desk, monkeypatch: pytest.MonkeyPatch
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
    desk: Desk, monkeypatch: pytest.MonkeyPatch
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
    desk: Desk, monkeypatch: pytest.MonkeyPatch
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


async def test_an_account_says_sorry_once_for_all_that_it_took_back(desk: Desk) -> None:
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
    desk: Desk, apology: str, is_said: bool
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


async def test_deletions_leave_the_last_tenth_of_the_rate_to_updates(desk: Desk) -> None:
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
