"""Real PostgreSQL under made-up time, as the scheduler's processes of a schedule have it.

The connections live on a real loop of their own, as asyncpg needs one: a statement is asked and
waited for while made-up time stands, and what a round trip takes passes before it and behind it. The
database's clocks are the schedule's: functions of their names stand before PostgreSQL's in the search path.

A statement that meets a lock of another transaction would wait for ever, since nothing else runs: it ends after
milliseconds, is taken back to a savepoint, and is asked again a little later. So a lock that a
statement waited for is not in a queue, and what it had locked before is free meanwhile.
"""

from __future__ import annotations

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from ops.embedded import postgres
from ops.embedded.process import free_port
from services.kit import database
from services.scheduler.app import VERSIONS
from services.scheduler.store import SCHEMA
from tests.simulation.loop import EPOCH, Process

T = TypeVar("T")
LOCKED: Final = "55P03"  # lock_not_available.
LOCK_MS: Final = 5
# How soon a statement that met a lock is asked again, at first and at last.
AGAIN_S: Final = (0.005, 0.3)
OF_A_ROUND_TRIP: Final = 0.15  # A transaction makes many of them.
PATIENCE_S: Final = database.STATEMENT_MS / 1_000
CLOCKS: Final = """
    CREATE SCHEMA made_up;
    CREATE FUNCTION made_up.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
        AS $$ SELECT current_setting('made_up.now')::timestamptz $$;
    CREATE FUNCTION made_up.now() RETURNS timestamptz LANGUAGE sql STABLE
        AS $$ SELECT current_setting('made_up.begun')::timestamptz $$;
"""
TABLES: Final = """
    SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') FROM pg_tables
    WHERE schemaname = $1 AND tablename <> 'alembic_version'
"""


class Server:
    """A PostgreSQL of this process's own, empty at the beginning of each schedule."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._folder = tempfile.TemporaryDirectory(prefix="interlock-simulation-")
        folder, port = Path(self._folder.name), free_port()
        folder.chmod(0o755)
        settings = {
            "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
            "autovacuum": "off",  # A plan that changes would change the order of rows.
            "lock_timeout": str(LOCK_MS),
        }  # fmt: skip
        self._child = postgres.start(
            folder / "data", port=port, log=folder / "postgres.log", settings=settings
        )
        postgres.wait_ready(self._child, port=port)
        now = EPOCH.isoformat()
        self._engine = create_async_engine(
            postgres.address(port).replace("postgresql", "postgresql+asyncpg"),
            isolation_level="AUTOCOMMIT", pool_size=20,
            connect_args={"server_settings": {
                "search_path": f"{SCHEMA}, made_up, pg_catalog", "timezone": "UTC",
                "made_up.now": now, "made_up.begun": now,
            }},
        )  # fmt: skip
        self._tables = self.do(self._make())

    def do(self, act: Coroutine[Any, Any, T]) -> T:
        """Do something there, while everything here waits."""
        ours = asyncio._get_running_loop()
        asyncio._set_running_loop(None)  # Both are there for who makes loops.
        try:
            return self._loop.run_until_complete(act)
        finally:
            asyncio._set_running_loop(ours)

    async def _make(self) -> str:
        driver, connection = await self.connect()
        await driver.execute(CLOCKS)
        await database.migrate(self._engine, schema=SCHEMA, versions=VERSIONS)
        tables: str = await driver.fetchval(TABLES, SCHEMA)
        await connection.close()
        return tables

    def empty(self) -> None:
        """Forget all of the last schedule."""
        self.do(self._say(f"TRUNCATE {self._tables} RESTART IDENTITY"))

    async def _say(self, statement: str) -> None:
        async with self._engine.connect() as connection:
            await connection.exec_driver_sql(statement)

    def read(self, statement: str) -> list[Any]:
        """Return rows as they stand committed; takes no time."""

        async def act() -> list[Any]:
            async with self._engine.connect() as connection:
                return list((await connection.execute(text(statement))).mappings())

        return self.do(act())

    async def connect(self) -> tuple[Any, AsyncConnection]:
        """Return a connection, and the driver's own, on which nothing is begun; to be used by `do` only."""
        connection = await self._engine.connect()
        return (await connection.get_raw_connection()).driver_connection, connection

    def stop(self) -> None:
        self._child.stop(signal.SIGINT)  # Whoever is connected is not waited for.
        self._folder.cleanup()


class Database:
    """The server as the processes of one schedule reach it."""

    def __init__(self, server: Server, world: Any) -> None:
        server.empty()
        self.server, self.world = server, world
        self.open: dict[Transaction, Process] = {}

    def engine(self, process: Process) -> Any:
        """Return what stands for a process's AsyncEngine."""
        return Engine(self, process)

    def forget(self, process: Process) -> None:
        """Roll back what a process that was killed had begun."""
        for one, whose in list(self.open.items()):
            if whose is process:
                one.end("ROLLBACK")

    def now(self) -> datetime:
        """Return the time by the database's clock."""
        now: datetime = self.world.loop.wall()
        return now

    async def pass_time(self) -> None:
        """Let half a round trip pass; in a fault the connection breaks by it."""
        chance = self.world.log.chance
        await asyncio.sleep(chance.uniform(0.0002, 0.8 if chance.random() < 0.01 else 0.002))
        if chance.random() < self.world.plant.database_faults * OF_A_ROUND_TRIP:
            raise OperationalError("", {}, Exception("the connection broke"))


class Engine:
    """As much of an AsyncEngine as the scheduler's queue asks for."""

    def __init__(self, database: Database, process: Process) -> None:
        self.database, self.process = database, process

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Transaction]:
        async with self._transaction() as one:
            yield one
            await one.commit()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Transaction]:
        async with self._transaction() as one:
            yield one

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Transaction]:
        one = Transaction(self.database)
        self.database.open[one] = self.process
        try:
            yield one
        finally:  # Of a killed process it runs at the end of the schedule: it was rolled back then.
            one.end("ROLLBACK")


class Transaction:
    """As much of an AsyncConnection as the scheduler's queue asks for."""

    def __init__(self, database: Database) -> None:
        self.database, self.server = database, database.server
        self._is_begun = self._is_over = False
        self._driver, self._connection = self.server.do(self.server.connect())

    async def execute(self, statement: Any, values: Any = None) -> Any:
        """Ask a statement; its rows are all here when it is answered."""
        await self.database.pass_time()
        waited_s, wait_s = 0.0, AGAIN_S[0]
        while (found := self.server.do(self._ask(statement, values, waited_s))) is None:
            await asyncio.sleep(wait_s)
            waited_s, wait_s = waited_s + wait_s, min(2 * wait_s, AGAIN_S[1])
        await self.database.pass_time()
        return found

    async def _ask(self, statement: Any, values: Any, waited_s: float) -> Any:
        """Return a statement's answer; None where it met a lock, and may be asked again."""
        assert not self._is_over, "a process that was killed asks nothing"
        before, now = [], self.database.now().isoformat()
        if not self._is_begun:
            begun = f"SET LOCAL made_up.begun = '{now}'"
            before += ["BEGIN", begun, f"SET LOCAL made_up.now = '{now}'"]
        elif "clock_timestamp" in str(statement):
            before += [f"SET LOCAL made_up.now = '{now}'"]
        if len(self.database.open) > 1:  # Alone it meets no lock.
            before += ["SAVEPOINT before"]
        self._is_begun = True
        if before:
            await self._driver.execute("; ".join(before))
        try:
            return await self._connection.execute(statement, values)
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != LOCKED or waited_s > PATIENCE_S:
                raise
            await self._driver.execute("ROLLBACK TO SAVEPOINT before")
            return None

    async def commit(self) -> None:
        """Commit; in a fault the connection breaks before it, or the answer is lost."""
        await self.database.pass_time()
        self.end("COMMIT")
        await self.database.pass_time()

    def end(self, how: str) -> None:
        """End it at once, if it has not ended."""
        if self._is_over:
            return
        self._is_over = True
        self.database.open.pop(self, None)
        self.server.do(self._end(how))

    async def _end(self, how: str) -> None:
        if self._is_begun:
            await self._driver.execute(how)
        await self._connection.close()
