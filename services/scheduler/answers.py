"""Kept answers and the audit: what was asked once is answered once, and who did what. SQL only."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.database import sql

ANSWER_DAYS: Final = 7


class Key(NamedTuple):
    """An Idempotency-Key of a caller, and the digest of the request it is used for."""

    caller: str
    name: str
    request: str


async def take_keys(connection: AsyncConnection, keys: Iterable[Key]) -> set[Key]:
    """Take Idempotency-Keys; returns those that were new.

    A second request with a key waits here until the first one's transaction has ended.
    """
    ordered = sorted(keys)  # Two who take the same ones do not wait for each other.
    if not ordered:
        return set()
    taken = await connection.execute(
        sql(
            "INSERT INTO answers (caller, key, request) SELECT * FROM"
            " unnest(CAST(:callers AS text[]), CAST(:keys AS text[]), CAST(:requests AS text[]))"
            " ON CONFLICT DO NOTHING RETURNING caller, key, request"
        ),
        {
            "callers": [one.caller for one in ordered],
            "keys": [one.name for one in ordered],
            "requests": [one.request for one in ordered],
        },
    )
    return {Key(row.caller, row.key, row.request) for row in taken}


async def recall_answer(connection: AsyncConnection, key: Key) -> tuple[str, int | None, Any]:
    """Take a key; returns the digest of the request it was first used for, and its answer if any."""
    if await take_keys(connection, [key]):
        return key.request, None, None
    row = await one(
        connection,
        "SELECT request, status, answer FROM answers WHERE caller = :caller AND key = :key",
        caller=key.caller,
        key=key.name,
    )
    if row is None:  # It was forgotten in this moment.
        return key.request, None, None
    return row["request"], row["status"], row["answer"]


async def forget_keys(connection: AsyncConnection, keys: Iterable[Key]) -> None:
    """Give keys back that came to nothing."""
    for key in keys:
        await connection.execute(
            sql("DELETE FROM answers WHERE caller = :caller AND key = :key"),
            {"caller": key.caller, "key": key.name},
        )


async def forget_answers(connection: AsyncConnection) -> None:
    """Forget what nobody sends again."""
    await connection.execute(
        sql("DELETE FROM answers WHERE created_at < now() - make_interval(days => :days)"),
        {"days": ANSWER_DAYS},
    )


async def keep_answers(
    connection: AsyncConnection, kept: Sequence[tuple[Key, bytes]], *, status: int
) -> None:
    """Keep the answers to requests for whoever sends them again."""
    if kept:
        await connection.execute(
            sql(
                "UPDATE answers SET status = :status, answer = CAST(:answer AS jsonb) "
                "WHERE caller = :caller AND key = :key"
            ),
            [
                {"caller": key.caller, "key": key.name, "status": status, "answer": answer.decode()}
                for key, answer in kept
            ],
        )


async def audit(
    connection: AsyncConnection, author: str, action: str, subject: str, detail: dict[str, Any]
) -> None:
    """Write down who did what."""
    await audit_all(connection, [(author, action, subject, detail)])


async def audit_all(
    connection: AsyncConnection, lines: Sequence[tuple[str, str, str, dict[str, Any]]]
) -> None:
    """Write down who did what: author, action, subject and detail of each."""
    if lines:
        await connection.execute(
            sql(
                "INSERT INTO audit (author, action, subject, detail) "
                "VALUES (:author, :action, :subject, CAST(:detail AS jsonb))"
            ),
            [
                {
                    "author": author,
                    "action": action,
                    "subject": subject,
                    "detail": json.dumps(detail, default=str),
                }
                for author, action, subject, detail in lines
            ],
        )


async def read_audit(connection: AsyncConnection, subjects: list[str]) -> list[RowMapping]:
    """Return what was done to some subjects, the oldest first."""
    statement = sql(
        "SELECT at, author, action, subject, detail FROM audit WHERE subject = ANY(:subjects)"
        " ORDER BY number"
    )
    return list((await connection.execute(statement, {"subjects": subjects})).mappings())


async def one(connection: AsyncConnection, statement: str, **values: Any) -> RowMapping | None:
    """Return the one row, or None."""
    return (await connection.execute(sql(statement), values)).mappings().one_or_none()
