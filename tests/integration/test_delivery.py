"""One post's way through gate, ledger and channel, with a real ledger and a channel that fails."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import DataError

from ops.embedded.system import System
from schemas.holds import OpenHolds
from schemas.posts import Kind, Outcome, Post
from services.kit import database
from services.kit.telemetry import Clock
from services.publisher import backoff, circuit
from services.publisher.brokers_clock import BrokersClock
from services.publisher.channels import Channel, NotSent, Refused, Unknown
from services.publisher.delivery import Delivery
from services.publisher.gate import Passed, Verdict, judge
from services.publisher.job import Job
from services.publisher.paces import Paces
from services.publisher.store import SCHEMA, Store, Unsent
from services.publisher.takeback import TakeBack
from tests.builders import AT, a_hold, a_post, a_release, acknowledged
from tests.fakes import FakeChannel

pytestmark = pytest.mark.usefixtures("quick_retries")


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(backoff, "LAST_RETRY_S", 0.001)


@dataclass
class Open:
    """A gate whose fence has just passed; `holds` may close it."""

    holds: OpenHolds = field(default_factory=OpenHolds)

    def judge(self, post: Post) -> Verdict:
        now_s = Clock().monotonic_s()
        passed = Passed(number=1, begun_s=now_s)
        return judge(post, open_holds=self.holds, passed=passed, now_s=now_s, now=AT, lease_s=5)

    async def changed(self) -> None:
        raise AssertionError("nothing here waits")


class Desk:
    """A delivery with one account, and what it said."""

    def __init__(self, store: Store) -> None:
        self.store, self.gate, self.said = store, Open(), list[Outcome]()
        self.channel, self.clock = FakeChannel(Clock()), Clock()
        self.accounts = {"social-en"}
        self.settled = 0

    async def _emit(self, outcome: Outcome, _: str) -> asyncio.Future[None]:
        self.said.append(outcome)
        return acknowledged()

    def _settle(self, _: Job) -> None:
        self.settled += 1

    def delivery(self) -> Delivery:
        channels: dict[str, Channel] = dict.fromkeys(self.accounts, self.channel)
        shared: dict[str, Any] = {"clock": self.clock, "emit": self._emit}
        paces = Paces(self.store.engine, clock=Clock())
        take_back = TakeBack(self.store, channels, {}, paces, **shared)
        return Delivery(self.store, channels, self.gate, paces, take_back, **shared)

    async def send(self, post: Post, *, attempt: int = 1) -> str:
        await self.delivery().settle(Job(post, attempt, self._settle))
        await asyncio.sleep(0.02)  # Then what was said is acknowledged.
        return self.said[-1].result

    async def state(self, post: Post) -> str | None:
        entry = await self.store.find(post.post_id)
        return entry.state if entry else None


@pytest.fixture
async def desk(system: System) -> AsyncIterator[Desk]:
    engine = database.new_engine(system.database, schema=SCHEMA)
    yield Desk(Store(engine, publisher="test"))
    await engine.dispose()


def new_post(**values: Any) -> Post:
    latest_at = Clock().now() + timedelta(hours=1)
    return a_post(**{"post_id": uuid.uuid4().hex, "latest_at": latest_at} | values)


async def test_a_post_goes_out_once_and_is_said_again_when_it_comes_again(desk: Desk) -> None:
    post = new_post()
    assert [await desk.send(post), await desk.send(post)] == ["published", "published"]
    assert (desk.channel.tries, desk.settled, await desk.state(post)) == (1, 2, "sent")


async def test_an_offer_that_was_let_through_and_had_nothing_to_send_lets_the_next_one_try(
    desk: Desk,
) -> None:
    """All of an account that had failed waited a minute more for each such one, though it was back."""
    post = new_post()
    await desk.send(post)
    delivery, account = desk.delivery(), post.account
    for _ in range(circuit.FAILURES):
        delivery.paces.failed(account, "500")
    failed = replace(delivery.paces.circuits[account], open_until_s=0.0)
    delivery.paces.circuits[account] = failed
    await delivery.settle(Job(post, 1, desk._settle))
    assert delivery.paces.circuits[account].is_open
    assert await delivery.paces.wait_s(account, "offer", has_rate=False) == 0


async def test_what_was_certainly_not_sent_is_tried_again(desk: Desk) -> None:
    post = new_post()
    desk.channel.failures = [NotSent("no connection"), NotSent("too many", retry_after_s=0)]
    assert await desk.send(post) == "published"
    assert desk.channel.tries == 3


async def test_what_the_channel_refuses_fails_and_may_be_handed_over_again(desk: Desk) -> None:
    post = new_post()
    desk.channel.failures = [Refused("too long")]
    assert await desk.send(post) == "failed"
    assert await desk.send(post) == "failed"
    assert await desk.send(post, attempt=2) == "published"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["offer", "update"])
async def test_a_network_that_answers_with_a_nul_is_written_down_all_the_same(
    desk: Desk, kind: Kind
) -> None:
    """PostgreSQL keeps none in a text: the ledger was said not to answer, and the post was sent again."""
    post = new_post(kind=kind)
    desk.channel.failures = [NotSent("busy \x00"), Refused("no \x00")]
    assert await desk.send(post) == "failed"
    entry = await desk.store.find(post.post_id)
    assert entry is not None
    assert entry.detail == "no \ufffd"
    assert entry.attempts[0]["answer"] == "not sent: busy \ufffd"
    assert desk.channel.tries == 2


@pytest.mark.timeout(20)
async def test_a_post_that_the_ledger_refuses_ends_and_keeps_no_other_waiting(desk: Desk) -> None:
    too_high = 2**40  # More than the column takes: who queued it is at fault, whatever it is.
    assert await desk.send(new_post(), attempt=too_high) == "failed"
    assert "the ledger refuses it" in desk.said[-1].reason
    assert (desk.channel.tries, desk.settled) == (0, 1)


@pytest.mark.timeout(20)
async def test_a_send_that_the_ledger_refuses_is_uncertain_in_it_too(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: Any) -> bool:
        raise DataError("UPDATE", None, ValueError("a value that nobody foresaw"))

    monkeypatch.setattr(desk.store, "record_sent", refuse)
    post = new_post()
    assert await desk.send(post) == "uncertain"
    assert (desk.channel.tries, desk.settled, await desk.state(post)) == (1, 1, "uncertain")


@pytest.mark.timeout(20)
async def test_an_earlier_try_that_comes_again_behind_a_later_one_is_passed_over(
    desk: Desk,
) -> None:
    """The ledger refused its intent, and it was judged again and again, without a pause, before all others."""
    post = new_post()
    await desk.store.record_unsent(
        Unsent(post=post, attempt=2, at=Clock().now(), why="held", hold_id="hold-1")
    )
    await desk.delivery().settle(Job(post, 1, desk._settle))
    assert (desk.said, desk.settled, desk.channel.tries) == ([], 1, 0)
    assert await desk.send(post, attempt=3) == "published"


async def test_a_lost_answer_is_asked_for_again_with_the_same_key(desk: Desk) -> None:
    post = new_post()
    desk.channel.lost_answers = [Unknown("time-out")]
    assert await desk.send(post) == "published"
    assert len(desk.channel.standing) == 1


async def test_on_a_channel_that_knows_no_keys_an_offer_is_uncertain_and_an_update_is_said_again(
    desk: Desk,
) -> None:
    desk.channel = FakeChannel(Clock(), idempotent_s=0)
    offer, update = new_post(), new_post(kind="update")
    desk.channel.lost_answers = [Unknown("time-out")]
    assert await desk.send(offer) == "uncertain"
    assert await desk.send(offer, attempt=2) == "uncertain"
    assert len(desk.channel.standing) == 1
    desk.channel.lost_answers = [Unknown("time-out")]
    assert await desk.send(update) == "published"
    assert len(desk.channel.standing) == 3


@pytest.mark.parametrize(("idempotent_s", "result"), [(3600, "published"), (0, "uncertain")])
async def test_a_send_that_a_crash_cut_off_is_resumed_by_capability(
    desk: Desk, idempotent_s: float, result: str
) -> None:
    desk.channel = FakeChannel(Clock(), idempotent_s=idempotent_s)
    post = new_post()
    assert await desk.store.record_intent(post, attempt=1, fence=1, at=Clock().now())
    assert await desk.send(post) == result


@pytest.mark.parametrize(
    ("kind", "idempotent_s"), [("offer", math.inf), ("update", 3600), ("update", math.inf)]
)
async def test_a_post_waits_for_its_intent(
    desk: Desk, kind: Kind, idempotent_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.channel = FakeChannel(Clock(), idempotent_s=idempotent_s)
    record, tried = desk.store.record_intent, list[int]()

    async def slowly(*given: Any, **values: Any) -> bool:
        await asyncio.sleep(0.05)  # Time enough for whoever does not wait.
        tried.append(desk.channel.tries)
        return await record(*given, **values)

    monkeypatch.setattr(desk.store, "record_intent", slowly)
    assert await desk.send(new_post(kind=kind)) == "published"
    assert tried == [0]


async def test_an_update_that_another_left_in_the_middle_is_sent_again_and_recognised(
    desk: Desk,
) -> None:
    update, other = new_post(kind="update"), Store(desk.store.engine, publisher="other")
    assert await other.record_intent(update, attempt=1, fence=None, at=Clock().now())
    assert await desk.send(update) == "published"
    assert (len(desk.channel.standing), await desk.state(update)) == (1, "sent")
    assert await desk.send(update) == "published", "and once more"
    assert len(desk.channel.standing) == 1


async def test_what_another_sent_under_a_hold_and_ended_is_taken_back_by_whoever_reads_it_again(
    desk: Desk,
) -> None:
    post = new_post()
    assert await desk.send(post) == "published"
    desk.gate.holds.apply(a_hold(opened_at=Clock().now() - timedelta(minutes=1)))
    assert await desk.send(post) == "retracted"
    assert [said.result for said in desk.said] == ["published", "published", "retracted"]
    assert desk.channel.standing == {}


async def test_a_held_offer_that_is_read_again_behind_the_hold_stays_held(desk: Desk) -> None:
    """Found by the simulation: marketing has it back, and may have changed or cancelled it."""
    hold = a_hold()
    desk.gate.holds.apply(hold)
    post = new_post()
    assert await desk.send(post) == "held"
    assert await desk.state(post) == "withdrawn"
    desk.gate.holds.apply(a_release(hold))
    assert await desk.send(post) == "held"
    assert desk.said[-1].hold_id == hold.hold_id
    assert desk.channel.tries == 0
    assert await desk.send(post, attempt=2) == "published"


async def test_a_publisher_that_wakes_up_does_not_withdraw_what_another_has_adopted(
    desk: Desk,
) -> None:
    """It would take the row away under the other's send, and the ledger would know nothing."""
    post, asleep = new_post(), Store(desk.store.engine, publisher="asleep")
    assert await asleep.record_intent(post, attempt=1, fence=1, at=Clock().now())
    assert await desk.store.adopt_intent(post.post_id, of="asleep")
    mine = Unsent(post=post, attempt=1, at=Clock().now(), why="held", is_ours=True)
    assert not await asleep.record_unsent(mine)
    assert await desk.state(post) == "intent"
    assert await desk.store.record_unsent(mine)
    assert await desk.state(post) == "withdrawn"


async def test_a_cut_off_send_under_a_hold_is_uncertain(desk: Desk) -> None:
    post = new_post()
    await desk.store.record_intent(post, attempt=1, fence=1, at=Clock().now())
    desk.gate.holds.apply(a_hold())
    assert await desk.send(post) == "uncertain"


async def test_an_offer_that_went_out_as_the_hold_opened_is_taken_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    post, hold = new_post(), a_hold(take_back_s=60)
    judged = desk.gate.judge

    def hold_after_judging(found: Post) -> Verdict:
        verdict = judged(found)
        if len(calls) == 1:  # The one right before the send.
            desk.gate.holds.apply(hold)
        calls.append(found)
        return verdict

    calls: list[Post] = []
    monkeypatch.setattr(desk.gate, "judge", hold_after_judging)
    await desk.send(post)
    assert [said.result for said in desk.said] == ["published", "retracted"]
    assert desk.channel.standing == {}


class Behind(Clock):
    """A host whose wall clock is an hour behind."""

    def now(self) -> datetime:
        return super().now() - timedelta(hours=1)


async def test_what_a_publisher_with_a_wrong_clock_sent_is_taken_back_all_the_same(
    desk: Desk,
) -> None:
    """A hold's window is the brokers' time: by the host's, it had gone out an hour before."""
    desk.clock = clock = BrokersClock(Behind())
    clock.hear(Clock().now(), at_s=clock.monotonic_s())
    post = new_post()
    assert await desk.send(post) == "published"
    hold = a_hold(opened_at=Clock().now(), take_back_s=600)
    await desk.delivery().take_back.take_back(hold)
    assert await desk.state(post) == "retracted"


async def test_a_retraction_that_was_not_heard_is_asked_for_again(desk: Desk) -> None:
    post = new_post(labels={"line": uuid.uuid4().hex})
    await desk.send(post)
    desk.channel.failures = [NotSent("no connection"), Unknown("time-out")]
    hold = a_hold(f'{{line="{post.labels["line"]}"}}', take_back_s=3600, opened_at=Clock().now())
    await desk.delivery().take_back.take_back(hold)
    assert (await desk.state(post), desk.channel.standing) == ("retracted", {})


async def test_a_channel_that_cannot_delete_is_named(desk: Desk) -> None:
    desk.channel = FakeChannel(Clock(), can_delete=False)
    post = new_post(labels={"line": uuid.uuid4().hex})
    await desk.send(post)
    hold = a_hold(f'{{line="{post.labels["line"]}"}}', take_back_s=3600, opened_at=Clock().now())
    await desk.delivery().take_back.take_back(hold)
    ours = [said for said in desk.said if said.post_id == post.post_id]
    assert ours[-1].result == "retraction_failed"
    assert "by hand" in ours[-1].reason


async def test_an_unknown_account_fails_by_name(desk: Desk) -> None:
    assert await desk.send(new_post(account="nobody")) == "failed"
    assert desk.said[-1].reason == "there is no channel account nobody"


async def test_what_was_refused_is_not_sent_when_it_comes_again_to_an_account_there_is_now(
    desk: Desk,
) -> None:
    """Marketing has it back, and may have moved it to another account."""
    post = new_post(account="new")
    assert await desk.send(post) == "failed"
    desk.accounts.add("new")
    assert await desk.send(post) == "failed"
    assert (desk.channel.tries, await desk.state(post)) == (0, "failed")
    assert await desk.send(post, attempt=2) == "published"


async def test_what_went_out_stays_published_when_it_comes_again_and_its_account_is_gone(
    desk: Desk,
) -> None:
    post = new_post()
    assert await desk.send(post) == "published"
    desk.accounts.clear()
    assert await desk.send(post) == "published"


async def test_a_cut_off_send_to_an_account_that_is_gone_is_uncertain(desk: Desk) -> None:
    post = new_post()
    await desk.store.record_intent(post, attempt=1, fence=1, at=Clock().now())
    desk.accounts.clear()
    assert await desk.send(post) == "uncertain"
    assert "there is no channel account" in desk.said[-1].reason
