"""What a publisher knows of its sends is not forgotten: a database that does not answer, a rebalance, an orderly end.

On a channel that knows no keys and cannot be asked, whatever is forgotten is uncertain for ever: an offer is not taken
back, and an update is said twice.
"""

from __future__ import annotations

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from sqlalchemy import delete

from ops.embedded.process import free_port
from ops.embedded.system import System
from schemas.posts import Outcome, Post
from schemas.topics import DUE
from services.kit import database
from services.kit.telemetry import Clock
from services.publisher import backoff, doubts
from services.publisher.channels import NotSent, Publication, Refused, Unknown
from services.publisher.clearance import Clearance
from services.publisher.job import Job
from services.publisher.ledger import Attempt
from services.publisher.queues import Queues
from services.publisher.store import LEDGER, SCHEMA, Sent, Store
from services.publisher.turns import SideBySide
from tests.builders import a_hold
from tests.desk import Desk
from tests.fakes import FakeChannel
from tests.journey import Journey, wait_for
from tests.unit.test_broker import a_record

SLOW_S = 1.5  # A network's answer: long enough to end a process meanwhile.


class Slow(FakeChannel):
    """A channel that knows no keys, cannot be asked, and answers when it is let."""

    def __init__(self, **can: Any) -> None:
        super().__init__(Clock(), **({"idempotent_s": 0} | can))
        self.begun, self.answers = asyncio.Event(), asyncio.Event()

    async def publish(self, clearance: Clearance, *, key: str) -> Publication:
        made = await super().publish(clearance, key=key)
        self.begun.set()
        await self.answers.wait()
        return made


@pytest.fixture
async def store(system: System, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    monkeypatch.setattr(backoff, "FIRST_RETRY_S", 0.001)
    monkeypatch.setattr(backoff, "LAST_RETRY_S", 0.001)
    monkeypatch.setattr(doubts, "LANDS_S", 0.0)
    engine = database.new_engine(system.database, schema=SCHEMA)
    yield Store(engine, publisher=f"one-{uuid.uuid4().hex[:6]}")
    await engine.dispose()


def a_desk(store: Store, channel: FakeChannel) -> Desk:
    return Desk(store, f"hand-over-{uuid.uuid4().hex[:6]}", channel)


async def state_of(store: Store, post: Post) -> str | None:
    entry = await store.find(post.post_id)
    return entry.state if entry else None


def fails_once(
    monkeypatch: pytest.MonkeyPatch, store: Store, name: str, *, behind: bool = False
) -> None:
    """Let the database fail at the next call of a method, before its statement or behind it."""
    method, failures = getattr(store, name), [OSError("no connection")]

    async def failing(*given: Any, **values: Any) -> Any:
        done = await method(*given, **values) if behind or not failures else None
        if failures:
            raise failures.pop()
        return done

    monkeypatch.setattr(store, name, failing)


@pytest.mark.parametrize("behind", [False, True])
async def test_what_the_network_said_is_kept_while_the_database_does_not_answer(
    behind: bool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = a_desk(store, FakeChannel(Clock(), idempotent_s=0))
    fails_once(monkeypatch, store, "record_sent", behind=behind)
    post = desk.new_post("offer")
    assert (await desk.send(post)).result == "published"
    assert (desk.channel.tries, await state_of(store, post)) == (1, "sent")  # type: ignore[attr-defined]


@pytest.mark.parametrize("failure", [NotSent("no connection"), Refused("no")])
async def test_what_was_certainly_not_sent_stays_so(
    failure: Exception, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = FakeChannel(Clock(), idempotent_s=0)
    channel.failures = [failure]
    desk = a_desk(store, channel)
    fails_once(monkeypatch, store, "record_attempt")
    post = desk.new_post("offer")
    assert (await desk.send(post)).result == "published"
    assert (channel.tries, len(channel.standing)) == (2, 1)


async def test_what_the_network_has_answered_is_written_down_though_its_partition_is_gone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database did not answer then either: whoever has the partition could only call it uncertain, and it stood."""
    desk = a_desk(store, FakeChannel(Clock(), idempotent_s=0))
    job, writes = (
        Job(desk.new_post("offer"), 1, lambda _: None, steps_aside=True),
        store.record_sent,
    )

    async def away(_: Sent) -> bool:
        job.dropped = True
        monkeypatch.setattr(store, "record_sent", writes)
        raise OSError("the database is away")

    monkeypatch.setattr(store, "record_sent", away)
    await desk.delivery().settle(job)
    assert await state_of(store, job.post) == "sent"
    assert [said.result for said in desk.said] == ["published"]


@pytest.mark.parametrize("behind", [False, True])
async def test_an_intent_whose_answer_was_lost_is_our_own(
    behind: bool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = a_desk(store, FakeChannel(Clock(), idempotent_s=0))
    fails_once(monkeypatch, store, "record_intent", behind=behind)
    assert (await desk.send(desk.new_post("offer"))).result == "published"
    assert desk.channel.tries == 1  # type: ignore[attr-defined]


async def test_a_send_whose_intent_the_database_has_forgotten_is_found_by_a_take_back(
    store: Store,
) -> None:
    """A replica is promoted that lacks the last transactions."""
    channel = Slow()
    desk = a_desk(store, channel)
    post = desk.new_post("offer", labels={"line": uuid.uuid4().hex})
    sending = asyncio.create_task(desk.send(post))
    await channel.begun.wait()
    async with store.engine.begin() as connection:
        await connection.execute(delete(LEDGER).where(LEDGER.c.post_id == post.post_id))
    channel.answers.set()
    assert (await sending).result == "published"
    hold = a_hold(f'{{line="{post.labels["line"]}"}}', take_back_s=60, opened_at=Clock().now())
    await desk.delivery().take_back.take_back(hold)
    assert (channel.standing, await state_of(store, post)) == ({}, "retracted")


@pytest.mark.parametrize(
    ("can", "meanwhile"), [({}, "uncertain"), ({"reads_back": "exact"}, "held")]
)
async def test_what_another_could_not_know_is_known_when_the_answer_comes(
    can: dict[str, Any], meanwhile: str, store: Store
) -> None:
    """A rebalance in the middle of a send, and a hold: the other took it over, and the network was still at work."""
    channel = Slow(**can)
    one = a_desk(store, channel)
    other = Desk(Store(store.engine, publisher="other"), one.account, FakeChannel(Clock(), **({"idempotent_s": 0} | can)))  # fmt: skip
    post = one.new_post("offer")
    sending = asyncio.create_task(one.send(post))
    await channel.begun.wait()
    hold = a_hold("{}", take_back_s=60, opened_at=Clock().now())
    for desk in (one, other):
        desk.gate.holds.apply(hold)
    assert (await other.send(post)).result == meanwhile
    channel.answers.set()
    await sending
    assert [said.result for said in one.said] == ["published", "retracted"]
    assert (channel.standing, await state_of(store, post)) == ({}, "retracted")


async def test_of_what_another_has_sent_and_taken_back_meanwhile_nobody_says_that_it_is_published(
    store: Store,
) -> None:
    channel = Slow()
    slow, other = a_desk(store, channel), Store(store.engine, publisher="other")
    post = slow.new_post("offer")
    sending = asyncio.create_task(slow.send(post))
    await channel.begun.wait()
    tried = Attempt(at=Clock().now(), publisher="other", answer="published")
    assert await other.record_sent(
        Sent(post_id=post.post_id, at=Clock().now(), attempt=tried, publication="1", url=None)
    )
    for state in ("retracting", "retracted"):
        assert await other.record(post.post_id, state)
    channel.answers.set()
    await sending
    assert [said.result for said in slow.said] == ["retracted", "retracted"], "theirs and ours"
    assert channel.standing == {}, "what we made behind its take-back"


class InHand:
    """One account's queue, with a delivery behind it."""

    def __init__(self, desk: Desk) -> None:
        delivery = desk.delivery()
        self.queues = Queues(DUE, group="g", crash=lambda *_: None)
        self.queues.turns = SideBySide(
            delivery.settle, parallel=lambda _: 1, crash=self.queues.crash
        )
        self.queues.leave = delivery.leave
        self.committed = 0
        self.queues.subscription = SimpleNamespace(consumer=self)  # type: ignore[assignment]

    async def commit(self, offsets: dict[Any, int]) -> None:
        self.committed = max(offsets.values())

    async def take(self, *posts: Post) -> None:
        await self.queues._on_assigned([0])
        for offset, post in enumerate(posts):
            self.queues.take(a_record(0, offset), [post], attempt=1, traceparent="")


@pytest.mark.parametrize("ends", [True, False])
async def test_a_send_that_has_begun_comes_to_its_end_and_none_begins(
    ends: bool, store: Store
) -> None:
    channel = Slow()
    desk = a_desk(store, channel)
    hand, (first, second) = InHand(desk), (desk.new_post("offer"), desk.new_post("offer"))
    await hand.take(first, second)
    await channel.begun.wait()
    over = asyncio.create_task(hand.queues.end() if ends else hand.queues._on_revoked([0]))
    await asyncio.sleep(0.05)
    assert not over.done()
    channel.answers.set()
    await over
    await hand.queues.stop()
    assert [said.result for said in desk.said] == ["published"]
    assert (await state_of(store, first), await state_of(store, second)) == ("sent", None)
    assert hand.committed == 1


async def test_what_was_not_sent_and_is_left_is_sent_by_whoever_goes_on(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FIRST_RETRY_S", 60)
    monkeypatch.setattr(backoff, "LAST_RETRY_S", 60)
    channel = FakeChannel(Clock(), idempotent_s=0)
    channel.failures = [NotSent("no connection")]
    desk = a_desk(store, channel)
    hand, post = InHand(desk), desk.new_post("offer")
    await hand.take(post)
    async with asyncio.timeout(30):
        while not (entry := await store.find(post.post_id)) or not entry.attempts:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await hand.queues._on_revoked([0])
    await hand.queues.stop()
    other = Desk(Store(store.engine, publisher="other"), desk.account, channel)
    assert (await other.send(post)).result == "published"
    assert (channel.tries, len(channel.standing)) == (2, 1)


async def test_a_record_is_committed_when_kafka_has_acknowledged_what_was_said_and_no_post_waits_for_it(
    store: Store,
) -> None:
    """While one of three brokers was lost, an account's next update waited until another leader was elected."""
    desk = a_desk(store, FakeChannel(Clock()))
    on_their_way = dict[str, asyncio.Future[None]]()

    async def emit(outcome: Outcome, _: str) -> asyncio.Future[None]:
        on_their_way[outcome.post_id] = asyncio.get_running_loop().create_future()
        return on_their_way[outcome.post_id]

    desk.emit = emit  # type: ignore[method-assign]
    hand, posts = InHand(desk), [desk.new_post("offer") for _ in range(2)]
    await hand.take(*posts)
    async with asyncio.timeout(30):
        while len(on_their_way) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    on_their_way[posts[1].post_id].set_result(None)
    over = asyncio.create_task(hand.queues._on_revoked([0]))
    await asyncio.sleep(0.05)
    assert (over.done(), hand.committed) == (False, 0), "handed over unsaid"
    on_their_way[posts[0].post_id].set_result(None)
    await over
    assert hand.committed == 2
    await hand.queues.stop()


async def test_an_offer_that_a_network_does_not_take_keeps_no_other_waiting(store: Store) -> None:
    """One that was answered with 500, again and again, kept all of its account waiting until it was too late for it."""
    channel = FakeChannel(Clock(), idempotent_s=60)
    desk = a_desk(store, channel)
    bad, good = desk.new_post("offer"), desk.new_post("offer")
    publish = channel.publish

    async def but_for_one(clearance: Clearance, *, key: str) -> Publication:
        if key == bad.post_id and len(channel.standing) < 1:
            channel.failures.append(Unknown("HTTP 500"))
        return await publish(clearance, key=key)

    channel.publish = but_for_one  # type: ignore[method-assign]
    hand = InHand(desk)
    await hand.take(bad, good)
    async with asyncio.timeout(30):
        while len(desk.said) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert [said.post_id for said in desk.said] == [good.post_id, bad.post_id]
    await hand.queues.stop()
    assert hand.committed == 2


async def test_what_stepped_aside_comes_back_before_all_that_waits(store: Store) -> None:
    """Behind a backlog of an hour its second try would be too late."""
    channel = FakeChannel(Clock(), idempotent_s=60)
    desk = a_desk(store, channel)
    channel.failures = [Unknown("HTTP 500")]
    posts = [desk.new_post("offer") for _ in range(20)]
    hand = InHand(desk)
    await hand.take(*posts)
    async with asyncio.timeout(30):
        while len(desk.said) < len(posts):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await hand.queues.stop()
    order = [said.post_id for said in desk.said]
    assert 0 < order.index(posts[0].post_id) < len(posts) - 1
    rest = [post_id for post_id in order if post_id != posts[0].post_id]
    assert rest == [post.post_id for post in posts[1:]]


async def test_of_two_that_go_on_one_sends(store: Store) -> None:
    """Each finds the intent that was left; the one that comes later believes that the first has begun."""
    desk = a_desk(store, FakeChannel(Clock(), idempotent_s=0))
    post = desk.new_post("offer")
    await store.record_intent(post, attempt=1, fence=1, at=Clock().now())
    await store.leave_intent(post.post_id)
    others = [Store(store.engine, publisher=name) for name in ("two", "three")]
    found = await asyncio.gather(*(o.adopt_intent(post.post_id, of="") for o in others))
    assert sorted(found) == [False, True]


@pytest.fixture
def blind(tmp_path: Path, new_system: Callable[..., System]) -> Iterator[System]:
    """Return a system with a receiver that knows no keys, and cannot be asked."""
    sandbox = free_port()
    account = {
        "channel": "webhook", "url": f"http://127.0.0.1:{sandbox}/hooks/blind",
        "secret": "a-secret-of-the-tests", "deduplicates": False,
    }  # fmt: skip
    (tmp_path / "accounts.yaml").write_text(yaml.safe_dump({"accounts": {"blind": account}}))
    with new_system(ports={"sandbox": sandbox}) as running:
        yield running


def test_a_publisher_that_is_asked_to_end_ends_its_sends_first(blind: System) -> None:
    """Each deployment left offers that nobody knew of, and said updates twice."""
    with Journey(blind) as journey:
        journey.faults(slow_s=SLOW_S)
        (post_id,) = journey.hand_over(1, account="blind")
        wait_for("the intent", lambda: (journey.ledger(post_id) or {}).get("state") == "intent")
        blind.children["publisher"].stop(signal.SIGTERM)
        journey.faults()
        blind.replace("publisher")
        entry = journey.ledger(post_id)
        assert entry is not None
        assert entry["state"] == "sent"
        assert len(journey.seen("hook", among=[post_id])) == 1
