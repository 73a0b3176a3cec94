"""The browsers that want to be told: SQL, and nothing decided."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit.database import sql


@dataclass(frozen=True, slots=True, kw_only=True)
class Browser:
    """One push subscription (W3C Push API, `PushSubscription`); whoever knows the endpoint may end it."""

    endpoint: str
    p256dh: str
    auth: str
    language: str
    matchers: str

    @property
    def name(self) -> str:
        """Return what stands for the endpoint elsewhere; the endpoint itself is a secret."""
        return hashlib.sha256(self.endpoint.encode()).hexdigest()[:32]


class PushStore:
    """The table of browsers, and which of them were told."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def browsers(self) -> list[Browser]:
        """Return all of them."""
        return await self._read("true", {})

    async def find(self, endpoint: str) -> Browser | None:
        """Return one by its endpoint."""
        found = await self._read("endpoint = :endpoint", {"endpoint": endpoint})
        return found[0] if found else None

    async def _read(self, where: str, values: dict[str, Any]) -> list[Browser]:
        columns = ", ".join(Browser.__dataclass_fields__)
        statement = sql(f"SELECT {columns} FROM browsers WHERE {where}")  # noqa: S608  # Ours.
        async with self.engine.connect() as connection:
            rows = await connection.execute(statement, values)
            return [Browser(**row._mapping) for row in rows]  # noqa: SLF001  # SQLAlchemy's own.

    async def add(self, one: Browser) -> None:
        """Take one in; again it takes the new keys and choices."""
        columns = list(Browser.__dataclass_fields__)
        await self._write(
            f"INSERT INTO browsers ({', '.join(columns)}) "  # noqa: S608  # Our own names.
            f"VALUES ({', '.join(':' + name for name in columns)}) ON CONFLICT (endpoint) DO UPDATE "
            f"SET {', '.join(f'{name} = EXCLUDED.{name}' for name in columns[1:])}",
            {name: getattr(one, name) for name in columns},
        )

    async def remove(self, endpoint: str) -> bool:
        """Forget one; say whether it was there."""
        statement = "DELETE FROM browsers WHERE endpoint = :endpoint"
        return await self._write(statement, {"endpoint": endpoint})

    async def told(self, post_id: str) -> set[str]:
        """Return the names of the browsers that a post has reached, or never will."""
        async with self.engine.connect() as connection:
            rows = await connection.execute(
                sql("SELECT recipient FROM deliveries WHERE post_id = :id"), {"id": post_id}
            )
            return {row.recipient for row in rows}

    async def note(self, post_id: str, found: Sequence[tuple[str, str]]) -> None:
        """Note what became of some notifications: (name of the browser, `sent` or `refused`)."""
        await self._write(
            "INSERT INTO deliveries (post_id, recipient, state)"
            " SELECT :post_id, name, state FROM unnest(:names ::text[], :states ::text[])"
            " AS new (name, state) ON CONFLICT (post_id, recipient) DO NOTHING",
            {
                "post_id": post_id,
                "names": [name for name, _ in found],
                "states": [state for _, state in found],
            },
        )

    async def _write(self, statement: str, values: dict[str, Any]) -> bool:
        async with self.engine.begin() as connection:
            return bool((await connection.execute(sql(statement), values)).rowcount)
