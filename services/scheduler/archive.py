"""The queue's archive: offers that were settled long ago move into partitions, by the month they were due.

So the queue stays as small as what is still of use. A partition can be detached and dropped; the scheduler
drops nothing. Counts stay as they were: they are of all offers. Whoever adds a column to `posts` or `outcomes` adds
it to its archive, in the same place.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import sql
from services.scheduler.answers import forget_answers

ROWS: Final = 2_000  # In one transaction.
EVERY_S: Final = 60.0
LOCK: Final = 7_003
_SETTLED: Final = """('published', 'expired', 'failed', 'uncertain', 'retracted', 'retraction_failed',
    'cancelled')"""
_OLDEST: Final = f"""
    SELECT due_at, clock_timestamp() AS now FROM posts WHERE state IN {_SETTLED} ORDER BY due_at LIMIT 1
"""  # noqa: S608  # Constants.
_MOVE: Final = f"""
    WITH old AS (
        SELECT post_id FROM posts WHERE state IN {_SETTLED} AND due_at < :before AND due_at < :month_end
        AND changed_at < :before ORDER BY due_at LIMIT :rows FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM posts USING old WHERE posts.post_id = old.post_id RETURNING posts.*
    ), told AS (
        DELETE FROM outcomes USING gone WHERE outcomes.post_id = gone.post_id
        RETURNING outcomes.*, gone.due_at
    ), kept AS (
        INSERT INTO outcomes_archive SELECT * FROM told
    )
    INSERT INTO posts_archive SELECT * FROM gone
"""  # noqa: S608  # Constants.
log = structlog.get_logger()


class Archive:
    """Moves what was due and settled more than `days` ago, by the database's clock."""

    def __init__(self, engine: AsyncEngine, *, days: int) -> None:
        self.engine, self.keep = engine, timedelta(days=days)

    async def keep_moving(self) -> None:
        """Move what has become old, for ever."""
        while True:
            try:
                moved = await self.move()
                async with self.engine.begin() as connection:
                    await forget_answers(connection)
            except (SQLAlchemyError, OSError) as error:
                log.error("archive", error=str(error))
                moved = 0
            await asyncio.sleep(0 if moved else EVERY_S)

    async def move(self) -> int:
        """Move some offers of one month; return how many."""
        async with self.engine.begin() as connection:
            mine = await connection.execute(
                sql("SELECT pg_try_advisory_xact_lock(:key)"), {"key": LOCK}
            )
            oldest = (await connection.execute(sql(_OLDEST))).one_or_none()
            if not mine.scalar_one() or oldest is None or oldest.due_at >= oldest.now - self.keep:
                return 0
            begin, end = _month(oldest.due_at)
            for table in ("posts_archive", "outcomes_archive"):
                await connection.execute(
                    sql(
                        f"CREATE TABLE IF NOT EXISTS {table}_{begin:%Y_%m} PARTITION OF {table}"
                        f" FOR VALUES FROM ('{begin.isoformat()}') TO ('{end.isoformat()}')"
                    )
                )
            values: dict[str, Any] = {
                "before": oldest.now - self.keep, "month_end": end, "rows": ROWS,
            }  # fmt: skip
            return (await connection.execute(sql(_MOVE), values)).rowcount


def _month(at: datetime) -> tuple[datetime, datetime]:
    begin = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return begin, (begin + timedelta(days=32)).replace(day=1)
