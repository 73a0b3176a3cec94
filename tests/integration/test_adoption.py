"""An intent between two publishers: who has the partition says what became of it, and nothing that was said is forgotten."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.kit.telemetry import Clock
from services.publisher.channels import NotSent, Unknown
from services.publisher.delivery import Delivery
from services.publisher.job import Job
from services.publisher.store import Store
from tests.builders import a_hold
from tests.fakes import FakeChannel
from tests.integration.test_hand_over import a_desk, store

__all__ = ["store"]  # A fixture.


async def test_of_what_another_adopted_and_lost_again_we_say_what_became(store: Store) -> None:
    """Both believed that the other would, and the offer was lost: it had adopted it when its partition was ours already."""
    channel = FakeChannel(Clock(), idempotent_s=0, reads_back="exact")
    channel.failures = [NotSent("no connection")]
    desk, settled = a_desk(store, channel), list[Job]()
    job = Job(desk.new_post("offer"), 1, settled.append, steps_aside=True)
    delivery = desk.delivery()
    await delivery.settle(job)
    other = Store(store.engine, publisher="other")
    assert await other.adopt_intent(job.post.post_id, of=store.publisher)
    desk.gate.holds.apply(a_hold("{}"))
    await delivery.settle(job)
    await asyncio.sleep(0.02)  # Kafka has acknowledged it.
    assert [said.result for said in desk.said] == ["held"]
    assert settled == [job]


@pytest.mark.parametrize("late", [False, True])
async def test_what_went_to_another_is_not_adopted_any_more_or_left_to_it_at_once(
    late: bool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, settled = a_desk(store, FakeChannel(Clock(), idempotent_s=0)), list[Job]()
    job = Job(desk.new_post("offer"), 1, settled.append)
    other = Store(store.engine, publisher="other")
    await other.record_intent(job.post, attempt=1, fence=1, at=Clock().now())
    await other.leave_intent(job.post.post_id)
    name = "adopt_intent" if late else "find"
    method = getattr(store, name)

    async def while_it_goes(*given: Any, **values: Any) -> Any:
        done = await method(*given, **values)
        job.dropped = True
        return done

    monkeypatch.setattr(store, name, while_it_goes)
    desk.gate.holds.apply(a_hold("{}"))
    await desk.delivery().settle(job)
    assert (desk.said, settled) == ([], [])
    entry = await store.find(job.post.post_id)
    assert entry is not None
    assert (entry.state, entry.publisher) == ("intent", "")


async def test_what_a_failed_send_said_is_kept_while_the_database_does_not_answer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its clearance had been renewed, and that was to be written down first: the offer went out twice."""
    channel = FakeChannel(Clock(), idempotent_s=0)
    channel.lost_answers = [Unknown("no answer")]
    desk, failures = a_desk(store, channel), [OSError("no connection")]

    async def failing(*_: Any) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr(Delivery, "_note_earlier", failing)
    post = desk.new_post("offer")
    assert (await desk.send(post)).result == "uncertain"
    assert (channel.tries, len(channel.standing)) == (1, 1)
