"""PostgreSQL as every service uses it: one pool, one schema of its own, migrations at the start."""

from __future__ import annotations

import functools
import math
import time
import zlib
from pathlib import Path
from typing import Any, Final

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, ExceptionContext, event, exc, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from services.kit.sockets import GONE_S, watch

POOL_SIZE: Final = 8
IDLE_S: Final = 5.0
CONNECT_S: Final = 10
STATEMENT_MS: Final = 15_000
SILENT_S: Final = 20.0  # It would have ended the statement by then.
IDLE_IN_TRANSACTION_MS: Final = 10_000  # Who is gone keeps no row locked.
_WATCHED: Final = {  # By PostgreSQL, as by us: it kept what we had given up for two hours, until it took no more.
    "tcp_keepalives_idle": GONE_S // 2,
    "tcp_keepalives_interval": 1,
    "tcp_user_timeout": GONE_S * 1_000,
}
OUTAGES: Final = (exc.DBAPIError, exc.TimeoutError, OSError)
MISTAKES: Final = (exc.IntegrityError, exc.ProgrammingError, exc.DataError)  # Of ours, among them.
sql: Final = functools.lru_cache(1_000)(text)  # Parsed once, not at each use.


def new_engine(database: str, *, schema: str) -> AsyncEngine:
    """Return a pool for a `postgresql://` address whose search path is this service's schema."""
    if not database.startswith("postgresql://"):
        raise ValueError("INTERLOCK_DATABASE: an address such as postgresql://user@host/name")
    limits = {
        "statement_timeout": STATEMENT_MS,
        "idle_in_transaction_session_timeout": IDLE_IN_TRANSACTION_MS,
    }
    engine = create_async_engine(
        database.replace("postgresql://", "postgresql+asyncpg://", 1),
        pool_size=POOL_SIZE,
        max_overflow=0,
        connect_args=_connect_args(schema, limits, SILENT_S),
    )
    event.listen(engine.sync_engine, "connect", _watch)
    event.listen(engine.sync_engine, "checkin", _note_use)
    event.listen(engine.sync_engine, "checkout", _ping_if_idle)
    event.listen(engine.sync_engine, "handle_error", _name_refusal)
    return engine


def _connect_args(schema: str, limits: dict[str, int], silent_s: float | None) -> dict[str, Any]:
    of_session = {"search_path": schema, "timezone": "UTC"}
    of_session |= {name: str(value) for name, value in (_WATCHED | limits).items()}
    return {"timeout": CONNECT_S, "command_timeout": silent_s, "server_settings": of_session}


def _watch(connection: Any, _: ConnectionPoolEntry) -> None:
    watch(connection.driver_connection._transport)  # noqa: SLF001  # asyncpg has no option for it.


def _name_refusal(context: ExceptionContext) -> None:
    """Raise DataError for values that PostgreSQL refuses (class 22): asyncpg's dialect has no name for it."""
    if str(getattr(context.original_exception, "sqlstate", "")).startswith("22"):
        raise exc.DataError(context.statement, None, context.original_exception)


def _note_use(_: Any, record: ConnectionPoolEntry) -> None:
    record.info["used_s"] = time.monotonic()


def _ping_if_idle(connection: Any, record: ConnectionPoolEntry, _: Any) -> None:
    """Ask a connection that has rested whether it lives; SQLAlchemy's `pool_pre_ping` asks each time."""
    if time.monotonic() - record.info.get("used_s", math.inf) > IDLE_S:
        try:
            connection.ping()
        except Exception as error:  # Any of the driver's: the pool makes another.
            raise exc.DisconnectionError from error


async def migrate(engine: AsyncEngine, *, schema: str, versions: Path) -> None:
    """Bring the schema to its newest version; services that start together wait for each other."""
    args = _connect_args(schema, {}, None)  # An index may take its time.
    patient = create_async_engine(engine.url, poolclass=NullPool, connect_args=args)
    event.listen(patient.sync_engine, "connect", _watch)
    async with patient.begin() as connection:
        lock = zlib.crc32(f"interlock/{schema}".encode())
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": lock})
        await connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {schema}"))
        await connection.run_sync(_upgrade, schema, versions)


def _upgrade(connection: Connection, schema: str, versions: Path) -> None:
    script = ScriptDirectory(str(versions.parent), version_locations=[str(versions)])
    steps = script._upgrade_revs  # noqa: SLF001
    with EnvironmentContext(Config(), script, fn=lambda at, _: steps("head", at)) as context:
        context.configure(connection=connection, version_table_schema=schema)
        try:
            context.run_migrations()
        except CommandError as error:  # Its version is none of ours.
            why = f"schema {schema} is of a newer Interlock ({error}): start that one"
            raise RuntimeError(why) from None
