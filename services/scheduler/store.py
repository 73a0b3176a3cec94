"""The queue in PostgreSQL: what is due, and what was handed over.

A lane knows when its next offer is due (`next_due_at`), so that a tick looks only at lanes that have
something to send: what is held, paused or later costs nothing. Whoever adds an offer lowers that time behind
its commit; a claim that raised it without seeing the offer looks once more, at its next tick. What a crash
between the two leaves is found within half a minute.

The database's clock decides what is due.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.holds import HoldOpened
from schemas.posts import DuePost, Post
from services.kit.database import sql
from services.scheduler.recovery import Plan, Review, Slots, recover

SCHEMA: Final = "scheduler"
CLAIM_POSTS: Final = 1_000
CLAIM_LANES: Final = 50
AHEAD: Final = timedelta(seconds=1)  # Claimed so long before, and handed over on time.
AWAY: Final = timedelta(seconds=60)  # Nobody claimed for so long: the recovery plans decide.
_PLAN: Final = TypeAdapter(Plan)

POST_COLUMNS: Final = """
    p.post_id, p.account, p.text, p.language, p.due_at, p.latest_at, p.ready_at, p.campaign_id,
    p.attempt, p.media, p.card, p.thread, p.lane_id, p.version
"""
_PULSE: Final = """
    INSERT INTO pulse (id, alive_at, returned_at) VALUES (1, clock_timestamp(), 'epoch')
    ON CONFLICT (id) DO UPDATE SET alive_at = clock_timestamp(), returned_at =
        CASE WHEN clock_timestamp() - pulse.alive_at > :away THEN clock_timestamp() ELSE pulse.returned_at END
    RETURNING returned_at
"""
_LANES: Final = """
    SELECT l.lane_id, l.labels, l.campaign_id, c.recovery, clock_timestamp() AS now
    FROM lanes l JOIN campaigns c USING (campaign_id)
    WHERE l.state = 'open' AND l.running AND l.next_due_at <= clock_timestamp() + :ahead
    ORDER BY l.priority DESC, l.next_due_at LIMIT :lanes FOR UPDATE OF l SKIP LOCKED
"""
_PENDING: Final = "SELECT fact FROM holds WHERE NOT applied AND released_at IS NULL"
_DUE: Final = f"""
    SELECT {POST_COLUMNS} FROM unnest(CAST(:lanes AS bigint[])) AS one (lane_id)
    CROSS JOIN LATERAL (
        SELECT * FROM posts q WHERE q.lane_id = one.lane_id AND q.state = 'queued'
        AND q.due_at <= :until ORDER BY q.due_at LIMIT :count
    ) p ORDER BY p.due_at LIMIT :count
"""  # noqa: S608  # Constants.
# What somebody changed since it was read is passed over: the next tick reads it as it is.
_CLAIM: Final = """
    UPDATE posts p SET state = 'claimed', attempt = p.attempt + 1, claimed_at = :now, changed_at = :now
    FROM unnest(CAST(:ids AS text[]), CAST(:versions AS integer[])) AS seen (post_id, version)
    WHERE p.post_id = seen.post_id AND p.version = seen.version AND p.state = 'queued'
    RETURNING p.post_id
"""
_MIN: Final = "(SELECT min(due_at) FROM posts p WHERE p.lane_id = l.lane_id AND p.state = 'queued')"
_NEXT: Final = f"UPDATE lanes l SET next_due_at = {_MIN} WHERE lane_id = ANY(:lanes)"  # noqa: S608  # Ours.
_LOOK: Final = f"""
    UPDATE lanes l SET next_due_at = {_MIN} WHERE (CAST(:lanes AS bigint[]) IS NULL
        OR lane_id = ANY(:lanes)) AND state = 'open' AND next_due_at IS DISTINCT FROM {_MIN}
"""  # noqa: S608  # Constants.
_DECIDED: Final = """
    UPDATE posts p SET state = new.state, due_at = new.due_at, latest_at = new.latest_at,
        reason = new.reason, ready_at = CAST(:now AS timestamptz), changed_at = :now
    FROM unnest(CAST(:ids AS text[]), CAST(:states AS text[]), CAST(:due AS timestamptz[]),
                CAST(:latest AS timestamptz[]), CAST(:reasons AS text[]), CAST(:versions AS integer[]))
         AS new (post_id, state, due_at, latest_at, reason, version)
    WHERE p.post_id = new.post_id AND p.version = new.version AND p.state IN ('queued', 'held')
"""


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim found: offers to hand over, each at its time, and the database's time."""

    posts: list[DuePost]
    now: datetime
    is_full: bool = False  # There may be more at once.


class Store:
    """The scheduler's queue."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self._claimed_of: list[int] = []

    async def look(self, *, everywhere: bool = False) -> None:
        """Look again when the last claim's lanes, or all, are due next."""
        lanes = None if everywhere else self._claimed_of
        if lanes or everywhere:
            async with self.engine.begin() as connection:
                await connection.execute(sql(_LOOK), {"lanes": lanes})
        self._claimed_of = []

    async def pulse(self) -> datetime:
        """Say that a scheduler is there; return when the last time ended that none was."""
        async with self.engine.begin() as connection:
            row = await connection.execute(sql(_PULSE), {"away": AWAY})
            returned_at: datetime = row.scalar_one()
        return returned_at

    async def claim_due(self, returned_at: datetime) -> Claimed | None:
        """Claim what falls due within a second in lanes that may send; None where there is nothing.

        What was due before `returned_at`, while nobody was there to send it, goes the campaign's
        recovery plan.
        """
        async with self.engine.begin() as connection:
            found = await connection.execute(sql(_LANES), {"ahead": AHEAD, "lanes": CLAIM_LANES})
            pending = await pending_holds(connection)
            lanes = [
                lane
                for lane in found.mappings()
                if not any(hold.covers(lane["labels"]) for hold in pending)
            ]
            if not lanes:
                return None
            now = lanes[0]["now"]
            values: dict[str, Any] = {
                "lanes": [lane["lane_id"] for lane in lanes],
                "count": CLAIM_POSTS,
            }
            until = {"until": now + AHEAD}
            rows = (await connection.execute(sql(_DUE), values | until)).mappings().all()
            by_lane = {lane["lane_id"]: lane for lane in lanes}
            kinds = {row["post_id"]: _lateness(row, now, returned_at) for row in rows}
            for kind in ("missed", "too late"):
                late = [row for row in rows if kinds[row["post_id"]] == kind]
                await self._decide(connection, late, by_lane, now, is_missed=kind == "missed")
            wanted = [row for row in rows if kinds[row["post_id"]] == "on time"]
            seen = {
                "ids": [row["post_id"] for row in wanted],
                "versions": [row["version"] for row in wanted],
            }
            claim = await connection.execute(sql(_CLAIM), seen | {"now": now})
            claimed = {row.post_id for row in claim}
            await connection.execute(sql(_NEXT), values)
            self._claimed_of = values["lanes"]
        posts = [
            due_post(row, by_lane[row["lane_id"]]["labels"], attempt=row["attempt"] + 1)
            for row in rows
            if row["post_id"] in claimed
        ]
        return Claimed(posts, now, len(rows) == CLAIM_POSTS or len(lanes) == CLAIM_LANES)

    async def _decide(
        self,
        connection: AsyncConnection,
        late: Sequence[Any],
        lanes: dict[int, Any],
        now: datetime,
        *,
        is_missed: bool,
    ) -> None:
        """Settle what we are too late for: by the plan where nobody was there, else it expires."""
        by_campaign: dict[str, list[Any]] = {}
        for row in late:
            by_campaign.setdefault(row["campaign_id"], []).append(row)
        for campaign_id, rows in by_campaign.items():
            lane = lanes[rows[0]["lane_id"]]
            plan = _PLAN.validate_python(lane["recovery"]) if is_missed else Review()
            await settle(
                connection, campaign_id, rows, now=now, plan=plan,
                stopped=lambda row: now - row["due_at"], why="due while the scheduler was away",
            )  # fmt: skip

    async def give_back(self, post_ids: Sequence[str]) -> None:
        """Let others claim what we claimed and shall not hand over."""
        async with self.engine.begin() as connection:
            await connection.execute(
                sql(
                    "UPDATE posts SET state = 'queued', changed_at = clock_timestamp() "
                    "WHERE post_id = ANY(:ids) AND state = 'claimed'"
                ),
                {"ids": list(post_ids)},
            )
            await connection.execute(
                sql(
                    f"UPDATE lanes l SET next_due_at = {_MIN} WHERE lane_id IN"  # noqa: S608  # Ours.
                    " (SELECT lane_id FROM posts WHERE post_id = ANY(:ids))"
                ),
                {"ids": list(post_ids)},
            )

    async def record_handed(self, post_ids: Sequence[str]) -> None:
        """Write that Kafka acknowledged these."""
        async with self.engine.begin() as connection:
            await connection.execute(
                sql(
                    "UPDATE posts SET state = 'handed', changed_at = clock_timestamp() "
                    "WHERE post_id = ANY(:ids) AND state = 'claimed'"
                ),
                {"ids": list(post_ids)},
            )


async def pending_holds(connection: AsyncConnection) -> list[HoldOpened]:
    """Return open holds whose lanes are not written yet; there are any for milliseconds only."""
    rows = await connection.execute(sql(_PENDING))
    return [HoldOpened.model_validate(row.fact) for row in rows]


async def settle(
    connection: AsyncConnection,
    campaign_id: str,
    rows: Sequence[Any],
    *,
    now: datetime,
    plan: Plan,
    stopped: Callable[[Any], timedelta],
    why: str,
) -> None:
    """Decide for offers of one campaign that could not go out, and write it."""
    slots = await _slots(connection, campaign_id, now) if plan.plan == "spread" else Slots(now)
    before = slots.next_at
    decided = [
        recover(
            due_at=row["due_at"], latest_at=row["latest_at"], now=now, plan=plan,
            stopped=stopped(row), slots=slots, why=why,
        )
        for row in rows
    ]  # fmt: skip
    await connection.execute(
        sql(_DECIDED),
        {
            "now": now,
            "ids": [row["post_id"] for row in rows],
            "states": [one.state for one in decided],
            "due": [one.due_at for one in decided],
            "latest": [one.latest_at for one in decided],
            "reasons": [one.reason for one in decided],
            "versions": [row["version"] for row in rows],
        },
    )
    if slots.next_at != before:
        await connection.execute(
            sql("UPDATE campaigns SET next_slot_at = :at WHERE campaign_id = :id"),
            {"at": slots.next_at, "id": campaign_id},
        )


async def _slots(connection: AsyncConnection, campaign_id: str, now: datetime) -> Slots:
    statement = "SELECT next_slot_at FROM campaigns WHERE campaign_id = :id FOR UPDATE"
    row = (await connection.execute(sql(statement), {"id": campaign_id})).one()
    return Slots(row.next_slot_at or now)


def _lateness(
    row: Any, now: datetime, returned_at: datetime
) -> Literal["on time", "missed", "too late"]:
    """Say whether an offer fell due while nobody was there, or is of no use any more."""
    if max(row["due_at"], row["ready_at"]) < returned_at:
        return "missed"
    return "too late" if row["latest_at"] <= now else "on time"


def due_post(row: Any, labels: dict[str, str], *, attempt: int) -> DuePost:
    """Return a row of the queue as it is handed over."""
    post = Post.model_validate(
        {
            "post_id": row["post_id"],
            "kind": "offer",
            "account": row["account"],
            "text": row["text"],
            "labels": labels,
            "language": row["language"],
            "due_at": row["due_at"],
            "latest_at": row["latest_at"],
            "campaign_id": row["campaign_id"],
            "media": row["media"],
            "card": row["card"],
            "thread": row["thread"],
        }
    )
    return DuePost(post=post, attempt=attempt)
