"""The pool: a connection that rested and has died costs no request. The schema: none of a newer version is touched."""

from __future__ import annotations

import socket
import uuid
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DataError, DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from ops.embedded.system import System
from services.kit import database
from services.kit.sockets import GONE_S
from services.publisher.app import VERSIONS
from tests.frozen import a_way_to


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


@pytest.mark.parametrize(
    ("statement", "value"),
    [("SELECT CAST(:a AS text)", "\x00"), ("SELECT CAST(:a AS jsonb)", '"\\u0000"'), ("SELECT CAST(:a AS int)", 2**40)],
)  # fmt: skip
async def test_values_that_the_database_refuses_are_no_outage(
    system: System, statement: str, value: Any
) -> None:
    engine = database.new_engine(system.database, schema="public")
    try:
        with pytest.raises(DataError) as raised:
            async with engine.connect() as connection:
                await connection.execute(text(statement), {"a": value})
        assert isinstance(raised.value, database.MISTAKES)
        await _ask(engine)
    finally:
        await engine.dispose()


async def test_a_server_that_is_silent_is_an_outage_and_the_next_request_goes_to_another(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that lost its power closes nothing: who asked it waited for ever, an update among them."""
    monkeypatch.setattr(database, "SILENT_S", 0.5)
    port = urlsplit(system.database).port or 0
    async with a_way_to(port) as way:
        address = system.database.replace(f":{port}/", f":{way.port}/")
        engine = database.new_engine(address, schema="public")
        try:
            await _ask(engine)
            way.freeze()
            async with engine.connect() as connection:
                with pytest.raises(database.OUTAGES):
                    await _ask_on(connection)
                assert connection.invalidated  # By SQLAlchemy: no rollback is asked of it.
            await _ask(engine)
        finally:
            await engine.dispose()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has it")
async def test_the_kernel_gives_up_a_connection_whose_other_end_is_gone(system: System) -> None:
    """Else an answer that nobody will send is waited for until SILENT_S; and PostgreSQL keeps what we have given up."""
    engine = database.new_engine(system.database, schema="public")
    try:
        async with engine.connect() as connection:
            raw = await connection.get_raw_connection()
            its = raw.driver_connection._transport.get_extra_info("socket")  # type: ignore[union-attr]
            assert its.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == GONE_S * 1_000
            assert its.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            found = await connection.execute(text("SHOW tcp_user_timeout"))
            assert found.scalar_one() == str(GONE_S * 1_000), "PostgreSQL's, too"
    finally:
        await engine.dispose()


async def test_what_a_client_that_is_gone_has_locked_is_free_again(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same from the other side: its transaction stood for two hours, and who waited for its rows with it."""
    monkeypatch.setattr(database, "IDLE_IN_TRANSACTION_MS", 500)
    gone = database.new_engine(system.database, schema="public")
    left = database.new_engine(system.database, schema="public")
    lock = text("SELECT pg_advisory_xact_lock(4711)")
    try:
        async with gone.connect() as silent, left.begin() as connection:
            await silent.execute(lock)
            await connection.execute(lock)
            with pytest.raises(DBAPIError):
                await _ask_on(silent)
    finally:
        await gone.dispose()
        await left.dispose()


async def test_a_schema_of_a_newer_version_is_left_alone_and_that_is_said(system: System) -> None:
    schema = f"newer_{uuid.uuid4().hex[:8]}"
    engine = database.new_engine(system.database, schema=schema)
    try:
        await database.migrate(engine, schema=schema, versions=VERSIONS)
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = '0999'"))
        with pytest.raises(
            RuntimeError, match=rf"schema {schema} is of a newer Interlock .*'0999'"
        ):
            await database.migrate(engine, schema=schema, versions=VERSIONS)
        async with engine.begin() as connection:
            await connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    finally:
        await engine.dispose()


async def _ask(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await _ask_on(connection)


async def _ask_on(connection: AsyncConnection) -> None:
    assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
