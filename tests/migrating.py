"""Migrations, down and up again."""

from __future__ import annotations

from pathlib import Path

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine


async def down_and_up(engine: AsyncEngine, versions: Path) -> None:
    """Take the schema of an engine down to its first version, and up to its last."""
    await move(engine, versions, "0001", down=True)
    await move(engine, versions, "head", down=False)


async def move(engine: AsyncEngine, versions: Path, revision: str, *, down: bool) -> None:
    """Take the schema of an engine up or down to a version."""
    async with engine.begin() as connection:
        await connection.run_sync(_move, versions, revision, down=down)


def _move(connection: Connection, versions: Path, revision: str, *, down: bool) -> None:
    script = ScriptDirectory(str(versions.parent), version_locations=[str(versions)])
    steps = script._downgrade_revs if down else script._upgrade_revs
    context = EnvironmentContext(Config(), script, fn=lambda at, _: steps(revision, at))
    schema = connection.execute(text("SELECT current_schema()")).scalar_one()
    with context:
        context.configure(connection=connection, version_table_schema=schema)
        context.run_migrations()
