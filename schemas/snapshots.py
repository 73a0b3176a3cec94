"""The detector's state at an offset. Its inside belongs to the detector alone."""

from __future__ import annotations

from typing import Any, ClassVar

from schemas.base import Instant, Record


class Snapshot(Record):
    """The fold's state behind all records of a partition before `offset`."""

    TYPE: ClassVar[str] = "interlock.snapshot.v1"
    partition: int
    offset: int
    taken_at: Instant
    state: dict[str, Any]
