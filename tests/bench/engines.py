"""The services' pool for statements that no service makes: a million rows at once take longer than it waits."""

from __future__ import annotations

from unittest.mock import patch

from sqlalchemy.ext.asyncio import AsyncEngine

from services.kit import database


def new_patient_engine(address: str, *, schema: str) -> AsyncEngine:
    """Return a pool that waits for its server for ever."""
    with patch.object(database, "SILENT_S", None):
        return database.new_engine(address, schema=schema)
