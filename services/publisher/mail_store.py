"""Who gets mail, and what each of them got: SQL, and nothing decided."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.base import without_nul
from services.kit.database import sql

Delivered = Literal["begun", "sent", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscriber:
    """Somebody who asked for updates; the id is the secret of their links."""

    subscriber_id: str
    address: str
    language: str
    matchers: str
    state: Literal["asked", "confirmed"]
    asked_at: datetime


class MailStore:
    """The tables of subscribers and of their mail."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def confirmed(self) -> list[Subscriber]:
        """Return those who confirmed that they want mail."""
        return await self._read("state = 'confirmed' ORDER BY address", {})

    async def find(self, subscriber_id: str) -> Subscriber | None:
        """Return one subscriber by the secret of their links."""
        found = await self._read("subscriber_id = :id", {"id": subscriber_id})
        return found[0] if found else None

    async def find_address(self, address: str) -> Subscriber | None:
        """Return one subscriber by the address."""
        found = await self._read("address = :address", {"address": address})
        return found[0] if found else None

    async def ask(self, one: Subscriber, *, again_before: datetime) -> Subscriber:
        """Note that an address asked for mail; return who it is: the one known before, if any.

        One that has confirmed, or has asked since `again_before`, stays as it is.
        """
        await self._write(
            "INSERT INTO subscribers (subscriber_id, address, language, matchers, state, asked_at)"
            " VALUES (:subscriber_id, :address, :language, :matchers, 'asked', :asked_at)"
            " ON CONFLICT (address) DO UPDATE SET language = EXCLUDED.language,"
            " matchers = EXCLUDED.matchers, asked_at = EXCLUDED.asked_at"
            " WHERE subscribers.state = 'asked' AND subscribers.asked_at < :again_before",
            again_before=again_before,
            subscriber_id=one.subscriber_id,
            address=one.address,
            language=one.language,
            matchers=one.matchers,
            asked_at=one.asked_at,
        )
        known = await self.find_address(one.address)
        assert known is not None, "it was written a moment ago"
        return known

    async def confirm(self, subscriber_id: str) -> bool:
        """Note that whoever has the link wants mail; again is the same."""
        return await self._write(
            "UPDATE subscribers SET state = 'confirmed', confirmed_at = coalesce(confirmed_at, now())"
            " WHERE subscriber_id = :id",
            id=subscriber_id,
        )

    async def remove(self, subscriber_id: str) -> bool:
        """Forget a subscriber and the address."""
        return await self._write(
            "DELETE FROM subscribers WHERE subscriber_id = :id", id=subscriber_id
        )

    async def forget_unconfirmed(self, before: datetime) -> bool:
        """Forget addresses that asked and never confirmed."""
        return await self._write(
            "DELETE FROM subscribers WHERE state = 'asked' AND asked_at < :before", before=before
        )

    async def delivered(self, post_id: str) -> dict[str, Delivered]:
        """Return, by recipient, what is known of a post's mails."""
        async with self.engine.connect() as connection:
            rows = await connection.execute(
                sql("SELECT recipient, state FROM deliveries WHERE post_id = :id"),
                {"id": post_id},
            )
            return {row.recipient: row.state for row in rows}

    async def note(
        self, post_id: str, recipient: str, state: Delivered, *, detail: str = ""
    ) -> None:
        """Note what became of one mail."""
        await self._write(
            "INSERT INTO deliveries (post_id, recipient, state, detail)"
            " VALUES (:post_id, :recipient, :state, :detail) ON CONFLICT (post_id, recipient)"
            " DO UPDATE SET state = EXCLUDED.state, detail = EXCLUDED.detail, at = now()",
            post_id=post_id,
            recipient=recipient,
            state=state,
            detail=without_nul(detail[:500]),
        )

    async def forget_begun(self, post_id: str, recipient: str) -> None:
        """Take back that a mail was begun: it was certainly not sent."""
        await self._write(
            "DELETE FROM deliveries WHERE post_id = :post_id AND recipient = :recipient"
            " AND state = 'begun'",
            post_id=post_id,
            recipient=recipient,
        )

    async def _read(self, where: str, values: dict[str, Any]) -> list[Subscriber]:
        columns = ", ".join(Subscriber.__dataclass_fields__)
        statement = sql(f"SELECT {columns} FROM subscribers WHERE {where}")  # noqa: S608  # Ours.
        async with self.engine.connect() as connection:
            rows = await connection.execute(statement, values)
            return [Subscriber(**row._mapping) for row in rows]  # noqa: SLF001  # SQLAlchemy's own.

    async def _write(self, statement: str, **values: Any) -> bool:
        async with self.engine.begin() as connection:
            return bool((await connection.execute(sql(statement), values)).rowcount)
