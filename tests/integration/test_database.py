"""The pool: a connection that rested and has died costs no request."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from ops.embedded.system import System
from services.kit import database


@pytest.mark.parametrize("idle_s", [-1.0, 60.0])
async def test_a_connection_that_died_while_it_rested_is_replaced(
    system: System, monkeypatch: pytest.MonkeyPatch, idle_s: float
) -> None:
    monkeypatch.setattr(database, "IDLE_S", idle_s)
    engine = database.new_engine(system.database, schema="public")
    other = database.new_engine(system.database, schema="public")
    try:
        async with engine.connect() as connection:
            pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        async with other.connect() as connection:
            await connection.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        if idle_s > 0:  # It did not rest: nobody asks, and it fails.
            with pytest.raises(DBAPIError):
                await _ask(engine)
        await _ask(engine)
    finally:
        await engine.dispose()
        await other.dispose()


async def _ask(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
