"""How many offers there are, by campaign, day and state: SQL only. It costs what there are lanes and days."""

from __future__ import annotations

from datetime import date
from typing import Final

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.kit.database import sql

LOCK: Final = 7_002
_ALL: Final = """
    FROM (SELECT * FROM post_counts UNION ALL SELECT * FROM count_changes) one
    JOIN lanes l USING (lane_id)
"""
_STATE: Final = (
    "CASE WHEN one.state = 'queued' AND l.state <> 'open' THEN 'held' ELSE one.state END"
)
_SUM_UP: Final = """
    WITH gone AS (DELETE FROM count_changes RETURNING *)
    INSERT INTO post_counts AS known
    SELECT lane_id, day, state, sum(posts) FROM gone GROUP BY 1, 2, 3 HAVING sum(posts) <> 0
    ON CONFLICT (lane_id, day, state) DO UPDATE SET posts = known.posts + EXCLUDED.posts
"""


async def by_state(connection: AsyncConnection, campaign_id: str | None = None) -> dict[str, int]:
    """Return how many offers are in each state, of one campaign or of all."""
    statement = sql(
        f"SELECT {_STATE} AS state, sum(one.posts)::bigint AS offers {_ALL}"  # Constants.
        " WHERE CAST(:id AS text) IS NULL OR l.campaign_id = :id"
        " GROUP BY 1 HAVING sum(one.posts) <> 0"
    )
    rows = await connection.execute(statement, {"id": campaign_id})
    return {row.state: row.offers for row in rows}


async def by_campaign(connection: AsyncConnection) -> dict[str, dict[str, int]]:
    """Return how many offers are in each state, by campaign."""
    statement = sql(
        f"SELECT l.campaign_id, {_STATE} AS state, sum(one.posts)::bigint AS offers {_ALL}"
        " GROUP BY 1, 2 HAVING sum(one.posts) <> 0"
    )
    found: dict[str, dict[str, int]] = {}
    for row in await connection.execute(statement):
        found.setdefault(row.campaign_id, {})[row.state] = row.offers
    return found


async def by_day(
    connection: AsyncConnection, *, begin: date, end: date, campaign_id: str | None
) -> list[RowMapping]:
    """Return offers by campaign, day (UTC) and state, from one day until before another."""
    statement = sql(
        f"SELECT l.campaign_id, one.day, {_STATE} AS state, sum(one.posts)::bigint AS offers {_ALL}"
        " WHERE one.day >= :begin AND one.day < :end"
        " AND (CAST(:id AS text) IS NULL OR l.campaign_id = :id)"
        " GROUP BY 1, 2, 3 HAVING sum(one.posts) <> 0 ORDER BY 2, 1, 3"
    )
    values = {"begin": begin, "end": end, "id": campaign_id}
    return list((await connection.execute(statement, values)).mappings())


async def sum_up(engine: AsyncEngine) -> None:
    """Sum up what has changed; one scheduler at a time, the others pass it over."""
    async with engine.begin() as connection:
        mine = await connection.execute(
            sql("SELECT pg_try_advisory_xact_lock(:key)"), {"key": LOCK}
        )
        if mine.scalar_one():
            await connection.execute(sql(_SUM_UP))
