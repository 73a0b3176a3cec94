"""The ledger read as evidence: by the publisher itself each minute, and by `interlock audit verify`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.labels import Labels
from services.kit.database import sql
from services.kit.telemetry import Clock
from services.publisher.proof import BROKEN, Rule, Send, prove

EVERY_S: Final = 60.0
BEHIND: Final = timedelta(seconds=30)  # What is being sent just now is looked at the next time.
FETCH_ROWS: Final = 5_000
_COLUMNS: Final = """post_id, account, state, labels::text AS labels, done_at, begun_at,
    fence_begun_at, attempts"""
_WHERE: Final = """kind = 'offer' AND done_at >= :since AND done_at < :until
    AND state IN ('sent', 'retracting', 'retracted', 'retraction_failed')"""
_SENDS: Final = f"""
    SELECT {_COLUMNS} FROM ledger WHERE {_WHERE}
    UNION ALL SELECT {_COLUMNS} FROM ledger_archive WHERE {_WHERE}
"""  # noqa: S608  # Constants.
_UNPROVEN: Final = f"""
    SELECT {_COLUMNS} FROM ledger WHERE {_WHERE} AND (fence_begun_at IS NULL OR begun_at IS NULL
        OR begun_at < fence_begun_at OR begun_at - fence_begun_at >= :lease) LIMIT 1000
"""  # noqa: S608  # Constants.
log = structlog.get_logger()


async def read_sends(
    engine: AsyncEngine, *, since: datetime, until: datetime
) -> AsyncIterator[tuple[Send, str]]:
    """Stream what was published, archive and all, each with its labels as JSON."""
    async with engine.connect() as connection:
        found = await connection.stream(
            sql(_SENDS).execution_options(yield_per=FETCH_ROWS), {"since": since, "until": until}
        )
        async for row in found:
            yield _send(row._mapping), row.labels  # noqa: SLF001  # SQLAlchemy's own.


def labels_of(text_of_labels: str) -> Labels:
    """Return labels as the ledger's JSON has them."""
    found: Labels = json.loads(text_of_labels)
    return found


def _send(row: object) -> Send:
    return Send(**{name: row[name] for name in Send.__dataclass_fields__})  # type: ignore[index]


class Audit:
    """Looks each minute at what was sent since, for a send that its row does not prove."""

    def __init__(
        self, engine: AsyncEngine, *, clock: Clock, lease_s: float, registry: CollectorRegistry
    ) -> None:
        self.engine, self.clock = engine, clock
        self.rule = Rule(lease=timedelta(seconds=lease_s))
        self.since = clock.now() - BEHIND
        self.broken = Counter(
            "interlock_unproven_sends_total",
            "Offers whose row in the ledger does not prove their fence.",
            registry=registry,
        )

    async def keep_checking(self) -> None:
        """Check what is new, for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.check()
            except Exception as error:  # The database's: the next round looks at it.
                log.error("audit", error=str(error))

    async def check(self) -> int:
        """Check what was sent since the last time; return how many sends are not proven."""
        until = self.clock.now() - BEHIND
        values = {"since": self.since, "until": until, "lease": self.rule.lease}
        async with self.engine.connect() as connection:
            rows = (await connection.execute(sql(_UNPROVEN), values)).mappings().all()
        found = [(one, prove(one, (), self.rule, now=until)) for one in map(_send, rows)]
        broken = [(one, said) for one, said in found if said[0] in BROKEN]
        for one, (verdict, why) in broken:
            log.error("not proven", post=one.post_id, account=one.account, verdict=verdict, why=why)
        self.broken.inc(len(broken))
        self.since = until
        return len(broken)
