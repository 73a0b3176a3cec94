"""Posts as marketing writes and reads them: SQL only. Every write takes a connection.

So a change, its audit line and its kept answer are one transaction.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.database import sql
from services.scheduler import counts
from services.scheduler.answers import audit, one
from services.scheduler.life import CANCELLABLE, IN_HAND

# A queued offer in a lane that is held, or of a campaign that rests, waits without a row being written.
SHOWN_STATE: Final = (
    "CASE WHEN p.state = 'queued' AND l.state <> 'open' THEN 'held' ELSE p.state END"
)
POST: Final = f"""
    SELECT p.post_id, p.campaign_id, p.account, p.text, p.language, l.labels, p.due_at, p.latest_at,
        {SHOWN_STATE} AS state, p.attempt, p.reason, p.hold_id, p.publication, p.url, p.author,
        p.approver, p.number, p.version, p.external_id, p.media, p.card, p.thread, p.cancel_at,
        p.lane_id
    FROM posts p JOIN lanes l USING (lane_id)
"""  # noqa: S608  # A constant.
ARCHIVED: Final = POST.replace("FROM posts p", "FROM posts_archive p")
_ADD: Final = """
    INSERT INTO posts (post_id, campaign_id, lane_id, account, text, language, due_at, latest_at, state,
        author, media, card, thread, external_id, ready_at)
    SELECT post_id, campaign_id, lane_id, account, text, language, due_at, latest_at, state, author,
        CAST(media AS jsonb), CAST(card AS jsonb), CAST(thread AS jsonb), external_id, clock_timestamp()
    FROM unnest(CAST(:ids AS text[]), CAST(:campaigns AS text[]), CAST(:states AS text[]),
        CAST(:authors AS text[]), CAST(:lanes AS bigint[]), CAST(:accounts AS text[]),
        CAST(:texts AS text[]), CAST(:languages AS text[]), CAST(:due AS timestamptz[]),
        CAST(:latest AS timestamptz[]), CAST(:media AS text[]), CAST(:cards AS text[]),
        CAST(:threads AS text[]), CAST(:externals AS text[]))
        WITH ORDINALITY AS new (post_id, campaign_id, state, author, lane_id, account, text, language, due_at,
            latest_at, media, card,
            thread, external_id, position)
    ORDER BY position
    ON CONFLICT (campaign_id, external_id) WHERE external_id IS NOT NULL DO NOTHING
    RETURNING post_id
"""
_ADD_AND_READ: Final = (
    f"WITH made AS ({_ADD.replace('RETURNING post_id', 'RETURNING *')})"
    + POST.replace("FROM posts p", "FROM made p")
)
_JSON: Final = frozenset({"media", "card", "thread"})
_ALIKE: Final = """
    SELECT new.position, p.post_id, p.account, p.due_at
    FROM unnest(CAST(:ids AS text[]), CAST(:accounts AS text[]), CAST(:texts AS text[]),
        CAST(:due AS timestamptz[]))
        WITH ORDINALITY AS new (post_id, account, text, due_at, position)
    CROSS JOIN LATERAL (
        SELECT q.post_id, q.account, q.due_at FROM posts q
        WHERE md5(q.text)::uuid = md5(new.text)::uuid AND q.account = new.account
        AND q.post_id <> new.post_id AND q.state NOT IN ('cancelled', 'expired', 'failed')
        AND q.due_at > new.due_at - interval '1 day' AND q.due_at < new.due_at + interval '1 day'
        LIMIT 1
    ) p
"""


async def add_posts(
    connection: AsyncConnection,
    campaign_id: str,
    posts: Sequence[Mapping[str, Any]],
    *,
    state: str,
    author: str,
) -> list[str]:
    """Write posts, each with its lane; returns their ids, without those of a known `external_id`."""
    of_all = {"campaign_id": campaign_id, "state": state, "author": author}
    ids = await insert_posts(connection, [{**post, **of_all} for post in posts])
    written = [post_id for post_id in ids if post_id is not None]
    await audit(connection, author, "posts.added", campaign_id, {"posts": len(written)})
    return written


def new_id() -> str:
    """Return an id for a post; those of one time stand together in an index, as in UUID 7 (RFC 9562, 5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    return f"post-{milliseconds:012x}{secrets.token_hex(10)}"


async def insert_posts(
    connection: AsyncConnection, posts: Sequence[Mapping[str, Any]]
) -> list[str | None]:
    """Write posts of any campaigns; returns the id of each, None where its `external_id` is known."""
    values = _columns(posts)
    written = {row.post_id for row in await connection.execute(sql(_ADD), values)}
    return [post_id if post_id in written else None for post_id in values["ids"]]


async def insert_and_read(
    connection: AsyncConnection, posts: Sequence[Mapping[str, Any]]
) -> list[RowMapping | None]:
    """Write posts of any campaigns; returns each as it stands, None where its `external_id` is known."""
    values = _columns(posts)
    made = (await connection.execute(sql(_ADD_AND_READ), values)).mappings()
    rows = {row["post_id"]: row for row in made}
    return [rows.get(post_id) for post_id in values["ids"]]


def _columns(posts: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    columns = {
        f"{name}s": [post[name] for post in posts]
        for name in ("author", "account", "text", "language", "state")
    }
    return columns | {
        "ids": [new_id() for _ in posts],
        "campaigns": [post["campaign_id"] for post in posts],
        "lanes": [post["lane_id"] for post in posts],
        "due": [post["due_at"] for post in posts],
        "latest": [post["latest_at"] for post in posts],
        "media": [json.dumps(post["media"]) for post in posts],
        "cards": [None if post["card"] is None else json.dumps(post["card"]) for post in posts],
        "threads": [json.dumps(post["thread"]) for post in posts],
        "externals": [post["external_id"] for post in posts],
    }


async def change_post(
    connection: AsyncConnection, post_id: str, values: Mapping[str, Any], *, author: str
) -> None:
    """Change some of a post, and what becomes of its approval."""
    known = {
        name: json.dumps(value) if name in _JSON and value is not None else value
        for name, value in values.items()
    }
    changes = ", ".join(
        f"{name} = CAST(:{name} AS jsonb)" if name in _JSON else f"{name} = :{name}"
        for name in values
    )
    await connection.execute(
        sql(
            f"UPDATE posts SET {changes}, version = version + 1, changed_at = now(),"  # noqa: S608  # Ours.
            " ready_at = clock_timestamp() WHERE post_id = :id"
        ),
        known | {"id": post_id},
    )
    await audit(connection, author, "post.changed", post_id, dict(values))


async def read_post(connection: AsyncConnection, post_id: str) -> RowMapping | None:
    """Return one post, from the archive too; `held` where it waits in a held lane."""
    found = await one(connection, f"{POST} WHERE p.post_id = :id", id=post_id)
    if found is None:
        found = await one(connection, f"{ARCHIVED} WHERE p.post_id = :id LIMIT 1", id=post_id)
    return found


async def lock_post(connection: AsyncConnection, post_id: str) -> RowMapping | None:
    """Return one post; nobody else moves it until the transaction ends."""
    statement = f"{POST} WHERE p.post_id = :id FOR UPDATE OF p"
    return await one(connection, statement, id=post_id)


async def read_posts(connection: AsyncConnection, post_ids: Sequence[str]) -> list[RowMapping]:
    """Return these posts, in the order they were written."""
    statement = sql(f"{POST} WHERE p.post_id = ANY(:ids) ORDER BY p.number")
    return list((await connection.execute(statement, {"ids": list(post_ids)})).mappings())


_FILTERS: Final = {
    "campaign_id": "p.campaign_id = :campaign_id",
    "account": "p.account = :account",
    "external_id": "p.external_id = :external_id",
    "due_from": "p.due_at >= :due_from",
    "due_before": "p.due_at < :due_before",
    "lanes": "p.lane_id = ANY(:lanes)",
    "state": f"{SHOWN_STATE} = :state",
}


async def list_posts(
    connection: AsyncConnection,
    wanted: Mapping[str, Any],
    *,
    after: int,
    limit: int,
    archived: bool = False,
) -> list[RowMapping]:
    """Return posts with a number above `after` that pass the filters, in the order they were written.

    The queue's, or those of its archive.
    """
    filters = {name: value for name, value in wanted.items() if value is not None}
    conditions = " AND ".join(["p.number > :after", *(_FILTERS[name] for name in filters)])
    which = ARCHIVED if archived else POST
    statement = sql(f"{which} WHERE {conditions} ORDER BY p.number LIMIT :limit")
    values = {"after": after, "limit": limit, **filters}
    return list((await connection.execute(statement, values)).mappings())


async def alike(connection: AsyncConnection, posts: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Say of each offer which others have its words on its account within a day of it."""
    rows = await connection.execute(
        sql(_ALIKE),
        {
            "ids": [post.get("post_id", "") for post in posts],
            "accounts": [post["account"] for post in posts],
            "texts": [post["text"] for post in posts],
            "due": [post["due_at"] for post in posts],
        },
    )
    found: list[list[str]] = [[] for _ in posts]
    for row in rows:
        found[row.position - 1].append(
            f"the same words on {row.account} are due at {row.due_at.isoformat()} ({row.post_id})"
        )
    return found


async def cancel_post(connection: AsyncConnection, post_id: str, *, author: str) -> str:
    """Cancel a post. What is in hand is asked back; returns `cancelled`, `asked` or `too late`."""
    done = await connection.execute(
        sql(
            "UPDATE posts SET state = 'cancelled', changed_at = now(), reason = 'cancelled', "
            "version = version + 1 WHERE post_id = :id AND state = ANY(:states)"
        ),
        {"id": post_id, "states": list(CANCELLABLE)},
    )
    if done.rowcount:
        await audit(connection, author, "post.cancelled", post_id, {})
        return "cancelled"
    asked = await connection.execute(
        sql(
            "UPDATE posts SET cancel_at = now(), changed_at = now(), version = version + 1 "
            "WHERE post_id = :id AND state = ANY(:states)"
        ),
        {"id": post_id, "states": list(IN_HAND)},
    )
    if asked.rowcount:
        await audit(connection, author, "post.cancel-asked", post_id, {})
        return "asked"
    return "too late"


async def approve_post(
    connection: AsyncConnection,
    post_id: str,
    *,
    due_at: datetime,
    latest_at: datetime,
    approver: str,
    comment: str,
) -> None:
    """Let a post that waits for a person go on, due then."""
    await connection.execute(
        sql(
            "UPDATE posts SET state = 'queued', due_at = :due, latest_at = :latest, reason = '', "
            "approver = :approver, changed_at = now(), ready_at = clock_timestamp(),"
            " version = version + 1 WHERE post_id = :id AND state IN ('review', 'unapproved')"
        ),
        {"id": post_id, "due": due_at, "latest": latest_at, "approver": approver},
    )
    await audit(connection, approver, "post.approved", post_id, {"comment": comment})


async def reject_post(
    connection: AsyncConnection, post_id: str, *, approver: str, comment: str
) -> None:
    """End a post that waits for a person."""
    await connection.execute(
        sql(
            "UPDATE posts SET state = 'cancelled', reason = :why, changed_at = now(),"
            " version = version + 1 WHERE post_id = :id AND state IN ('review', 'unapproved')"
        ),
        {"id": post_id, "why": f"rejected by {approver}" + (f": {comment}" if comment else "")},
    )
    await audit(connection, approver, "post.rejected", post_id, {"comment": comment})


async def now(connection: AsyncConnection) -> datetime:
    """Return the database's time."""
    found: datetime = (await connection.execute(sql("SELECT clock_timestamp()"))).scalar_one()
    return found


async def count_posts(connection: AsyncConnection, campaign_id: str) -> int:
    """Return how many posts of a campaign count against its budget, archived ones too."""
    found = await counts.by_state(connection, campaign_id)
    return sum(n for state, n in found.items() if state not in ("cancelled", "expired", "failed"))


async def read_outcomes(connection: AsyncConnection, post_id: str) -> list[RowMapping]:
    """Return what became of each try of a post, the oldest first."""
    statement = sql(
        "SELECT attempt, result, at, reason, hold_id, fence, publication FROM outcomes"
        " WHERE post_id = :id UNION ALL"
        " SELECT attempt, result, at, reason, hold_id, fence, publication FROM outcomes_archive"
        " WHERE post_id = :id ORDER BY at"
    )
    return list((await connection.execute(statement, {"id": post_id})).mappings())


async def read_holds_of_lane(connection: AsyncConnection, lane_id: int) -> list[RowMapping]:
    """Return the holds that cover a lane now."""
    statement = sql(
        "SELECT h.hold_id, h.fact FROM lane_holds o JOIN holds h USING (hold_id) WHERE o.lane_id = :lane"
    )
    return list((await connection.execute(statement, {"lane": lane_id})).mappings())


async def read_lane(connection: AsyncConnection, lane_id: int) -> RowMapping:
    """Return a lane."""
    found = await one(connection, "SELECT * FROM lanes WHERE lane_id = :id", id=lane_id)
    assert found is not None, "a post has a lane"
    return found
