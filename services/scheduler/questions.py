"""What is asked of the whole queue: SQL only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.database import sql


async def lanes(connection: AsyncConnection) -> list[tuple[int, dict[str, str]]]:
    """Return every lane with its labels."""
    rows = await connection.execute(sql("SELECT lane_id, labels FROM lanes"))
    return [(row.lane_id, row.labels) for row in rows]


async def values_of(connection: AsyncConnection, name: str) -> list[str]:
    """Return the values of a label that offers carry."""
    statement = sql(
        "SELECT DISTINCT labels->>:name AS value FROM lanes WHERE labels ? :name ORDER BY 1"
    )
    return [row.value for row in await connection.execute(statement, {"name": name})]


async def by_hour(connection: AsyncConnection, of_lanes: list[int]) -> list[RowMapping]:
    """Return how many offers wait in these lanes, by campaign and hour (UTC)."""
    statement = sql(
        "SELECT p.campaign_id, c.name AS campaign, date_trunc('hour', p.due_at) AS hour,"
        " count(*) AS offers FROM posts p JOIN campaigns c USING (campaign_id)"
        " WHERE p.lane_id = ANY(:lanes) AND p.state = 'queued'"
        " GROUP BY 1, 2, 3 ORDER BY 3, 1 LIMIT 10000"
    )
    return list((await connection.execute(statement, {"lanes": of_lanes})).mappings())


async def due_between(
    connection: AsyncConnection, begin: datetime, end: datetime, *, limit: int
) -> list[RowMapping]:
    """Return offers that wait and are due within a time, each with its lane and its campaign's plan."""
    statement = sql(
        "SELECT p.post_id, l.lane_id, p.due_at, p.latest_at, l.campaign_id, l.labels, c.name AS campaign,"
        " c.recovery, c.quiet_s FROM lanes l JOIN campaigns c USING (campaign_id)"
        " CROSS JOIN LATERAL (SELECT * FROM posts q WHERE q.lane_id = l.lane_id AND q.state = 'queued'"
        " AND q.due_at >= :begin AND q.due_at < :end ORDER BY q.due_at LIMIT :limit) p"
        " WHERE l.running ORDER BY p.due_at LIMIT :limit"
    )
    values: dict[str, Any] = {"begin": begin, "end": end, "limit": limit}
    return list((await connection.execute(statement, values)).mappings())


async def stopped(connection: AsyncConnection, campaign_id: str, limit: int) -> list[RowMapping]:
    """Return offers of a campaign in lanes that are stopped, the first due first."""
    statement = sql(
        "SELECT p.post_id, p.due_at, p.latest_at, l.stopped_at, c.next_slot_at,"
        " clock_timestamp() AS now FROM lanes l JOIN campaigns c USING (campaign_id)"
        " CROSS JOIN LATERAL (SELECT * FROM posts q WHERE q.lane_id = l.lane_id"
        " AND q.state IN ('queued', 'held') ORDER BY q.due_at LIMIT :limit) p"
        " WHERE l.campaign_id = :id AND (l.state <> 'open' OR NOT l.running)"
        " ORDER BY p.due_at LIMIT :limit"
    )
    values: dict[str, Any] = {"id": campaign_id, "limit": limit}
    return list((await connection.execute(statement, values)).mappings())
