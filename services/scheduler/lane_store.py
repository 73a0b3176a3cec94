"""Lanes in PostgreSQL: held, released, recovering. A hold writes no row of a post.

A hold counts from its first commit: until its lanes are written, a claim looks at it itself.

Whoever makes a lane holds a shared advisory lock and whoever takes a hold in an exclusive one: so a
new lane has seen every hold, or the hold will see the lane.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.holds import HoldOpened, HoldReleased, OpenHolds
from schemas.labels import Labels
from services.kit.database import sql
from services.scheduler.event_store import add_event
from services.scheduler.lanes import covered, held_by, lane_key
from services.scheduler.recovery import Plan, recovers_at
from services.scheduler.store import POST_COLUMNS, pending_holds, settle

RECOVER_LANES: Final = 20
RECOVER_POSTS: Final = 1_000  # Of one lane, in one transaction.
HOLDS_LOCK: Final = 7_001
_PLAN: Final = TypeAdapter(Plan)
_RECOVERING: Final = """
    SELECT l.lane_id, l.campaign_id, l.stopped_at, l.recovers_at, l.shift_before, c.recovery,
        clock_timestamp() AS now
    FROM lanes l JOIN campaigns c USING (campaign_id)
    WHERE l.state = 'recovering' AND l.running AND l.recovers_at <= clock_timestamp()
    ORDER BY l.recovers_at LIMIT :count FOR UPDATE OF l SKIP LOCKED
"""
# What a stop kept back, and was not settled yet; `shift` moves what is due later as well, the latest first.
_KEPT_BACK: Final = f"""
    SELECT {POST_COLUMNS} FROM posts p WHERE p.lane_id = :lane AND (p.state = 'held'
        OR (p.state = 'queued' AND p.due_at <= :now AND p.ready_at < :since))
    ORDER BY p.due_at LIMIT :count FOR UPDATE
"""  # noqa: S608  # Constants.
_ALL: Final = f"""
    SELECT {POST_COLUMNS} FROM posts p WHERE p.lane_id = :lane AND p.state IN ('queued', 'held')
        AND p.due_at < :before ORDER BY p.due_at DESC LIMIT :count FOR UPDATE
"""  # noqa: S608  # Constants.
_KNOWN: Final = """
    SELECT l.campaign_id, l.lane_key, l.lane_id
    FROM unnest(CAST(:campaigns AS text[]), CAST(:keys AS text[])) AS wanted (campaign_id, lane_key)
    JOIN lanes l USING (campaign_id, lane_key)
"""
_OPEN: Final = """
    UPDATE lanes l SET state = 'open', recovers_at = NULL, stopped_at = NULL, shift_before = NULL,
        next_due_at = (SELECT min(due_at) FROM posts p WHERE p.lane_id = l.lane_id AND p.state = 'queued')
    WHERE lane_id = ANY(:lanes)
"""


class LaneStore:
    """The lanes, and the holds as the scheduler knows them."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._expecting, self._expected = asyncio.Lock(), dict[int, datetime]()

    async def open_holds(self) -> OpenHolds:
        """Return the holds as far as this database knows them."""
        holds = OpenHolds()
        async with self.engine.connect() as connection:
            rows = await connection.execute(
                sql("SELECT hold_id FROM holds WHERE released_at IS NOT NULL")
            )
            holds.released_before({row.hold_id for row in rows})
            for fact in await _open_facts(connection):
                holds.apply(fact)
        return holds

    async def record_opened(self, hold: HoldOpened) -> int:
        """Hold the lanes it covers; returns how many. A hold that was released stays released."""
        if not await self.write_opened(hold):
            return 0
        return await self.apply_opened(hold)

    async def write_opened(self, hold: HoldOpened) -> bool:
        """Write that a hold is open: from now on no claim takes what it covers. False: it was known."""
        async with self.engine.begin() as connection:
            new = await connection.execute(
                sql(
                    "INSERT INTO holds (hold_id, fact, applied) VALUES (:id, CAST(:fact AS jsonb), false)"
                    " ON CONFLICT DO NOTHING"
                ),
                {"id": hold.hold_id, "fact": hold.model_dump_json()},
            )
            return bool(new.rowcount)

    async def apply_pending(self) -> None:
        """Write the lanes of holds that somebody wrote and did not apply."""
        async with self.engine.connect() as connection:
            pending = await pending_holds(connection)
        for hold in pending:
            await self.apply_opened(hold)

    async def apply_opened(self, hold: HoldOpened) -> int:
        """Write the lanes that an open hold covers; returns how many."""
        async with self.engine.begin() as connection:
            await _lock_holds(connection, shared=False)
            mine = await connection.execute(
                sql(
                    "UPDATE holds SET applied = true WHERE hold_id = :id AND NOT applied"
                    " RETURNING released_at"
                ),
                {"id": hold.hold_id},
            )
            row = mine.one_or_none()
            if row is None or row.released_at is not None:
                return 0
            rows = await connection.execute(sql("SELECT lane_id, labels FROM lanes"))
            lanes = covered(((row.lane_id, row.labels) for row in rows), hold)
            values = {"lanes": lanes, "id": hold.hold_id, "at": hold.opened_at}
            await connection.execute(  # A lane that was made meanwhile knows of it.
                sql(
                    "INSERT INTO lane_holds (lane_id, hold_id)"
                    " SELECT unnest(CAST(:lanes AS bigint[])), :id ON CONFLICT DO NOTHING"
                ),
                values,
            )
            await connection.execute(
                sql(
                    "UPDATE lanes SET state = 'held', recovers_at = NULL, shift_before = NULL,"
                    " stopped_at = COALESCE(stopped_at, :at) WHERE lane_id = ANY(:lanes)"
                ),
                values,
            )
            await add_event(
                connection, "hold.opened", hold.model_dump(mode="json") | {"lanes": len(lanes)}
            )
        return len(lanes)

    async def record_released(self, fact: HoldReleased) -> int:
        """End a hold; lanes with no other hold begin to recover. Returns how many do."""
        async with self.engine.begin() as connection:
            await _lock_holds(connection, shared=False)
            new = await connection.execute(
                sql(
                    "INSERT INTO holds (hold_id, released_at) VALUES (:id, :at) ON CONFLICT (hold_id) "
                    "DO UPDATE SET released_at = excluded.released_at WHERE holds.released_at IS NULL"
                ),
                {"id": fact.hold_id, "at": fact.released_at},
            )
            if not new.rowcount:
                return 0
            await add_event(connection, "hold.released", fact.model_dump(mode="json"))
            freed = await connection.execute(
                sql("DELETE FROM lane_holds WHERE hold_id = :id RETURNING lane_id"),
                {"id": fact.hold_id},
            )
            rows = await connection.execute(
                sql(
                    "SELECT l.lane_id, c.quiet_s FROM lanes l JOIN campaigns c USING (campaign_id) "
                    "WHERE l.lane_id = ANY(:lanes) AND NOT EXISTS "
                    "(SELECT 1 FROM lane_holds h WHERE h.lane_id = l.lane_id)"
                ),
                {"lanes": [row.lane_id for row in freed]},
            )
            recovering = [
                (row.lane_id, recovers_at(fact.released_at, quiet_s=row.quiet_s)) for row in rows
            ]
            await connection.execute(
                sql(
                    "UPDATE lanes SET state = 'recovering', recovers_at = new.at FROM"
                    " unnest(CAST(:lanes AS bigint[]), CAST(:times AS timestamptz[])) AS new (lane_id, at)"
                    " WHERE lanes.lane_id = new.lane_id"
                ),
                {"lanes": [lane for lane, _ in recovering], "times": [at for _, at in recovering]},
            )
        return len(recovering)

    async def expect(self, times: dict[int, datetime]) -> None:
        """Say that lanes have offers due then, behind the commit that wrote them: the earliest counts.

        A claim that has not seen them looks at its lanes once more (`Store.claim_due`). Who waits while
        others say theirs has it said together with them.
        """
        self._expect_also(times)
        async with self._expecting:
            said, self._expected = self._expected, {}
            if not said:  # Somebody said ours.
                return
            try:
                await self._expect_all(said)
            except BaseException:
                self._expect_also(said)
                raise

    def _expect_also(self, times: dict[int, datetime]) -> None:
        for lane, at in times.items():
            self._expected[lane] = min(at, self._expected.get(lane, at))

    async def _expect_all(self, times: dict[int, datetime]) -> None:
        lanes = sorted(times)
        async with self.engine.begin() as connection:
            await connection.execute(
                sql(
                    "UPDATE lanes SET next_due_at = LEAST(next_due_at, new.at) FROM"
                    " unnest(CAST(:lanes AS bigint[]), CAST(:times AS timestamptz[])) AS new (lane_id, at)"
                    " WHERE lanes.lane_id = new.lane_id"
                    " AND (next_due_at IS NULL OR next_due_at > new.at)"
                ),
                {"lanes": lanes, "times": [times[lane] for lane in lanes]},
            )

    async def recover_lanes(self) -> bool:
        """Settle what stops have kept back in lanes whose quiet period is over; True: there is more.

        A lane opens when nothing is left; until then nothing of it goes out.
        """
        async with self.engine.begin() as connection:
            found = await connection.execute(sql(_RECOVERING), {"count": RECOVER_LANES})
            lanes = found.mappings().all()
            done = [lane["lane_id"] for lane in lanes if not await _recover_some(connection, lane)]
            if done:
                await connection.execute(sql(_OPEN), {"lanes": done})
        return len(done) < len(lanes) or len(lanes) == RECOVER_LANES


async def _recover_some(connection: AsyncConnection, lane: Any) -> bool:
    """Settle some offers of a lane; True where there are more."""
    now, plan = lane["now"], _PLAN.validate_python(lane["recovery"])
    stopped_at: datetime = lane["stopped_at"] or now
    is_shift = plan.plan == "shift"
    values = {
        "lane": lane["lane_id"], "now": now, "since": lane["recovers_at"], "count": RECOVER_POSTS,
        "before": lane["shift_before"] or datetime.max.replace(tzinfo=now.tzinfo),
    }  # fmt: skip
    statement = _ALL if is_shift else _KEPT_BACK
    rows = (await connection.execute(sql(statement), values)).mappings().all()
    if rows:
        await settle(
            connection, lane["campaign_id"], rows, now=now, plan=plan,
            stopped=lambda _: now - stopped_at, why="due during a stop",
        )  # fmt: skip
    if is_shift and len(rows) == RECOVER_POSTS:
        await connection.execute(
            sql("UPDATE lanes SET shift_before = :at WHERE lane_id = :lane"),
            {"at": rows[-1]["due_at"], "lane": lane["lane_id"]},
        )
    return len(rows) == RECOVER_POSTS


async def known_lanes(
    connection: AsyncConnection, keys: Collection[tuple[str, str]]
) -> dict[tuple[str, str], int]:
    """Return those lanes that there are, of campaigns and the keys of labels."""
    found = await connection.execute(
        sql(_KNOWN),
        {"campaigns": [campaign for campaign, _ in keys], "keys": [key for _, key in keys]},
    )
    return {(row.campaign_id, row.lane_key): row.lane_id for row in found}


async def lane_of(
    connection: AsyncConnection, campaign_id: str, labels: Labels, *, running: bool, priority: int
) -> int:
    """Return the lane of these labels, made under the holds that are open."""
    key = lane_key(labels)
    find = sql("SELECT lane_id FROM lanes WHERE campaign_id = :campaign AND lane_key = :key")
    values = {"campaign": campaign_id, "key": key}
    known = (await connection.execute(find, values)).scalar_one_or_none()
    if known is not None:
        return int(known)
    await _lock_holds(connection, shared=True)
    holding = held_by(labels, await _open_facts(connection))
    made = await connection.execute(
        sql(
            "INSERT INTO lanes (campaign_id, labels, lane_key, state, running, priority, stopped_at) "
            "VALUES (:campaign, CAST(:labels AS jsonb), CAST(:key AS text), :state, :running, :priority,"
            " CASE WHEN :state = 'held' OR NOT :running THEN clock_timestamp() END) "
            "ON CONFLICT (campaign_id, lane_key) DO NOTHING RETURNING lane_id"
        ),
        values
        | {
            "labels": key,  # A parameter of its own: as jsonb PostgreSQL would write it differently.
            "state": "held" if holding else "open",
            "running": running,
            "priority": priority,
        },
    )
    lane = made.scalar_one_or_none()
    if lane is None:  # Somebody else made it in this moment.
        return int((await connection.execute(find, values)).scalar_one())
    if holding:
        await connection.execute(
            sql("INSERT INTO lane_holds (lane_id, hold_id) VALUES (:lane, :hold)"),
            [{"lane": lane, "hold": hold_id} for hold_id in holding],
        )
    return int(lane)


async def set_running(connection: AsyncConnection, campaign_id: str, *, running: bool) -> None:
    """Let a campaign's lanes send, or stop them; what falls due meanwhile is settled as behind a hold."""
    if running:
        statement = (
            "UPDATE lanes SET running = true, state = CASE WHEN state = 'open' AND stopped_at IS NOT NULL"
            " THEN 'recovering' ELSE state END, recovers_at = COALESCE(recovers_at, clock_timestamp())"
            " WHERE campaign_id = :id AND NOT running"
        )
    else:
        statement = (
            "UPDATE lanes SET running = false, stopped_at = COALESCE(stopped_at, clock_timestamp())"
            " WHERE campaign_id = :id AND running"
        )
    await connection.execute(sql(statement), {"id": campaign_id})


async def _open_facts(connection: AsyncConnection) -> Sequence[HoldOpened]:
    rows = await connection.execute(
        sql("SELECT fact FROM holds WHERE released_at IS NULL AND fact IS NOT NULL")
    )
    return [HoldOpened.model_validate(row.fact) for row in rows]


async def _lock_holds(connection: AsyncConnection, *, shared: bool) -> None:
    how = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    await connection.execute(sql(f"SELECT {how}(:key)"), {"key": HOLDS_LOCK})
