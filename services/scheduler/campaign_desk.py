"""Campaigns as marketing writes and reads them: SQL only. Every write takes a connection.

So a change, its audit line and its kept answer are one transaction.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.database import sql
from services.scheduler.answers import audit, one
from services.scheduler.campaign_life import State
from services.scheduler.lane_store import set_running
from services.scheduler.life import CANCELLABLE

COLUMNS: Final = (
    "name", "labels", "accounts", "time_zone", "begins_at", "ends_at", "hours", "per_hour",
    "priority", "recovery", "quiet_s", "useful_s", "budget", "needs_approval", "utm",
)  # fmt: skip
_JSON: Final = frozenset({"labels", "hours", "recovery", "utm"})
_CAMPAIGN: Final = "SELECT * FROM campaigns WHERE campaign_id = :id"


async def add_campaign(
    connection: AsyncConnection, values: Mapping[str, Any], *, state: State, author: str
) -> RowMapping:
    """Write a campaign and return it."""
    campaign_id = f"cmp-{uuid.uuid4().hex}"
    known = _written(values) | {"id": campaign_id, "author": author, "state": state}
    places = ", ".join(_place(name) for name in COLUMNS)
    await connection.execute(
        sql(
            f"INSERT INTO campaigns (campaign_id, author, state, {', '.join(COLUMNS)})"  # noqa: S608  # Ours.
            f" VALUES (:id, :author, :state, {places})"
        ),
        known,
    )
    await audit(connection, author, "campaign.added", campaign_id, {"name": values["name"]})
    found = await find_campaign(connection, campaign_id)
    assert found is not None
    return found


async def change_campaign(
    connection: AsyncConnection, campaign_id: str, values: Mapping[str, Any], *, author: str
) -> None:
    """Change some of a campaign; whoever wrote last is its author, and approves nothing of it."""
    known = _written(values)
    changes = ", ".join(f"{name} = {_place(name)}" for name in values)
    await connection.execute(
        sql(
            f"UPDATE campaigns SET {changes}, author = :author, version = version + 1,"  # noqa: S608  # Ours.
            " changed_at = now()"
            " WHERE campaign_id = :id"
        ),
        known | {"id": campaign_id, "author": author},
    )
    if "priority" in values:
        await connection.execute(
            sql("UPDATE lanes SET priority = :priority WHERE campaign_id = :id"),
            {"priority": values["priority"], "id": campaign_id},
        )
    await audit(connection, author, "campaign.changed", campaign_id, dict(values))


async def move_campaign(
    connection: AsyncConnection,
    campaign_id: str,
    state: State,
    *,
    action: str,
    author: str,
    comment: str,
) -> None:
    """Bring a campaign into a state, and its lanes with it."""
    await connection.execute(
        sql(
            "UPDATE campaigns SET state = :state, version = version + 1, changed_at = now(),"
            " approver = CASE WHEN :action = 'approve' THEN :author ELSE approver END"
            " WHERE campaign_id = :id"
        ),
        {"state": state, "action": action, "author": author, "id": campaign_id},
    )
    await set_running(connection, campaign_id, running=state == "running")
    detail: dict[str, Any] = {"comment": comment} if comment else {}
    if state in ("cancelled", "done"):
        detail["posts"] = await _end_posts(connection, campaign_id, f"campaign {state}")
    if action == "approve":
        detail["posts"] = await _approve_posts(connection, campaign_id, author)
    await audit(connection, author, f"campaign.{action}", campaign_id, detail)


async def _end_posts(connection: AsyncConnection, campaign_id: str, why: str) -> int:
    done = await connection.execute(
        sql(
            "UPDATE posts SET state = 'cancelled', changed_at = now(), reason = :why, "
            "version = version + 1 WHERE campaign_id = :id AND state = ANY(:states)"
        ),
        {"id": campaign_id, "why": why, "states": list(CANCELLABLE)},
    )
    return done.rowcount


async def _approve_posts(connection: AsyncConnection, campaign_id: str, approver: str) -> int:
    """Approve what waits for it with its campaign, but for what the approver wrote."""
    done = await connection.execute(
        sql(
            "UPDATE posts SET state = 'queued', approver = :approver, changed_at = now(),"
            " ready_at = clock_timestamp(), version = version + 1"
            " WHERE campaign_id = :id AND state = 'unapproved' AND author <> :approver"
        ),
        {"id": campaign_id, "approver": approver},
    )
    return done.rowcount


async def lock_campaign(connection: AsyncConnection, campaign_id: str) -> RowMapping | None:
    """Return a campaign; nobody else changes it until the transaction ends."""
    return await one(connection, f"{_CAMPAIGN} FOR NO KEY UPDATE", id=campaign_id)


async def find_campaign(connection: AsyncConnection, campaign_id: str) -> RowMapping | None:
    """Return a campaign."""
    return await one(connection, _CAMPAIGN, id=campaign_id)


async def find_campaigns(
    connection: AsyncConnection, campaign_ids: Collection[str]
) -> list[RowMapping]:
    """Return those of these campaigns that there are."""
    statement = sql("SELECT * FROM campaigns WHERE campaign_id = ANY(:ids)")
    return list((await connection.execute(statement, {"ids": list(campaign_ids)})).mappings())


async def list_campaigns(connection: AsyncConnection) -> list[RowMapping]:
    """Return all campaigns, the newest first."""
    rows = await connection.execute(sql("SELECT * FROM campaigns ORDER BY created_at DESC"))
    return list(rows.mappings())


def _written(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: json.dumps(value) if name in _JSON and value is not None else value
        for name, value in values.items()
    }


def _place(name: str) -> str:
    return f"CAST(:{name} AS jsonb)" if name in _JSON else f":{name}"
