"""When an account may be asked: its circuit, of this process, and its rate, of all publishers."""

from __future__ import annotations

from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from services.kit.database import sql
from services.kit.telemetry import Clock
from services.publisher import circuit
from services.publisher.circuit import Circuit
from services.publisher.rates import Go, Purpose, Rate, Told, Wait, heard, take

ASK_AGAIN_S: Final = 2.0  # Where no limit is known, whether another publisher was told of one.
_READ: Final = sql(
    "SELECT most, remaining, reset_at FROM rates WHERE account = :account AND bucket = :bucket"
    " FOR UPDATE"
)
_READ_ALL: Final = sql(
    "SELECT bucket, most, remaining, reset_at FROM rates WHERE account = :account"
)
_WRITE: Final = sql(
    "INSERT INTO rates (account, bucket, most, remaining, reset_at)"
    " VALUES (:account, :bucket, :most, :remaining, :reset_at)"
    " ON CONFLICT (account, bucket) DO UPDATE SET most = EXCLUDED.most,"
    " remaining = EXCLUDED.remaining, reset_at = EXCLUDED.reset_at"
)
log = structlog.get_logger()


class Paces:
    """The circuits and rates of all accounts."""

    def __init__(
        self, engine: AsyncEngine, *, clock: Clock, registry: CollectorRegistry | None = None
    ) -> None:
        self.engine, self.clock = engine, clock
        self.circuits: dict[str, Circuit] = {}
        self._unlimited_until_s: dict[tuple[str, str], float] = {}
        if registry is not None:
            Gauge("interlock_open_circuits", "Accounts that fail.", registry=registry).set_function(
                lambda: sum(one.is_open for one in self.circuits.values())
            )

    async def wait_s(
        self, account: str, purpose: Purpose, *, has_rate: bool, bucket: str = "create"
    ) -> float:
        """Return how long to wait; 0 means that one of the account's window was taken."""
        if purpose == "offer":
            now_s = self.clock.monotonic_s()
            known = self.circuits.get(account, Circuit())
            wait_s = circuit.wait_s(known, now_s=now_s)
            if wait_s:
                return wait_s
            self.circuits[account] = circuit.probing(known, now_s=now_s)
        return await self._take(account, bucket, purpose) if has_rate else 0.0

    async def _take(self, account: str, bucket: str, purpose: Purpose) -> float:
        now_s = self.clock.monotonic_s()
        if now_s < self._unlimited_until_s.get((account, bucket), 0.0):
            return 0.0
        async with self.engine.begin() as connection:
            rate = await self._read(connection, account, bucket)
            if rate is None:  # Nobody was told of a limit yet.
                self._unlimited_until_s[account, bucket] = now_s + ASK_AGAIN_S
                return 0.0
            match take(rate, purpose, now=self.clock.now()):
                case Go(left):
                    await self._write(connection, account, bucket, left)
                    return 0.0
                case Wait(seconds):
                    return seconds

    async def hear(self, account: str, told: Told | None) -> None:
        """Keep what an answer said of the account's rate; where the database does not answer, the next one tells again."""
        if told is None:
            return
        self._unlimited_until_s.pop((account, told.bucket), None)
        try:
            async with self.engine.begin() as connection:
                known = await self._read(connection, account, told.bucket)
                await self._write(connection, account, told.bucket, heard(known, told))
        except (SQLAlchemyError, OSError) as error:
            log.warning("a rate was not kept", account=account, error=str(error))

    async def rates(self, account: str) -> dict[str, Rate]:
        """Return what is known of an account's rates, by bucket."""
        async with self.engine.connect() as connection:
            rows = await connection.execute(_READ_ALL, {"account": account})
            return {
                row.bucket: Rate(limit=row.most, remaining=row.remaining, reset_at=row.reset_at)
                for row in rows
            }

    def unused(self, account: str) -> None:
        """Note that an offer had its turn and did not ask the account, or was told nothing of how it is."""
        if (known := self.circuits.get(account)) is not None:
            self.circuits[account] = circuit.unprobed(known, now_s=self.clock.monotonic_s())

    def worked(self, account: str) -> None:
        """Note that the account answered."""
        if self.circuits.pop(account, Circuit()).is_open:
            log.info("account answers again", account=account)

    def failed(self, account: str, why: str) -> None:
        """Note that the account failed."""
        before = self.circuits.get(account, Circuit())
        after = circuit.failed(before, why, now_s=self.clock.monotonic_s())
        self.circuits[account] = after
        if after.is_open and not before.is_open:
            log.warning("account fails: its offers wait", account=account, why=why)

    def remarks(self) -> dict[str, str]:
        """Say which accounts fail, and why."""
        return {
            f"account {name}": f"failed {one.failures} times in a row: {one.why}"
            for name, one in self.circuits.items()
            if one.is_open
        }

    async def _read(self, connection: AsyncConnection, account: str, bucket: str) -> Rate | None:
        found = await connection.execute(_READ, {"account": account, "bucket": bucket})
        row = found.one_or_none()
        if row is None:
            return None
        return Rate(limit=row.most, remaining=row.remaining, reset_at=row.reset_at)

    async def _write(
        self, connection: AsyncConnection, account: str, bucket: str, rate: Rate
    ) -> None:
        values = {
            "account": account,
            "bucket": bucket,
            "most": rate.limit,
            "remaining": rate.remaining,
            "reset_at": rate.reset_at,
        }
        await connection.execute(_WRITE, values)
