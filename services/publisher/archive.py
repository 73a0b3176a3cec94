"""The ledger's archive: what was settled long ago moves into partitions, one a month.

So the hot table stays small, however much was published. A partition can be detached and dropped; the
publisher itself drops nothing of it. It forgets who was told what, and posts of its feed from 90 days ago.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import sql
from services.kit.telemetry import Clock
from services.publisher.ledger import Entry
from services.publisher.store import ARCHIVE, entry_of

ROWS: Final = 5_000  # In one transaction: it must not hold up a send.
EVERY_S: Final = 60.0
_OLDEST: Final = sql("SELECT min(done_at) FROM ledger WHERE state NOT IN ('intent', 'retracting')")
FORGET_DAYS: Final = 90
# Who was told is personal, and only of use while a post may be tried again; the feed shows its newest.
_FORGET: Final = (
    sql(
        "DELETE FROM deliveries WHERE ctid IN (SELECT ctid FROM deliveries WHERE at < :before LIMIT :rows)"
    ),
    sql(
        "DELETE FROM feed WHERE post_id IN (SELECT post_id FROM feed WHERE published_at < :long_before LIMIT :rows)"
    ),
)
_MOVE: Final = sql(
    """
    WITH old AS (
        SELECT post_id FROM ledger
        WHERE state NOT IN ('intent', 'retracting') AND done_at < :before AND done_at < :month_end
        ORDER BY done_at LIMIT :rows FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM ledger USING old WHERE ledger.post_id = old.post_id RETURNING ledger.*
    )
    INSERT INTO ledger_archive SELECT * FROM gone
    """
)
log = structlog.get_logger()


class Archive:
    """Moves what is older than `days` out of the ledger; more than Kafka keeps a post for."""

    def __init__(self, engine: AsyncEngine, *, clock: Clock, days: int) -> None:
        self.engine, self.clock, self.keep = engine, clock, timedelta(days=days)

    async def keep_moving(self) -> None:
        """Move what has become old, for ever."""
        while True:
            try:
                moved = await self.move() + await self.forget()
            except Exception as error:  # The database's: the next round comes.
                log.error("archive", error=str(error))
                moved = 0
            await asyncio.sleep(0 if moved else EVERY_S)

    async def move(self) -> int:
        """Move some rows of one month; return how many."""
        before = self.clock.now() - self.keep
        async with self.engine.begin() as connection:
            oldest = (await connection.execute(_OLDEST)).scalar_one()
            if oldest is None or oldest >= before:
                return 0
            begin, end = _month(oldest)
            name = f"ledger_archive_{begin:%Y_%m}"
            await connection.execute(sql("SELECT pg_advisory_xact_lock(hashtext(:n))"), {"n": name})
            await connection.execute(
                sql(
                    f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF ledger_archive"
                    f" FOR VALUES FROM ('{begin.isoformat()}') TO ('{end.isoformat()}')"
                )
            )
            values = {"before": before, "month_end": end, "rows": ROWS}
            return (await connection.execute(_MOVE, values)).rowcount

    async def forget(self) -> int:
        """Forget some of who was told what, and of what the feed shows no more; return how many."""
        now = self.clock.now()
        values = {
            "before": now - self.keep,
            "long_before": now - max(self.keep, timedelta(days=FORGET_DAYS)),
            "rows": ROWS,
        }
        gone = 0
        for statement in _FORGET:
            async with self.engine.begin() as connection:
                known = {name: values[name] for name in statement.compile().params}
                gone += (await connection.execute(statement, known)).rowcount
        return gone

    async def find(self, post_id: str) -> Entry | None:
        """Return an old post's row."""
        statement = ARCHIVE.select().where(ARCHIVE.c.post_id == post_id).limit(1)
        async with self.engine.connect() as connection:
            row = (await connection.execute(statement)).one_or_none()
        return None if row is None else entry_of(row)


def _month(at: datetime) -> tuple[datetime, datetime]:
    begin = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return begin, (begin + timedelta(days=32)).replace(day=1)
