"""What marketing writes and reads: campaigns and posts, kept answers, and the audit. SQL only.

Every write takes a connection, so that a change, its audit line and its kept answer are one
transaction.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.scheduler.life import CANCELLABLE
from services.scheduler.store import lane_of

ANSWER_DAYS: Final = 7

_POST = """
    SELECT p.post_id, p.campaign_id, p.account, p.text, p.language, l.labels, p.due_at, p.latest_at,
        CASE WHEN p.state = 'queued' AND l.state <> 'open' THEN 'held' ELSE p.state END AS state,
        p.attempt, p.reason, p.hold_id, p.publication, p.url, p.author, p.approver, p.number
    FROM posts p JOIN lanes l USING (lane_id)
"""

_CAMPAIGN = f"""
    SELECT c.*, COALESCE((
        SELECT jsonb_object_agg(state, posts) FROM (
            SELECT state, count(*) AS posts FROM ({_POST} WHERE p.campaign_id = :id) q GROUP BY state
        ) s
    ), '{{}}') AS counts FROM campaigns c WHERE c.campaign_id = :id
"""  # noqa: S608  # A constant.


async def add_campaign(
    connection: AsyncConnection,
    *,
    name: str,
    labels: dict[str, str],
    quiet_s: int,
    useful_s: int,
    author: str,
) -> RowMapping:
    """Write a campaign and return it."""
    campaign_id = f"cmp-{uuid.uuid4().hex}"
    await connection.execute(
        text(
            "INSERT INTO campaigns (campaign_id, name, labels, quiet_s, useful_s, author) "
            "VALUES (:id, :name, CAST(:labels AS jsonb), :quiet_s, :useful_s, :author)"
        ),
        {
            "id": campaign_id,
            "name": name,
            "labels": json.dumps(labels),
            "quiet_s": quiet_s,
            "useful_s": useful_s,
            "author": author,
        },
    )
    await audit(connection, author, "campaign.added", campaign_id, {"name": name})
    found = await read_campaign(connection, campaign_id)
    assert found is not None
    return found


async def read_campaign(connection: AsyncConnection, campaign_id: str) -> RowMapping | None:
    """Return a campaign with its counts of posts by state; held lanes count as held."""
    return await _one(connection, _CAMPAIGN, id=campaign_id)


async def list_campaigns(connection: AsyncConnection) -> list[RowMapping]:
    """Return all campaigns, the newest first."""
    rows = await connection.execute(text("SELECT * FROM campaigns ORDER BY created_at DESC"))
    return list(rows.mappings())


async def cancel_campaign(connection: AsyncConnection, campaign_id: str, *, author: str) -> int:
    """Cancel all posts of a campaign that were not handed over; returns how many."""
    await connection.execute(
        text("UPDATE campaigns SET cancelled_at = now() WHERE campaign_id = :id"),
        {"id": campaign_id},
    )
    done = await connection.execute(
        text(
            "UPDATE posts SET state = 'cancelled', changed_at = now(), reason = 'campaign cancelled' "
            "WHERE campaign_id = :id AND state = ANY(:states)"
        ),
        {"id": campaign_id, "states": list(CANCELLABLE)},
    )
    await audit(connection, author, "campaign.cancelled", campaign_id, {"posts": done.rowcount})
    return done.rowcount


async def add_posts(
    connection: AsyncConnection,
    campaign_id: str,
    posts: Sequence[Mapping[str, Any]],
    *,
    author: str,
) -> list[str]:
    """Write posts (account, text, language, labels, due_at, latest_at); returns their ids."""
    lanes: dict[str, int] = {}
    rows = []
    for post in posts:
        key = json.dumps(post["labels"], sort_keys=True)
        if key not in lanes:
            lanes[key] = await lane_of(connection, campaign_id, post["labels"])
        rows.append(
            {
                "id": f"post-{uuid.uuid4().hex}",
                "campaign": campaign_id,
                "lane": lanes[key],
                "author": author,
                **{k: post[k] for k in ("account", "text", "language", "due_at", "latest_at")},
            }
        )
    await connection.execute(
        text(
            "INSERT INTO posts (post_id, campaign_id, lane_id, account, text, language, due_at, "
            "latest_at, state, author) VALUES (:id, :campaign, :lane, :account, :text, :language, "
            ":due_at, :latest_at, 'queued', :author)"
        ),
        rows,
    )
    await audit(connection, author, "posts.added", campaign_id, {"posts": len(rows)})
    return [row["id"] for row in rows]


async def read_post(connection: AsyncConnection, post_id: str) -> RowMapping | None:
    """Return one post; `held` where it waits in a held lane."""
    return await _one(connection, f"{_POST} WHERE p.post_id = :id", id=post_id)


async def read_posts(connection: AsyncConnection, post_ids: Sequence[str]) -> list[RowMapping]:
    """Return these posts, in the order they were written."""
    statement = text(f"{_POST} WHERE p.post_id = ANY(:ids) ORDER BY p.number")
    return list((await connection.execute(statement, {"ids": list(post_ids)})).mappings())


async def list_posts(
    connection: AsyncConnection,
    *,
    campaign_id: str | None,
    state: str | None,
    after: int,
    limit: int,
) -> list[RowMapping]:
    """Return posts with a number above `after`, in the order they were written."""
    statement = (
        f"SELECT * FROM ({_POST} WHERE p.number > :after "  # noqa: S608  # A constant.
        "AND (CAST(:campaign AS text) IS NULL OR p.campaign_id = :campaign)) q "
        "WHERE CAST(:state AS text) IS NULL OR state = :state ORDER BY number LIMIT :limit"
    )
    values = {"after": after, "campaign": campaign_id, "state": state, "limit": limit}
    return list((await connection.execute(text(statement), values)).mappings())


async def cancel_post(connection: AsyncConnection, post_id: str, *, author: str) -> bool:
    """Cancel a post that was not handed over yet; False where it was."""
    done = await connection.execute(
        text(
            "UPDATE posts SET state = 'cancelled', changed_at = now(), reason = 'cancelled' "
            "WHERE post_id = :id AND state = ANY(:states)"
        ),
        {"id": post_id, "states": list(CANCELLABLE)},
    )
    if done.rowcount:
        await audit(connection, author, "post.cancelled", post_id, {})
    return bool(done.rowcount)


async def approve_post(
    connection: AsyncConnection, post_id: str, *, now: datetime, latest_at: datetime, approver: str
) -> bool:
    """Let a post under review go on, due now; False where it is not under review any more."""
    done = await connection.execute(
        text(
            "UPDATE posts SET state = 'queued', due_at = :now, latest_at = :latest, reason = '', "
            "approver = :approver, changed_at = now() WHERE post_id = :id AND state = 'review'"
        ),
        {"id": post_id, "now": now, "latest": latest_at, "approver": approver},
    )
    if done.rowcount:
        await audit(connection, approver, "post.approved", post_id, {})
    return bool(done.rowcount)


async def count_states(connection: AsyncConnection) -> dict[str, int]:
    """Return how many posts there are in each state."""
    rows = await connection.execute(
        text(f"SELECT state, count(*) AS posts FROM ({_POST}) q GROUP BY state")  # noqa: S608  # A constant.
    )
    return {row.state: row.posts for row in rows}


async def recall_answer(
    connection: AsyncConnection, *, caller: str, key: str, request: str
) -> tuple[str, int | None, Any]:
    """Take an Idempotency-Key; returns the request it was first used for, and its answer if any.

    A second request with the key waits here until the first one's transaction has ended.
    """
    await connection.execute(
        text("DELETE FROM answers WHERE created_at < now() - make_interval(days => :days)"),
        {"days": ANSWER_DAYS},
    )
    await connection.execute(
        text(
            "INSERT INTO answers (caller, key, request) VALUES (:caller, :key, :request) "
            "ON CONFLICT DO NOTHING"
        ),
        {"caller": caller, "key": key, "request": request},
    )
    row = await _one(
        connection,
        "SELECT request, status, answer FROM answers WHERE caller = :caller AND key = :key",
        caller=caller,
        key=key,
    )
    assert row is not None
    return row["request"], row["status"], row["answer"]


async def keep_answer(
    connection: AsyncConnection, *, caller: str, key: str, status: int, answer: str
) -> None:
    """Keep the answer to a request for whoever sends it again."""
    await connection.execute(
        text(
            "UPDATE answers SET status = :status, answer = CAST(:answer AS jsonb) "
            "WHERE caller = :caller AND key = :key"
        ),
        {"caller": caller, "key": key, "status": status, "answer": answer},
    )


async def audit(
    connection: AsyncConnection, author: str, action: str, subject: str, detail: dict[str, Any]
) -> None:
    """Write down who did what."""
    await connection.execute(
        text(
            "INSERT INTO audit (author, action, subject, detail) "
            "VALUES (:author, :action, :subject, CAST(:detail AS jsonb))"
        ),
        {"author": author, "action": action, "subject": subject, "detail": json.dumps(detail)},
    )


async def _one(connection: AsyncConnection, statement: str, **values: Any) -> RowMapping | None:
    return (await connection.execute(text(statement), values)).mappings().one_or_none()
