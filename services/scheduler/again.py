"""Offers that are handed over once more: what nobody says was handed over, and what nothing was heard of.

A scheduler that died in the middle of it handed over or did not; the publisher knows an offer that it has had.
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

CLAIM_STALE_S: Final = 15  # A scheduler that died in between handed over or did not: say it again.
# Behind the latest useful time, and behind the last time that it was handed over: where publishers are away for long,
# what waits for them must not be many times as much for that.
UNHEARD_S: Final = 3_600
ASKED_DAYS: Final = 7  # Behind its due time: the publishers' ledgers have it for eight, and their archive is not asked.
_STALE: Final = f"""
    UPDATE posts p SET claimed_at = clock_timestamp(), changed_at = clock_timestamp() FROM lanes l
    WHERE l.lane_id = p.lane_id AND p.post_id IN (
        SELECT post_id FROM posts WHERE state = 'claimed'
        AND claimed_at < clock_timestamp() - make_interval(secs => :stale_s) LIMIT :count FOR UPDATE SKIP LOCKED
    ) RETURNING {POST_COLUMNS}, l.labels
"""  # noqa: S608  # Constants.
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


async def claim_stale(engine: AsyncEngine) -> list[DuePost]:
    """Claim again what somebody claimed and never handed over."""
    return await _claim(engine, _STALE, {"stale_s": CLAIM_STALE_S})


async def claim_unheard(engine: AsyncEngine) -> list[DuePost]:
    """Claim what nothing was heard of, to be handed over once more under its number."""
    posts = await _claim(engine, _UNHEARD, {"unheard_s": UNHEARD_S, "days": ASKED_DAYS})
    if posts:
        log.warning("nothing was heard of offers", count=len(posts), first=posts[0].post.post_id)
    return posts


async def _claim(engine: AsyncEngine, statement: str, values: dict[str, int]) -> list[DuePost]:
    async with engine.begin() as connection:
        found = await connection.execute(sql(statement), values | {"count": CLAIM_POSTS})
        rows = found.mappings().all()
    return [due_post(row, row["labels"], attempt=row["attempt"]) for row in rows]
