"""Kept answers and the audit: what was asked once is answered once, and who did what. SQL only."""

from __future__ import annotations

import json
from typing import Any, Final

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

ANSWER_DAYS: Final = 7


async def recall_answer(
    connection: AsyncConnection, *, caller: str, key: str, request: str
) -> tuple[str, int | None, Any]:
    """Take an Idempotency-Key; returns the request it was first used for, and its answer if any.

    A second request with the key waits here until the first one's transaction has ended.
    """
    values = {"caller": caller, "key": key, "request": request}
    taken = await connection.execute(
        text(
            "INSERT INTO answers (caller, key, request) VALUES (:caller, :key, :request) "
            "ON CONFLICT DO NOTHING RETURNING request"
        ),
        values,
    )
    if taken.one_or_none() is not None:
        return request, None, None
    row = await one(
        connection,
        "SELECT request, status, answer FROM answers WHERE caller = :caller AND key = :key",
        caller=caller,
        key=key,
    )
    if row is None:  # It was forgotten in this moment.
        return request, None, None
    return row["request"], row["status"], row["answer"]


async def forget_answers(connection: AsyncConnection) -> None:
    """Forget what nobody sends again."""
    await connection.execute(
        text("DELETE FROM answers WHERE created_at < now() - make_interval(days => :days)"),
        {"days": ANSWER_DAYS},
    )


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
        {
            "author": author,
            "action": action,
            "subject": subject,
            "detail": json.dumps(detail, default=str),
        },
    )


async def read_audit(connection: AsyncConnection, subjects: list[str]) -> list[RowMapping]:
    """Return what was done to some subjects, the oldest first."""
    statement = text(
        "SELECT at, author, action, subject, detail FROM audit WHERE subject = ANY(:subjects)"
        " ORDER BY number"
    )
    return list((await connection.execute(statement, {"subjects": subjects})).mappings())


async def one(connection: AsyncConnection, statement: str, **values: Any) -> RowMapping | None:
    """Return the one row, or None."""
    return (await connection.execute(text(statement), values)).mappings().one_or_none()
