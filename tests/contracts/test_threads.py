"""Threads of offers at every channel that has them: each part stands once, whatever comes between two."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from ops.embedded.system import System
from schemas.posts import Post
from services.kit.telemetry import Clock
from services.publisher.gate import Verdict
from services.publisher.proof import PART
from services.publisher.store import Store
from tests.builders import a_hold
from tests.channels import Case, a_case
from tests.contracts.test_faults import CANNOT_DELETE, quick, store
from tests.desk import Desk, Open
from tests.faulty import Fault

__all__ = ["quick", "store"]  # Fixtures.
NAMES = (
    "mastodon", "bluesky", "discord (bot)", "discord (webhook)", "slack", "telegram", "teams", "x",
)  # fmt: skip
PARTS = 3


class Looks(Clock):
    """A publisher's clock; `then` happens at a look at the clearance, counted from 1.

    One that is late is followed by another, behind a renewal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.looks, self.then = 0, dict[int, Callable[[], object]]()
        self.late: frozenset[int] = frozenset()

    def monotonic_s(self) -> float:
        self.looks += 1
        self.then.get(self.looks, lambda: None)()
        return super().monotonic_s() + (60 if self.looks in self.late else 0)


@dataclass
class Stage:
    """One account at its stand-in, and the clock by which its clearances run out."""

    name: str
    case: Case
    desk: Desk
    clock: Looks

    def thread(self, **values: Any) -> Post:
        name = uuid.uuid4().hex
        first, *rest = (f"{name} {number} of the tests" for number in range(PARTS))
        return self.desk.new_post("offer", text=first, thread=tuple(rest), **values)

    def standing(self, post: Post) -> list[int]:
        return [self.case.standing(text) for text in (post.text, *post.thread)]


@asynccontextmanager
async def a_stage(name: str, store: Store, system: System) -> AsyncIterator[Stage]:
    async with a_case(name, system) as case:
        clock = Looks()
        desk = Desk(store, f"a{uuid.uuid4().hex[:12]}", case.channel, clock=clock)
        await desk.send(desk.new_post("update"))  # A session is there, a connection is open.
        clock.looks = 0
        yield Stage(name, case, desk, clock)


@pytest.mark.parametrize("name", NAMES)
async def test_a_thread_stands_in_its_order_each_part_below_the_one_before(
    name: str, store: Store, system: System
) -> None:
    async with a_stage(name, store, system) as stage:
        post = stage.thread()
        outcome = await stage.desk.send(post)
        assert (outcome.result, stage.standing(post)) == ("published", [1] * PARTS)
        ids = (outcome.publication or "").split()
        assert len(ids) == PARTS
        texts = [made["text"] for made in stage.case.net.posts.values()][-PARTS:]
        assert texts == [post.text, *post.thread]
        if name == "mastodon":
            assert [stage.case.net.posts[i]["in_reply_to_id"] for i in ids] == [None, *ids[:-1]]
        if name == "bluesky":
            below = [stage.case.net.posts[uri]["reply"] for uri in ids[1:]]
            assert [reply["parent"]["uri"] for reply in below] == ids[:-1]
            assert {reply["root"]["uri"] for reply in below} == {ids[0]}


@pytest.mark.parametrize("name", NAMES)
async def test_each_part_looks_at_the_clearance_which_is_renewed_in_between(
    name: str, store: Store, system: System
) -> None:
    async with a_stage(name, store, system) as stage:
        stage.clock.late = frozenset({2, 4})
        post = stage.thread()
        outcome = await stage.desk.send(post)
        assert (outcome.result, stage.standing(post)) == ("published", [1] * PARTS)
        assert stage.clock.looks == PARTS + 2
        entry = await store.find(post.post_id)
        assert entry is not None
        tries = [one for one in entry.attempts if "fence_begun_at" in one]
        assert len(tries) == PARTS, "each part proves its fence"


@pytest.mark.parametrize("name", NAMES)
async def test_where_it_is_not_renewed_the_rest_goes_on_behind_another(
    name: str, store: Store, system: System
) -> None:
    async with a_stage(name, store, system) as stage:
        stage.clock.late = frozenset({2, 3, 5, 6})
        post = stage.thread()
        outcome = await stage.desk.send(post)
        assert (outcome.result, stage.standing(post)) == ("published", [1] * PARTS)
        entry = await store.find(post.post_id)
        assert entry is not None
        tries = [one for one in entry.attempts if one["answer"].startswith(PART)]
        assert len(tries) == 2
        assert all("fence_begun_at" in one for one in tries), "each part proves its fence"


@pytest.mark.parametrize("name", NAMES)
async def test_a_hold_between_two_parts_ends_the_thread_and_takes_back_what_is_out(
    name: str, store: Store, system: System
) -> None:
    async with a_stage(name, store, system) as stage:
        hold = a_hold("{}", take_back_s=3600, opened_at=Clock().now())
        stage.clock.late = frozenset({2})
        stage.clock.then[2] = lambda: stage.desk.gate.holds.apply(hold)
        post = stage.thread()
        await stage.desk.send(post)
        published, after = stage.desk.said[-2:]
        assert published.result == "published"
        assert published.reason.startswith(f"only 1 of {PARTS} parts went out: ")
        if name in CANNOT_DELETE:
            assert (after.result, stage.standing(post)) == ("retraction_failed", [1, 0, 0])
        else:
            assert (after.result, stage.standing(post)) == ("retracted", [0, 0, 0])


@pytest.mark.parametrize("fault", ["429", "reset before", "reset behind"])
@pytest.mark.parametrize("name", NAMES)
async def test_a_fault_at_the_second_part_doubles_none(
    name: str, fault: Fault, store: Store, system: System
) -> None:
    async with a_stage(name, store, system) as stage:
        stage.clock.then[2] = lambda: stage.case.breaks(fault)
        post = stage.thread()
        outcome = await stage.desk.send(post)
        standing = stage.standing(post)
        can = stage.case.channel.capabilities
        is_known = can.idempotent_s > 0 or (can.refuses_duplicates and fault == "reset before")
        if fault == "429" or is_known:
            assert (outcome.result, standing) == ("published", [1] * PARTS)
            return
        assert outcome.result == "uncertain"
        assert standing == [1, int(fault == "reset behind"), 0]
        entry = await store.find(post.post_id)
        assert entry is not None
        assert entry.publication, "the part that is known to stand is named"


@pytest.mark.parametrize("name", ["discord (webhook)", "discord (bot)", "mastodon"])
async def test_a_long_update_that_is_interrupted_says_nothing_twice(
    name: str, store: Store, system: System
) -> None:
    async with a_stage(name, store, system) as stage:
        words = " ".join(f"Sentence {n} of what there is to say about it." for n in range(160))
        stage.clock.then[2] = lambda: stage.case.breaks("429")
        outcome = await stage.desk.send(stage.desk.new_post("update", text=words))
        said = [post["text"].rsplit(" (", 1)[0] for post in stage.case.net.posts.values()][1:]
        assert outcome.result == "published"
        assert " ".join(said) == words


class Dies(Exception):
    """A publisher that ends."""


class UntilTheSecondLook(Open):
    """A gate whose publisher ends when it is asked again behind the first part."""

    def judge(self, post: Post) -> Verdict:
        if self.patience == 1:
            raise Dies
        return super().judge(post)


async def test_another_publisher_goes_on_where_the_ledger_says(
    store: Store, system: System
) -> None:
    async with a_stage("mastodon", store, system) as stage:
        stage.clock.late = frozenset({2, 3})
        stage.desk.gate = UntilTheSecondLook(patience=4)
        post = stage.thread()
        with pytest.raises(Dies):
            await stage.desk.send(post)
        assert stage.standing(post) == [1, 0, 0]
        stage.desk.gate = Open()
        asked = stage.case.faulty.asked if stage.case.faulty else 0
        outcome = await stage.desk.send(post)
        assert (outcome.result, stage.standing(post)) == ("published", [1] * PARTS)
        assert stage.case.faulty is not None
        assert stage.case.faulty.asked - asked == PARTS - 1, "the first was not sent again"
        assert outcome.url is not None


async def test_a_thread_that_is_too_late_for_its_rest_says_what_is_out(
    store: Store, system: System
) -> None:
    async with a_stage("slack", store, system) as stage:
        stage.clock.late = frozenset({2})
        post = stage.thread()
        stage.clock.then[2] = lambda: setattr(stage.desk.gate, "now", post.latest_at)
        outcome = await stage.desk.send(post)
        assert outcome.result == "published"
        assert outcome.reason.startswith(f"only 1 of {PARTS} parts went out")
        assert stage.standing(post) == [1, 0, 0]


async def test_a_channel_of_single_posts_refuses_a_thread(store: Store, system: System) -> None:
    async with a_case("apprise", system) as case:
        desk = Desk(store, f"a{uuid.uuid4().hex[:12]}", case.channel)
        outcome = await desk.send(desk.new_post("offer", thread=("and more",)))
        assert (outcome.result, outcome.reason) == (
            "failed", "thread: this channel takes posts of one part only",
        )  # fmt: skip
        assert case.net.posts == {}
