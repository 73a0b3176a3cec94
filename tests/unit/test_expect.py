"""Who says when a lane is due says it together with whoever waits, and nothing that was said is lost."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from services.scheduler.lane_store import LaneStore

NOON = datetime(2026, 7, 17, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=1)


class Lanes(LaneStore):
    """Lanes whose database answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(cast("Any", None))
        self.said: list[dict[int, datetime]] = []
        self.answers = asyncio.Event()
        self.fails = False

    async def _expect_all(self, times: dict[int, datetime]) -> None:
        await self.answers.wait()
        if self.fails:
            self.fails = False
            raise OSError
        self.said.append(times)


async def all_waiting(lanes: Lanes, *times: dict[int, datetime]) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(lanes.expect(one)) for one in times]
    await asyncio.wait(tasks, timeout=0)  # They begin.
    return tasks


async def test_those_who_wait_are_said_together_and_the_earliest_counts() -> None:
    lanes = Lanes()
    tasks = await all_waiting(lanes, {1: NOON}, {2: LATER}, {2: NOON, 3: LATER})
    lanes.answers.set()
    await asyncio.gather(*tasks)
    assert lanes.said == [{1: NOON}, {2: NOON, 3: LATER}]


async def test_what_failed_is_told_to_its_caller_and_said_by_the_next() -> None:
    lanes = Lanes()
    lanes.fails = True
    first, second = await all_waiting(lanes, {1: NOON}, {2: NOON})
    lanes.answers.set()
    with pytest.raises(OSError):  # noqa: PT011  # Ours.
        await first
    await second
    assert lanes.said == [{1: NOON, 2: NOON}]
