"""Offers that were handed over and of which nothing was heard: they are handed over again, and the publisher says.

Whoever has an offer says what became of it by its latest useful time. Where nothing comes, what was handed over is
lost (deleted unread, a publisher that was away for longer than Kafka keeps it), or what was said of it is. A publisher
that has it in its ledger says that again; one that has not says that it is too late. None sends it.
"""

from __future__ import annotations

from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.posts import DuePost
from services.kit.database import sql
from services.scheduler.store import CLAIM_POSTS, POST_COLUMNS, due_post

# Behind the latest useful time, and behind the last time that it was handed over: where publishers are away for long,
# what waits for them must not be many times as much for that.
UNHEARD_S: Final = 3_600
ASKED_DAYS: Final = 7  # Behind its due time: the publishers' ledgers have it for eight, and their archive is not asked.
_UNHEARD: Final = f"""
    UPDATE posts p SET state = 'claimed', claimed_at = clock_timestamp(), changed_at = clock_timestamp() FROM lanes l
    WHERE l.lane_id = p.lane_id AND p.post_id IN (
        SELECT post_id FROM posts WHERE state = 'handed'
        AND latest_at < clock_timestamp() - make_interval(secs => :unheard_s)
        AND changed_at < clock_timestamp() - make_interval(secs => :unheard_s)
        AND due_at > clock_timestamp() - make_interval(days => :days)
        ORDER BY latest_at LIMIT :count FOR UPDATE SKIP LOCKED
    ) RETURNING {POST_COLUMNS}, l.labels
"""  # noqa: S608  # Constants.
log = structlog.get_logger()


async def ask_again(engine: AsyncEngine) -> list[DuePost]:
    """Claim what nothing was heard of, to be handed over once more under its number."""
    values = {"unheard_s": UNHEARD_S, "days": ASKED_DAYS, "count": CLAIM_POSTS}
    async with engine.begin() as connection:
        rows = (await connection.execute(sql(_UNHEARD), values)).mappings().all()
    if rows:
        log.warning("nothing was heard of offers", count=len(rows), first=rows[0]["post_id"])
    return [due_post(row, row["labels"], attempt=row["attempt"]) for row in rows]
