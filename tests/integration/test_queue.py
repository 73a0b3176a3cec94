"""The queue itself, on real PostgreSQL and a schema of its own: claims, next times, downtime, migrations."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from ops.embedded.system import System
from services.kit.broker import new_broker
from services.kit.cluster import Cluster
from services.kit.telemetry import Clock
from services.scheduler import counts, desk, lane_store
from services.scheduler.again import claim_stale, claim_unheard
from services.scheduler.app import VERSIONS
from services.scheduler.outcome_store import record_outcomes
from services.scheduler.store import Store
from services.scheduler.stream import Stream
from tests.builders import a_hold, a_release, an_outcome
from tests.migrating import down_and_up
from tests.queues import LONG_AGO, Queue, new_queue

S = timedelta(seconds=1)


@pytest.fixture
async def queue(system: System) -> AsyncIterator[Queue]:
    made = await new_queue(system)
    yield made
    await made.close()


async def test_what_is_due_is_claimed_once_in_order_and_what_is_later_is_not(queue: Queue) -> None:
    due = await queue.add(-2 * S, -1 * S, 0 * S)
    await queue.add(60 * S)
    claimed = await queue.claim()
    assert [one.post.post_id for one in claimed] == due
    assert {one.attempt for one in claimed} == {1}
    assert await queue.claim() == []


async def test_many_claim_at_once_and_each_offer_is_claimed_once(queue: Queue) -> None:
    ids = set()
    for line in range(20):
        ids |= set(await queue.add(*[-1 * S] * 50, line=f"line-{line}"))
    others = [Queue(queue.engine, Store(queue.engine), queue.lanes, queue.schema) for _ in range(6)]
    found = [
        one for claimed in await asyncio.gather(*(o.claim_all() for o in others)) for one in claimed
    ]
    found += await queue.claim_all()
    assert sorted(found) == sorted(ids)


async def test_a_held_lane_is_not_looked_at(queue: Queue) -> None:
    await queue.add(-1 * S)
    hold = a_hold('{line="coast"}')
    assert await queue.lanes.write_opened(hold)
    assert await queue.claim() == [], "from its first commit on"
    assert await queue.lanes.record_opened(hold) == 0, "it is known"
    await queue.lanes.apply_pending()
    assert await queue.claim() == []
    free = await queue.add(-1 * S, line="valley")
    assert [one.post.post_id for one in await queue.claim()] == free


async def test_an_offer_that_a_claim_did_not_see_is_found_at_the_next(queue: Queue) -> None:
    """The claim raised the lane's next time over it; it looks at its lanes once more."""
    await queue.add(-1 * S)
    await queue.claim()
    late = await queue.add(-1 * S, expect=False)
    assert [one.post.post_id for one in await queue.claim()] == late


async def test_a_next_time_that_a_crash_has_lost_is_found(queue: Queue) -> None:
    lost = await queue.add(-1 * S, expect=False)
    assert await queue.claim() == []
    await queue.store.look(everywhere=True)
    assert [one.post.post_id for one in await queue.claim()] == lost


async def test_what_fell_due_while_nobody_was_there_goes_by_the_plan(queue: Queue) -> None:
    (missed,) = await queue.add(timedelta(minutes=-10))
    (fresh,) = await queue.add(0 * S)
    await queue.run(
        "UPDATE posts SET ready_at = now() - interval '1 hour' WHERE post_id = :id", id=missed
    )
    await queue.store.pulse()
    await queue.run("UPDATE pulse SET alive_at = now() - interval '5 minutes'")
    returned_at = await queue.store.pulse()
    await queue.run(
        "UPDATE posts SET due_at = clock_timestamp(), ready_at = clock_timestamp() WHERE post_id = :id",
        id=fresh,
    )
    assert [one.post.post_id for one in await queue.claim(returned_at)] == [fresh]
    assert await queue.state(missed) == "review"
    assert await queue.store.pulse() == returned_at, "somebody was there since"


async def test_a_backlog_is_no_downtime(queue: Queue) -> None:
    (old,) = await queue.add(timedelta(minutes=-30))
    returned_at = await queue.store.pulse()
    assert [one.post.post_id for one in await queue.claim(returned_at)] == [old]


async def test_what_is_of_no_use_any_more_expires_with_a_reason(queue: Queue) -> None:
    (stale,) = await queue.add(timedelta(hours=-2))
    assert await queue.claim() == []
    async with queue.engine.connect() as connection:
        row = await desk.read_post(connection, stale)
    assert row is not None
    assert (row["state"], row["reason"]) == ("expired", "too late to be of use")


async def test_a_claim_that_nobody_hands_over_is_claimed_again_with_the_same_number(
    queue: Queue,
) -> None:
    (post_id,) = await queue.add(-1 * S)
    (first,) = await queue.claim()
    assert await claim_stale(queue.store.engine) == []
    await queue.run("UPDATE posts SET claimed_at = now() - interval '20 seconds'")
    (again,) = await claim_stale(queue.store.engine)
    assert again == first
    await queue.store.record_handed([post_id])
    await queue.run("UPDATE posts SET claimed_at = now() - interval '20 seconds'")
    assert await claim_stale(queue.store.engine) == []


async def test_an_offer_of_which_nothing_was_heard_is_handed_over_again_and_sent_by_nobody(
    queue: Queue,
) -> None:
    """What Kafka had deleted before a publisher read it was in hand for ever."""
    (post_id,) = await queue.add(-1 * S)
    (first,) = await queue.claim()
    await queue.store.record_handed([post_id])
    assert await claim_unheard(queue.engine) == [], "it may still be of use"
    await queue.run(
        "UPDATE posts SET due_at = now() - interval '2 hours', latest_at = now() - interval '90 minutes'"
    )
    assert await claim_unheard(queue.engine) == [], "it was handed over a moment ago"
    await queue.run("UPDATE posts SET changed_at = now() - interval '70 minutes'")
    (again,) = await claim_unheard(queue.engine)
    assert (again.post.post_id, again.attempt) == (post_id, first.attempt)
    assert again.post.latest_at < datetime.now(UTC)
    assert await claim_unheard(queue.engine) == [], "once"
    await queue.store.record_handed([post_id])
    assert await claim_unheard(queue.engine) == []


async def test_what_was_claimed_ahead_is_given_back_at_the_end(queue: Queue) -> None:
    (post_id,) = await queue.add(0.9 * S)
    assert len(await queue.claim()) == 1
    await queue.store.give_back([post_id])
    assert await queue.state(post_id) == "queued"
    assert len(await queue.claim()) == 1


async def test_a_cancellation_of_what_is_in_hand_is_answered_by_what_comes_of_it(
    queue: Queue,
) -> None:
    sent, held = await queue.add(-1 * S, -1 * S)
    await queue.claim()
    async with queue.engine.begin() as connection:
        for post_id in (sent, held):
            assert await desk.cancel_post(connection, post_id, author="ada") == "asked"
    await record_outcomes(
        queue.store.engine,
        [an_outcome(post_id=sent, result="published"), an_outcome(post_id=held, result="held")],
    )
    assert (await queue.state(sent), await queue.state(held)) == ("published", "cancelled")


async def test_a_million_past_due_are_settled_in_parts_and_the_lane_stays_shut_meanwhile(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.scheduler.lane_store.RECOVER_POSTS", 10)
    await queue.new_campaign(recovery={"plan": "resume"}, quiet_s=0)
    await queue.add(3600 * S)
    hold = a_hold('{line="coast"}')
    await queue.lanes.record_opened(hold)
    ids = await queue.add(*[-1 * S] * 25)
    await queue.lanes.record_released(a_release(hold, released_at=datetime.now(UTC)))
    rounds = 0
    while await queue.lanes.recover_lanes():
        rounds += 1
        assert await queue.claim() == []
    assert rounds == 2
    assert sorted(await queue.claim_all()) == sorted(ids)


@pytest.mark.parametrize("plan", ["shift", "spread"])
async def test_a_plan_moves_each_offer_once(
    queue: Queue, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.scheduler.lane_store.RECOVER_POSTS", 7)
    rate = {"per_hour": 3600} if plan == "spread" else {}
    await queue.new_campaign(recovery={"plan": plan} | rate, quiet_s=0)
    due = [random.Random(n).randrange(600, 6000) * S for n in range(20)]
    ids = await queue.add(*(due if plan == "shift" else [-1 * S] * 20))
    before = await _due(queue, ids)
    hold = a_hold('{line="coast"}', opened_at=datetime.now(UTC) - timedelta(seconds=100))
    await queue.lanes.record_opened(hold)
    await queue.lanes.record_released(a_release(hold, released_at=datetime.now(UTC)))
    while await queue.lanes.recover_lanes():
        pass
    after = await _due(queue, ids)
    if plan == "shift":
        moved = {after[one] - before[one] for one in ids}
        assert min(moved) >= 100 * S
        assert max(moved) < 110 * S
    else:
        times = sorted(after.values())
        gaps = [(later - one).total_seconds() for one, later in itertools.pairwise(times)]
        assert gaps == pytest.approx([1.0] * 19)


async def _due(queue: Queue, ids: list[str]) -> dict[str, datetime]:
    async with queue.engine.connect() as connection:
        rows = await desk.read_posts(connection, ids)
    return {row["post_id"]: row["due_at"] for row in rows}


async def test_counts_are_those_of_the_rows_whatever_happens_to_them(queue: Queue) -> None:
    ids = await queue.add(*[-1 * S] * 7, 3 * timedelta(days=1))
    await queue.add(-1 * S, line="valley")
    await queue.claim()
    await counts.sum_up(queue.engine)
    await queue.store.record_handed(ids[:3])
    await record_outcomes(
        queue.store.engine, [an_outcome(post_id=ids[0]), an_outcome(post_id=ids[1])]
    )
    await queue.run(
        "UPDATE posts SET due_at = due_at + interval '2 days', latest_at = latest_at + interval '2 days' WHERE post_id = :id",
        id=ids[2],
    )
    await queue.lanes.record_opened(a_hold('{line="coast"}'))
    for _ in range(2):
        async with queue.engine.connect() as connection:
            kept = await counts.by_state(connection)
            days = await counts.by_day(
                connection, begin=LONG_AGO.date(), end=LONG_AGO.date().replace(year=2099),
                campaign_id=queue.campaign,
            )  # fmt: skip
            statement = f"SELECT state, count(*) AS n FROM ({desk.POST}) q GROUP BY 1"  # noqa: S608  # Ours.
            rows = await connection.execute(text(statement))
            there = {row.state: row.n for row in rows}
        assert kept == there
        assert kept == {"published": 2, "handed": 1, "claimed": 5, "held": 1}
        assert sum(row["offers"] for row in days) == 9
        await counts.sum_up(queue.engine)


async def test_migrations_go_down_and_up_on_a_filled_database(queue: Queue) -> None:
    held = await queue.add(-1 * S, line="valley")
    await queue.lanes.record_opened(a_hold('{line="valley"}'))
    (post_id,) = await queue.add(-1 * S)
    await down_and_up(queue.engine, VERSIONS)
    assert [one.post.post_id for one in await queue.claim()] == [post_id]
    assert await queue.state(held[0]) == "held"


async def test_an_offer_that_came_too_late_expires_also_where_the_plan_is_to_shift(
    queue: Queue,
) -> None:
    """Found by random histories: it was shifted at each tick, for ever."""
    await queue.new_campaign(recovery={"plan": "shift"})
    (late,) = await queue.add(timedelta(hours=-2))
    assert await queue.claim() == []
    assert await queue.state(late) == "expired"


def a_stream(queue: Queue) -> Stream:
    """Return a stream of this queue whose Kafka does not answer."""
    return Stream(
        new_broker(Cluster("127.0.0.1:1"), client_id="test"), queue.store, queue.lanes,
        instance="test", clock=Clock(), registry=CollectorRegistry(), crash=lambda *_: None,
    )  # fmt: skip


async def test_an_offer_that_kafka_refuses_for_its_size_fails_and_no_other_does(
    queue: Queue,
) -> None:
    """The scheduler would end, claim it again when it is started anew, and end."""
    ids = await queue.add(-1 * S, -1 * S)
    claimed = [(0.0, number, one) for number, one in enumerate(await queue.claim())]
    stream = a_stream(queue)
    await stream._settle_too_large(claimed, [MessageSizeTooLargeError(), None])
    await queue.store.record_handed(ids)
    assert sorted([await queue.state(i) for i in ids]) == ["failed", "handed"]
    with pytest.raises(KafkaTimeoutError):
        await stream._settle_too_large(claimed, [None, KafkaTimeoutError()])


async def test_an_outcome_that_cannot_be_written_keeps_no_other_from_it(queue: Queue) -> None:
    ids = await queue.add(-1 * S, -1 * S, -1 * S)
    await queue.claim_all()
    await queue.store.record_handed(ids)
    stream = a_stream(queue)
    dead: list[tuple[Any, str]] = []

    async def keep(record: Any, why: str) -> None:
        dead.append((record, why))

    stream._emit_dead_letter = keep  # type: ignore[method-assign]
    attempts = (1, 2**40, 1)  # More than the column takes.
    outcomes = [an_outcome(post_id=i, attempt=n) for i, n in zip(ids, attempts, strict=True)]
    await stream._record_outcomes([(cast(Any, one.post_id), one) for one in outcomes])
    assert [await queue.state(i) for i in ids] == ["published", "handed", "published"]
    assert [record for record, _ in dead] == [ids[1]]
    assert "cannot be written" in dead[0][1]


async def test_what_was_changed_while_it_was_claimed_goes_out_as_it_is_now(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim has read the old words; it passes the offer over and reads it anew."""
    (post_id,) = await queue.add(-1 * S)

    async def change(*_: Any, **__: Any) -> None:
        statement = "UPDATE posts SET text = 'Changed', version = version + 1 WHERE post_id = :id"
        await queue.run(statement, id=post_id)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(queue.store, "_decide", change)
        assert await queue.claim() == []
    (claimed,) = await queue.claim()
    assert claimed.post.text == "Changed"


async def test_what_the_gate_sends_back_while_its_lane_recovers_is_not_left_in_it(
    queue: Queue,
) -> None:
    """Found by the fault campaign: three offers stood held for ever, in a lane that was open."""
    (post_id,) = await queue.add(timedelta(seconds=-1))
    await queue.claim_all()
    await queue.store.record_handed([post_id])
    await queue.run("UPDATE lanes SET state = 'recovering', recovers_at = clock_timestamp()")
    sent_back = an_outcome(post_id=post_id, result="held", hold_id="h-1")
    async with queue.engine.begin() as other:  # Another scheduler, in the middle of the recovery.
        (lane,) = await other.execute(text(lane_store._RECOVERING), {"count": 1})
        kept = {"lane": lane.lane_id, "now": lane.now, "since": lane.recovers_at, "count": 9}
        assert list(await other.execute(text(lane_store._KEPT_BACK), kept)) == []
        answer = asyncio.create_task(record_outcomes(queue.store.engine, [sent_back]))
        while not answer.done() and not await waits_for_a_lock(queue):  # noqa: ASYNC110  # PostgreSQL rings no bell.
            await asyncio.sleep(0.02)
        await other.execute(text(lane_store._OPEN), {"lanes": [lane.lane_id]})
    await answer
    async with queue.engine.connect() as connection:
        state = (await connection.execute(text("SELECT state FROM lanes"))).scalar_one()
    assert (await queue.state(post_id), state) == ("held", "recovering")


async def waits_for_a_lock(queue: Queue) -> bool:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE%'"
    async with queue.engine.connect() as connection:
        return bool((await connection.execute(text(waiting))).scalar_one())
