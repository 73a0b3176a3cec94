"""What the delivery relies on of the ledger, asked of PostgreSQL and of the one in memory alike."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from ops.embedded.system import System
from schemas.posts import Post
from services.kit import database
from services.kit.telemetry import Clock
from services.publisher.ledger import FOLLOWS, UNSENT, Attempt, State
from services.publisher.store import SCHEMA, Sent, Store, Unsent
from tests.builders import a_post
from tests.simulation.ledger import MemoryStore, Rows

NewStore = Callable[[str], Store]
STATES: tuple[State, ...] = get_args(State)
WAYS: dict[State, tuple[State, ...]] = {  # How a row comes into a state, from its intent on.
    "intent": (), "sent": ("sent",), "failed": ("failed",), "withdrawn": ("withdrawn",),
    "uncertain": ("uncertain",), "retracting": ("sent", "retracting"),
    "retracted": ("sent", "retracting", "retracted"),
    "retraction_failed": ("sent", "retracting", "retraction_failed"),
}  # fmt: skip


@asynccontextmanager
async def _no_turn() -> Any:
    yield


@pytest.fixture(params=["in memory", "real"])
async def new_store(request: pytest.FixtureRequest) -> AsyncIterator[NewStore]:
    """Return what makes a publisher's store; all of them are of one ledger."""
    if request.param == "in memory":
        rows = Rows(Clock().now)
        yield lambda name: MemoryStore(rows, publisher=name, take_turn=_no_turn)
        return
    system: System = request.getfixturevalue("system")
    engine = database.new_engine(system.database, schema=SCHEMA)
    yield lambda name: Store(engine, publisher=name)
    await engine.dispose()


def an_offer(**values: Any) -> Post:
    return a_post(post_id=f"post-{uuid.uuid4().hex}", **values)


async def intend(store: Store, post: Post, *, attempt: int = 1) -> bool:
    return await store.record_intent(post, attempt=attempt, fence=3, at=datetime.now(UTC))


def a_sent(post: Post, *, at: datetime | None = None) -> Sent:
    now = at or datetime.now(UTC)
    attempt = Attempt(at=now, publisher="one", answer="published", fence=3, fence_begun_at=now)
    return Sent(post_id=post.post_id, at=now, attempt=attempt, publication="p", url="http://x/p")


def a_part(publisher: str) -> Attempt:
    return Attempt(
        at=datetime.now(UTC), publisher=publisher, answer="in part", fence=3, fence_begun_at=None
    )


def an_unsent(post: Post, *, attempt: int = 1, **values: Any) -> Unsent:
    return Unsent(post=post, attempt=attempt, at=datetime.now(UTC), why="held", **values)


async def bring(store: Store, post: Post, state: State) -> None:
    assert await intend(store, post)
    for step in WAYS[state]:
        if step == "sent":
            assert await store.record_sent(a_sent(post))
        elif step == "withdrawn":
            assert await store.record_unsent(an_unsent(post, is_ours=True))
        else:
            assert await store.record(post.post_id, step)


async def state_of(store: Store, post: Post) -> str | None:
    entry = await store.find(post.post_id)
    return entry.state if entry else None


async def test_of_two_intents_one_is_written(new_store: NewStore) -> None:
    one, other, post = new_store("one"), new_store("other"), an_offer()
    assert await one.find(post.post_id) is None
    assert await intend(one, post)
    assert not await intend(other, post)
    entry = await other.find(post.post_id)
    assert entry is not None
    assert (entry.publisher, entry.state, entry.attempt, entry.fence) == ("one", "intent", 1, 3)
    assert entry.labels == post.labels


@pytest.mark.parametrize(
    ("state", "attempt", "again"),
    [
        ("failed", 1, False), ("failed", 2, True), ("withdrawn", 1, False), ("withdrawn", 2, True),
        ("intent", 2, False), ("sent", 2, False), ("uncertain", 2, False), ("retracted", 2, False),
    ],
)  # fmt: skip
async def test_when_a_post_may_be_tried_again(
    new_store: NewStore, state: State, attempt: int, again: bool
) -> None:
    store, post = new_store("one"), an_offer()
    await bring(store, post, state)
    assert await intend(store, post, attempt=attempt) is again
    assert await state_of(store, post) == ("intent" if again else state)


@pytest.mark.parametrize("state", STATES)
async def test_only_what_may_follow_follows(new_store: NewStore, state: State) -> None:
    store = new_store("one")
    for after in ("uncertain", "failed", "retracting", "retracted", "retraction_failed"):
        post = an_offer()
        await bring(store, post, state)
        may = after in FOLLOWS[state]
        assert await store.record(post.post_id, after) is may
        assert await state_of(store, post) == (after if may else state)


async def test_a_send_is_written_once_and_with_what_proves_it(new_store: NewStore) -> None:
    store, post = new_store("one"), an_offer()
    assert not await store.record_sent(a_sent(post)), "there was no intent"
    await intend(store, post)
    sent = a_sent(post)
    assert await store.record_sent(sent)
    assert not await store.record_sent(sent)
    entry = await store.find(post.post_id)
    assert entry is not None
    assert (entry.publication, entry.url, entry.fence) == ("p", "http://x/p", 3)
    assert (entry.done_at, entry.begun_at, entry.fence_begun_at) == (sent.at,) * 3


@pytest.mark.parametrize("adopted", [True, False])
async def test_what_is_out_is_said_by_whoever_has_the_post(
    new_store: NewStore, adopted: bool
) -> None:
    """Else the second part of a thread, sent by whoever went on, stood there behind its take-back."""
    slow, other, post = new_store("slow"), new_store("other"), an_offer()
    await intend(slow, post)
    await slow.record_attempt(post.post_id, a_part("slow"), publication="1", url="http://x/1")
    await slow.record_attempt(post.post_id, a_part("slow"), publication="1 2")
    assert await other.adopt_intent(post.post_id, of="slow")
    await other.record_attempt(post.post_id, a_part("other"), publication="1 2 3")
    if not adopted:
        assert await other.record_sent(a_sent(post))
    before = await slow.find(post.post_id)
    await slow.record_attempt(post.post_id, a_part("slow"), publication="1", url="http://x/1")
    entry = await slow.find(post.post_id)
    assert before is not None
    assert entry is not None
    assert (entry.publication, entry.url) == (before.publication, before.url)
    assert entry.publication == ("1 2 3" if adopted else "p")
    assert len(entry.attempts) == len(before.attempts) + 1, "what it tried is kept all the same"


async def test_an_intent_is_withdrawn_by_whoever_has_it(new_store: NewStore) -> None:
    one, other, post = new_store("one"), new_store("other"), an_offer()
    await intend(one, post)
    mine = an_unsent(post, is_ours=True)
    assert not await other.record_unsent(mine)
    assert not await one.record_unsent(an_unsent(post)), "whoever wrote no intent may have sent it"
    assert not await other.adopt_intent(post.post_id, of="nobody")
    assert await other.adopt_intent(post.post_id, of="one")
    assert not await one.record_unsent(mine), "another publisher may be sending it"
    assert await state_of(one, post) == "intent"
    assert await other.record_unsent(mine)
    entry = await one.find(post.post_id)
    assert entry is not None
    assert (entry.state, entry.detail) == ("withdrawn", "held")


async def test_an_intent_that_its_publisher_left_is_adopted_by_one(new_store: NewStore) -> None:
    one, two, three, post = new_store("one"), new_store("two"), new_store("three"), an_offer()
    await intend(one, post)
    await two.leave_intent(post.post_id)  # It is not theirs.
    assert not await two.adopt_intent(post.post_id, of="")
    await one.leave_intent(post.post_id)
    assert await two.adopt_intent(post.post_id, of="")
    assert not await three.adopt_intent(post.post_id, of="")
    entry = await one.find(post.post_id)
    assert entry is not None
    assert (entry.state, entry.publisher) == ("intent", "two")


@pytest.mark.parametrize("state", STATES)
async def test_whoever_has_the_networks_answer_is_believed(
    new_store: NewStore, state: State
) -> None:
    one, post = new_store("one"), an_offer()
    await bring(one, post, state)
    assert await one.record_sent(a_sent(post)) is ("sent" in FOLLOWS[state])
    entry = await one.find(post.post_id)
    assert entry is not None
    if "sent" in FOLLOWS[state]:
        assert (entry.state, entry.publication, entry.hold_id) == ("sent", "p", None)


async def test_what_was_never_begun_is_withdrawn_too_and_stays_so(new_store: NewStore) -> None:
    one, other, post = new_store("one"), new_store("other"), an_offer()
    assert await one.record_unsent(an_unsent(post, hold_id="hold-1"))
    assert not await other.record_unsent(an_unsent(post)), "this attempt has its answer"
    assert not await intend(other, post), "and is not sent"
    entry = await other.find(post.post_id)
    assert entry is not None
    assert (entry.state, entry.attempt, entry.hold_id) == ("withdrawn", 1, "hold-1")
    assert await other.record_unsent(an_unsent(post, attempt=2))
    assert await intend(one, post, attempt=3)
    entry = await one.find(post.post_id)
    assert entry is not None
    assert (entry.state, entry.hold_id, entry.detail) == ("intent", None, "")


async def test_what_its_account_cannot_take_is_written_down_as_failed(new_store: NewStore) -> None:
    store, post = new_store("one"), an_offer()
    assert await store.record_unsent(an_unsent(post))
    assert not await store.record(post.post_id, "failed"), "this attempt was withdrawn"
    refused = an_unsent(post, attempt=2, state="failed")
    assert await store.record_unsent(refused)
    assert await state_of(store, post) == "failed"
    assert not await store.record_unsent(refused), "it has its answer"
    assert not await intend(store, post, attempt=2), "and is not sent"
    assert await intend(store, post, attempt=3)


@pytest.mark.parametrize("state", sorted(set(STATES) - UNSENT))
async def test_what_may_be_out_is_not_withdrawn(new_store: NewStore, state: State) -> None:
    store, post = new_store("one"), an_offer()
    await bring(store, post, state)
    assert not await store.record_unsent(an_unsent(post, attempt=2))
    assert await state_of(store, post) == state


async def test_what_was_sent_is_found_by_account_and_labels_the_newest_first(
    new_store: NewStore,
) -> None:
    store, begin = new_store("one"), datetime.now(UTC) + timedelta(days=300)
    account, second = f"a{uuid.uuid4().hex[:8]}", timedelta(seconds=1)
    coast, valley = {"line": "coast", "network": "n"}, {"line": "valley"}
    posts = [an_offer(account=account, labels=labels) for labels in (coast, coast, valley, coast, coast)]  # fmt: skip
    for number, post in enumerate(posts):
        await intend(store, post)
        await store.record_sent(a_sent(post, at=begin + number * second))
    known = await store.sent_labels(begin + second)
    mine = [labels for name, labels in known if name == account]
    assert sorted(mine, key=str) == [coast, valley]
    which: Any = {"account": account, "labels": [{"network": "n", "line": "coast"}]}
    since, until = begin + second, begin + 3 * second

    async def found(limit: int) -> list[str]:
        return [e.post_id for e in await store.sent_between(since, until, **which, limit=limit)]

    assert await found(10) == [posts[3].post_id, posts[1].post_id]
    assert await found(1) == [posts[3].post_id]
    assert await store.count_between(since, until, **which) == (2, 2)


async def test_a_retraction_that_was_left_is_taken_over_by_one(new_store: NewStore) -> None:
    one, other, post = new_store("one"), new_store("other"), an_offer()
    await bring(one, post, "retracting")
    assert post.post_id not in {e.post_id for e in await other.left_retracting(60)}
    assert post.post_id in {e.post_id for e in await other.left_retracting(-60)}
    await one.keep_retracting([post.post_id])
    assert not await other.adopt_retraction(post.post_id, left_s=60)
    assert await other.adopt_retraction(post.post_id, left_s=-60)
    await other.record(post.post_id, "retracted")
    assert not await other.adopt_retraction(post.post_id, left_s=-60)


async def test_what_a_hold_took_back_is_found_by_when_that_was(new_store: NewStore) -> None:
    store, post, asked = new_store("one"), an_offer(), an_offer()
    hold_id = f"hold-{uuid.uuid4().hex}"
    for one, hold in ((post, hold_id), (asked, None)):  # A person asked for the other.
        await bring(store, one, "sent")
        await store.record(one.post_id, "retracting", hold_id=hold)
    mine = (post.account, hold_id)
    assert mine not in await store.taken_back(60, -60)
    for one in (post, asked):
        await store.record(one.post_id, "retracted")
    found = await store.taken_back(60, -60)
    assert found.count(mine) == 1
    assert None not in {hold for _, hold in found}
    assert mine not in await store.taken_back(-60, -120)
    assert mine not in await store.taken_back(120, 60)
