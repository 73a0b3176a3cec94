"""Events in PostgreSQL, and where each webhook stands in them: SQL only."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.kit.database import sql

KEPT_DAYS: Final = 7
PAGE: Final = 100
FORGET: Final = 10_000
LEASE_S: Final = 120
# Only what no transaction that still runs can stand before.
_READ: Final = """
    SELECT xact::text AS xact, number, at, type, data FROM events
    WHERE (xact, number) > (CAST(:xact AS xid8), :number)
    AND xact < pg_snapshot_xmin(pg_current_snapshot())
    AND (CAST(:types AS text[]) = '{}' OR type = ANY(:types)) ORDER BY events.xact, number LIMIT :count
"""
_LEASE: Final = """
    UPDATE webhooks SET next_try_at = now() + make_interval(secs => :lease_s)
    WHERE webhook_id = (
        SELECT webhook_id FROM webhooks w WHERE stopped_at IS NULL AND next_try_at <= now()
        AND EXISTS (SELECT 1 FROM events e WHERE (e.xact, e.number) > (w.xact, w.number)
            AND e.xact < pg_snapshot_xmin(pg_current_snapshot()))
        ORDER BY next_try_at LIMIT 1 FOR UPDATE SKIP LOCKED
    ) RETURNING webhook_id, url, secret, types, xact::text AS xact, number, failures
"""
_TOLD: Final = """
    UPDATE webhooks SET xact = CAST(:xact AS xid8), number = :number,
        last_answer = COALESCE(NULLIF(:answer, ''), last_answer), failures = :failures, next_try_at = now() + make_interval(secs => :wait_s),
        failing_since = CASE WHEN :failures > 0 THEN COALESCE(failing_since, now()) END,
        stopped_at = CASE WHEN :failures > 0 AND now() - failing_since
            > make_interval(secs => :patience_s) THEN now() END
    WHERE webhook_id = :id AND xact = CAST(:begin_xact AS xid8) AND number = :begin_number
    RETURNING stopped_at
"""
_HOOK: Final = """
    SELECT webhook_id, url, types, author, created_at, xact::text || '-' || number AS position,
        failures, failing_since, stopped_at, last_answer FROM webhooks
"""


@dataclass(frozen=True, slots=True)
class Position:
    """Behind which event somebody goes on; its text is an event's id."""

    xact: int = 0
    number: int = 0

    def __str__(self) -> str:
        return f"{self.xact}-{self.number}"


def position_of(given: str) -> Position:
    """Read an event's id. Raises ValueError."""
    found = re.fullmatch(r"(\d{1,19})-(\d{1,18})", given)
    if found is None:
        raise ValueError("the id of an event was expected, such as 812-15")
    return Position(int(found[1]), int(found[2]))


async def add_event(connection: AsyncConnection, kind: str, data: dict[str, Any]) -> None:
    """Write what happened, with the transaction it happened in."""
    await connection.execute(
        sql("INSERT INTO events (type, data) VALUES (:type, CAST(:data AS jsonb))"),
        {"type": kind, "data": json.dumps(data, default=str)},
    )


async def read_events(
    engine: AsyncEngine, after: Position, *, types: Sequence[str], count: int = PAGE
) -> list[RowMapping]:
    """Return events behind a position, in their order."""
    values = {"xact": after.xact, "number": after.number, "types": list(types), "count": count}
    async with engine.connect() as connection:
        return list((await connection.execute(sql(_READ), values)).mappings())


async def newest(engine: AsyncEngine, *, before: datetime | None = None) -> Position:
    """Return the position behind all events so far, or behind those before a time."""
    statement = sql(
        "SELECT xact::text AS xact, number FROM events WHERE xact < pg_snapshot_xmin(pg_current_snapshot())"
        " AND (CAST(:before AS timestamptz) IS NULL OR at < :before)"
        " ORDER BY events.xact DESC, number DESC LIMIT 1"
    )
    async with engine.connect() as connection:
        row = (await connection.execute(statement, {"before": before})).one_or_none()
    return Position(int(row.xact), row.number) if row else Position()


async def forget_old(engine: AsyncEngine) -> None:
    """Forget events that are a week old."""
    async with engine.begin() as connection:
        await connection.execute(
            sql(
                "DELETE FROM events WHERE (xact, number) IN (SELECT xact, number FROM events"
                " WHERE at < now() - make_interval(days => :days) LIMIT :count)"
            ),
            {"days": KEPT_DAYS, "count": FORGET},
        )


async def add_webhook(
    connection: AsyncConnection,
    *,
    webhook_id: str,
    url: str,
    secret: str,
    types: list[str],
    author: str,
    after: Position,
) -> None:
    """Write a webhook that is told what comes behind a position."""
    await connection.execute(
        sql(
            "INSERT INTO webhooks (webhook_id, url, secret, types, author, xact, number)"
            " VALUES (:id, :url, :secret, :types, :author, CAST(:xact AS xid8), :number)"
        ),
        {
            "id": webhook_id, "url": url, "secret": secret, "types": types, "author": author,
            "xact": after.xact, "number": after.number,
        },
    )  # fmt: skip


async def list_webhooks(
    connection: AsyncConnection, webhook_id: str | None = None
) -> list[RowMapping]:
    """Return webhooks without their secrets, the oldest first."""
    statement = f"{_HOOK} WHERE CAST(:id AS text) IS NULL OR webhook_id = :id ORDER BY created_at"
    return list((await connection.execute(sql(statement), {"id": webhook_id})).mappings())


async def delete_webhook(connection: AsyncConnection, webhook_id: str) -> bool:
    """Delete a webhook; False where there is none."""
    statement = sql("DELETE FROM webhooks WHERE webhook_id = :id")
    return bool((await connection.execute(statement, {"id": webhook_id})).rowcount)


async def go_on_from(connection: AsyncConnection, webhook_id: str, after: Position) -> bool:
    """Tell a webhook again what came behind a position, also one that was stopped."""
    statement = sql(
        "UPDATE webhooks SET xact = CAST(:xact AS xid8), number = :number, stopped_at = NULL,"
        " failures = 0, failing_since = NULL, next_try_at = now() WHERE webhook_id = :id"
    )
    values = {"id": webhook_id, "xact": after.xact, "number": after.number}
    return bool((await connection.execute(statement, values)).rowcount)


async def lease_webhook(engine: AsyncEngine) -> RowMapping | None:
    """Take a webhook that has something to be told; nobody else does for two minutes."""
    async with engine.begin() as connection:
        found = await connection.execute(sql(_LEASE), {"lease_s": LEASE_S})
        return found.mappings().one_or_none()


async def record_told(
    engine: AsyncEngine,
    webhook_id: str,
    at: Position,
    *,
    begin: Position,
    answer: str,
    failures: int,
    wait_s: float,
    patience_s: float,
) -> bool:
    """Write how far a webhook was told from `begin` on; True: it was stopped, having failed for too long.

    One that was replayed meanwhile stands elsewhere, and stays there.
    """
    values = {
        "id": webhook_id, "xact": at.xact, "number": at.number, "answer": answer,
        "begin_xact": begin.xact, "begin_number": begin.number,
        "failures": failures, "wait_s": wait_s, "patience_s": patience_s,
    }  # fmt: skip
    async with engine.begin() as connection:
        row = (await connection.execute(sql(_TOLD), values)).one_or_none()
    return row is not None and row.stopped_at is not None
