"""The queue in PostgreSQL: claims, lanes under holds, outcomes. A hold writes no row of a post.

Whoever makes a lane holds a shared advisory lock and whoever takes a hold in an exclusive one: so a
new lane has seen every hold, or the hold will see the lane.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.holds import HoldOpened, HoldReleased, OpenHolds
from schemas.posts import DuePost, Outcome, Post
from services.scheduler.lanes import covered, held_by, lane_key
from services.scheduler.life import after
from services.scheduler.recovery import recover, recovers_at

SCHEMA: Final = "scheduler"
CLAIM_POSTS: Final = 200
CLAIM_STALE_S: Final = 15  # A scheduler that died in between handed over or did not: say it again.
RECOVER_LANES: Final = 20
HOLDS_LOCK: Final = 7_001

_DUE = """
    SELECT p.post_id FROM lanes l CROSS JOIN LATERAL (
        SELECT post_id, due_at FROM posts
        WHERE lane_id = l.lane_id AND state = 'queued' AND due_at <= :now
        ORDER BY due_at LIMIT :count FOR UPDATE SKIP LOCKED
    ) p WHERE l.state = 'open' ORDER BY p.due_at LIMIT :count
"""
_POST = """
    p.post_id, p.account, p.text, p.language, p.due_at, p.latest_at, p.campaign_id, p.attempt,
    l.labels
"""


class Store:
    """The scheduler's tables."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def claim_due(self, now: datetime) -> list[DuePost]:
        """Claim due posts of open lanes, and again those whose claimer went silent."""
        claim = f"""
            WITH due AS ({_DUE}), stale AS (
                SELECT post_id FROM posts WHERE state = 'claimed'
                AND claimed_at < CAST(:now AS timestamptz) - make_interval(secs => :stale_s)
                LIMIT :count FOR UPDATE SKIP LOCKED
            )
            UPDATE posts p SET state = 'claimed', claimed_at = :now, changed_at = now(),
                attempt = p.attempt + CASE WHEN p.state = 'claimed' THEN 0 ELSE 1 END
            FROM lanes l WHERE l.lane_id = p.lane_id
                AND p.post_id IN (SELECT post_id FROM due UNION SELECT post_id FROM stale)
            RETURNING {_POST}
        """  # noqa: S608  # Both parts are constants of this file.
        values = {"now": now, "count": CLAIM_POSTS, "stale_s": CLAIM_STALE_S}
        async with self.engine.begin() as connection:
            await connection.execute(text(_EXPIRE), values)
            rows = (await connection.execute(text(claim), values)).mappings().all()
        return [_due(row) for row in rows]

    async def record_handed(self, post_ids: Sequence[str]) -> None:
        """Write that Kafka acknowledged these."""
        await self._write(
            "UPDATE posts SET state = 'handed', changed_at = now() "
            "WHERE post_id = ANY(:ids) AND state = 'claimed'",
            ids=list(post_ids),
        )

    async def record_outcomes(self, outcomes: Sequence[Outcome], now: datetime) -> None:
        """Move offers as their outcomes say; again is the same."""
        async with self.engine.begin() as connection:
            for outcome in outcomes:
                await self._record_outcome(connection, outcome, now)

    async def _record_outcome(
        self, connection: AsyncConnection, outcome: Outcome, now: datetime
    ) -> None:
        found = await connection.execute(
            text("SELECT state, attempt, lane_id FROM posts WHERE post_id = :id FOR UPDATE"),
            {"id": outcome.post_id},
        )
        row = found.one_or_none()
        state = after(row.state, row.attempt, outcome) if row is not None else None
        if row is None or state is None:
            return
        await connection.execute(
            text(
                "UPDATE posts SET state = :state, reason = :reason, changed_at = now(), "
                "hold_id = COALESCE(:hold_id, hold_id), url = COALESCE(:url, url), "
                "publication = COALESCE(:publication, publication) WHERE post_id = :id"
            ),
            {
                "state": state,
                "reason": outcome.reason,
                "hold_id": outcome.hold_id,
                "url": outcome.url,
                "publication": outcome.publication,
                "id": outcome.post_id,
            },
        )
        if state == "held":  # Its lane may have recovered already, or not know of the hold yet.
            await connection.execute(
                text(
                    "UPDATE lanes l SET state = 'recovering', recovers_at = "
                    "CAST(:now AS timestamptz) + make_interval(secs => c.quiet_s) "
                    "FROM campaigns c WHERE c.campaign_id = l.campaign_id "
                    "AND l.lane_id = :lane AND l.state = 'open'"
                ),
                {"now": now, "lane": row.lane_id},
            )

    async def open_holds(self) -> OpenHolds:
        """Return the holds as far as this database knows them."""
        holds = OpenHolds()
        async with self.engine.connect() as connection:
            rows = await connection.execute(text("SELECT * FROM holds"))
            for row in rows:
                if row.released_at is not None:
                    released = {
                        "hold_id": row.hold_id,
                        "released_at": row.released_at,
                        "reason": "known",
                    }
                    holds.apply(HoldReleased.model_validate(released))
                elif row.fact is not None:
                    holds.apply(HoldOpened.model_validate(row.fact))
        return holds

    async def record_opened(self, hold: HoldOpened) -> int:
        """Hold the lanes it covers; returns how many. A hold that was released stays released."""
        async with self.engine.begin() as connection:
            await _lock_holds(connection, shared=False)
            new = await connection.execute(
                text(
                    "INSERT INTO holds (hold_id, fact) VALUES (:id, CAST(:fact AS jsonb)) ON CONFLICT DO NOTHING"
                ),
                {"id": hold.hold_id, "fact": hold.model_dump_json()},
            )
            if not new.rowcount:
                return 0
            rows = await connection.execute(text("SELECT lane_id, labels FROM lanes"))
            lanes = covered(((row.lane_id, row.labels) for row in rows), hold)
            await connection.execute(
                text(
                    "INSERT INTO lane_holds (lane_id, hold_id) SELECT unnest(CAST(:lanes AS bigint[])), :id"
                ),
                {"lanes": lanes, "id": hold.hold_id},
            )
            await connection.execute(
                text(
                    "UPDATE lanes SET state = 'held', recovers_at = NULL WHERE lane_id = ANY(:lanes)"
                ),
                {"lanes": lanes},
            )
        return len(lanes)

    async def record_released(self, fact: HoldReleased) -> int:
        """End a hold; lanes with no other hold begin to recover. Returns how many do."""
        async with self.engine.begin() as connection:
            await _lock_holds(connection, shared=False)
            await connection.execute(
                text(
                    "INSERT INTO holds (hold_id, released_at) VALUES (:id, :at) ON CONFLICT (hold_id) "
                    "DO UPDATE SET released_at = COALESCE(holds.released_at, excluded.released_at)"
                ),
                {"id": fact.hold_id, "at": fact.released_at},
            )
            freed = await connection.execute(
                text("DELETE FROM lane_holds WHERE hold_id = :id RETURNING lane_id"),
                {"id": fact.hold_id},
            )
            rows = await connection.execute(
                text(
                    "SELECT l.lane_id, c.quiet_s FROM lanes l JOIN campaigns c USING (campaign_id) "
                    "WHERE l.lane_id = ANY(:lanes) AND NOT EXISTS "
                    "(SELECT 1 FROM lane_holds h WHERE h.lane_id = l.lane_id)"
                ),
                {"lanes": [row.lane_id for row in freed]},
            )
            recovering = [
                {"lane": row.lane_id, "at": recovers_at(fact.released_at, quiet_s=row.quiet_s)}
                for row in rows
            ]
            if recovering:
                await connection.execute(
                    text(
                        "UPDATE lanes SET state = 'recovering', recovers_at = :at WHERE lane_id = :lane"
                    ),
                    recovering,
                )
        return len(recovering)

    async def recover_lanes(self, now: datetime) -> int:
        """Open lanes whose quiet period is over, each offer as the recovery decides."""
        async with self.engine.begin() as connection:
            found = await connection.execute(
                text(
                    "SELECT lane_id FROM lanes WHERE state = 'recovering' AND recovers_at <= :now "
                    "ORDER BY recovers_at LIMIT :count FOR UPDATE SKIP LOCKED"
                ),
                {"now": now, "count": RECOVER_LANES},
            )
            lanes = [row.lane_id for row in found]
            if not lanes:
                return 0
            rows = await connection.execute(
                text(
                    "SELECT post_id, due_at, latest_at FROM posts WHERE lane_id = ANY(:lanes) AND "
                    "(state = 'held' OR (state = 'queued' AND due_at <= :now)) FOR UPDATE"
                ),
                {"lanes": lanes, "now": now},
            )
            decided = [
                {
                    "id": row.post_id,
                    "state": recover(due_at=row.due_at, latest_at=row.latest_at, now=now),
                }
                for row in rows
            ]
            if decided:
                await connection.execute(
                    text(
                        "UPDATE posts SET state = :state, changed_at = now(), "
                        "reason = 'due during a hold' WHERE post_id = :id"
                    ),
                    decided,
                )
            await connection.execute(
                text(
                    "UPDATE lanes SET state = 'open', recovers_at = NULL WHERE lane_id = ANY(:lanes)"
                ),
                {"lanes": lanes},
            )
        return len(lanes)

    async def _write(self, statement: str, **values: Any) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(text(statement), values)


_EXPIRE = """
    UPDATE posts p SET state = 'expired', reason = 'too late to be of use', changed_at = now()
    WHERE post_id IN (
        SELECT e.post_id FROM lanes l CROSS JOIN LATERAL (
            SELECT post_id FROM posts WHERE lane_id = l.lane_id AND state = 'queued'
            AND due_at <= :now AND latest_at <= :now LIMIT :count FOR UPDATE SKIP LOCKED
        ) e WHERE l.state = 'open' LIMIT :count
    )
"""


async def lane_of(connection: AsyncConnection, campaign_id: str, labels: dict[str, str]) -> int:
    """Return the lane of these labels, made under the holds that are open."""
    key = lane_key(labels)
    find = text("SELECT lane_id FROM lanes WHERE campaign_id = :campaign AND lane_key = :key")
    values = {"campaign": campaign_id, "key": key}
    known = (await connection.execute(find, values)).scalar_one_or_none()
    if known is not None:
        return int(known)
    await _lock_holds(connection, shared=True)
    rows = await connection.execute(
        text("SELECT fact FROM holds WHERE released_at IS NULL AND fact IS NOT NULL")
    )
    holding = held_by(labels, [HoldOpened.model_validate(row.fact) for row in rows])
    made = await connection.execute(
        text(
            "INSERT INTO lanes (campaign_id, labels, lane_key, state) "
            "VALUES (:campaign, CAST(:key AS jsonb), :key, :state) "
            "ON CONFLICT (campaign_id, lane_key) DO NOTHING RETURNING lane_id"
        ),
        values | {"state": "held" if holding else "open"},
    )
    lane = made.scalar_one_or_none()
    if lane is None:  # Somebody else made it in this moment.
        return int((await connection.execute(find, values)).scalar_one())
    if holding:
        await connection.execute(
            text("INSERT INTO lane_holds (lane_id, hold_id) VALUES (:lane, :hold)"),
            [{"lane": lane, "hold": hold_id} for hold_id in holding],
        )
    return int(lane)


async def _lock_holds(connection: AsyncConnection, *, shared: bool) -> None:
    how = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
    await connection.execute(text(f"SELECT {how}(:key)"), {"key": HOLDS_LOCK})


def _due(row: Any) -> DuePost:
    post = Post(
        post_id=row["post_id"],
        kind="offer",
        account=row["account"],
        text=row["text"],
        labels=row["labels"],
        language=row["language"],
        due_at=row["due_at"],
        latest_at=row["latest_at"],
        campaign_id=row["campaign_id"],
    )
    return DuePost(post=post, attempt=row["attempt"])
