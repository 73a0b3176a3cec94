"""A queue of the tests: the scheduler's tables in a schema of their own, on real PostgreSQL."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ops.embedded.system import System
from schemas.posts import DuePost
from services.kit import database
from services.scheduler import campaign_desk, desk
from services.scheduler.app import VERSIONS
from services.scheduler.bodies import CampaignBody
from services.scheduler.lane_store import LaneStore, lane_of
from services.scheduler.store import Store

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass
class Queue:
    """One queue, and what a test does to it."""

    engine: AsyncEngine
    store: Store
    lanes: LaneStore
    schema: str
    campaign: str = ""

    async def new_campaign(self, **values: Any) -> str:
        known = CampaignBody.model_validate({"name": "queue"} | values)
        columns = {name: getattr(known, name) for name in campaign_desk.COLUMNS}
        columns |= {"accounts": [], "recovery": known.recovery.model_dump(mode="json")}
        async with self.engine.begin() as connection:
            row = await campaign_desk.add_campaign(
                connection, columns, state="running", author="ada"
            )
        self.campaign = row["campaign_id"]
        return self.campaign

    async def add(
        self,
        *due: timedelta,
        line: str = "coast",
        expect: bool = True,
        state: str = "queued",
        running: bool = True,
        useful: timedelta = timedelta(hours=1),
    ) -> list[str]:
        """Queue offers that are due so far from now."""
        now = datetime.now(UTC)
        async with self.engine.begin() as connection:
            lane = await lane_of(
                connection, self.campaign, {"line": line}, running=running, priority=0
            )
            rows: list[dict[str, Any]] = [
                {
                    "lane_id": lane, "account": "social-en", "text": "To the sea", "language": None,
                    "due_at": now + one, "latest_at": now + one + useful, "media": [], "thread": [],
                    "card": None, "external_id": None,
                }
                for one in due
            ]  # fmt: skip
            ids = await desk.add_posts(connection, self.campaign, rows, state=state, author="ada")
        if expect:
            await self.lanes.expect({lane: now + min(due)})
        return ids

    async def claim(self, returned_at: datetime = LONG_AGO) -> list[DuePost]:
        await self.store.look()
        found = await self.store.claim_due(returned_at)
        return found.posts if found else []

    async def claim_all(self) -> list[str]:
        found: list[str] = []
        while posts := await self.claim():
            found += [due.post.post_id for due in posts]
        return found

    async def state(self, post_id: str) -> str:
        async with self.engine.connect() as connection:
            row = await desk.read_post(connection, post_id)
        assert row is not None
        found: str = row["state"]
        return found

    async def run(self, statement: str, **values: Any) -> None:
        async with self.engine.begin() as connection:
            await connection.execute(text(statement), values)

    async def close(self) -> None:
        await self.run(f"DROP SCHEMA {self.schema} CASCADE")
        await self.engine.dispose()


async def new_queue(system: System) -> Queue:
    """Return a queue with one campaign."""
    schema = f"queue_{uuid.uuid4().hex[:12]}"
    engine = database.new_engine(system.database, schema=schema)
    await database.migrate(engine, schema=schema, versions=VERSIONS)
    made = Queue(engine, Store(engine), LaneStore(engine), schema)
    await made.new_campaign()
    return made
