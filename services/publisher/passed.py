"""Offers that are passed over where their account's queue is full, so that those of others go on.

A full queue once made its whole partition rest, and every other account that Kafka keeps there with it. Now it is
remembered from where on an account's records were passed over; when there is room, the partition is read again from
there until the queue is full once more. Nothing is committed beyond what was passed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Passed:
    """Of one partition: from where on each full queue's records were passed over, and how far we have seen."""

    seen: int = 0  # Behind the newest record that came by.
    floors: dict[str, int] = field(default_factory=dict)
    reads_again: bool = False
    _full: set[str] = field(default_factory=set)  # Of those, what was full in this reading.

    def is_new(self, offset: int) -> bool:
        return offset >= self.seen

    def admits(self, name: str, offset: int, *, has_room: bool) -> bool:
        """Say whether a queue takes a record now: it has room, has not had it, and passed over none before it."""
        if self.is_new(offset):
            if self.reads_again:  # What we were to read again is there no more.
                self._end()
            if has_room and name not in self.floors:
                return True
            self.floors.setdefault(name, offset)
            return False
        if not self.reads_again or offset < self.floors.get(name, math.inf):
            return False  # The rest of a batch whose reading has ended; or it was taken when it came first.
        if name in self._full or not has_room:
            self._full.add(name)
            return False
        self.floors[name] = offset + 1
        return True

    def went_by(self, offset: int) -> int | None:
        """Note that a record was looked at; returns where to go on, if that is not behind it."""
        end, self.seen = self.seen, max(self.seen, offset + 1)
        if not self.reads_again or (offset + 1 < end and not self.floors.keys() <= self._full):
            return None
        self._end()
        return end if offset + 1 < end else None

    def _end(self) -> None:
        self.floors = {name: floor for name, floor in self.floors.items() if name in self._full}
        self._full.clear()
        self.reads_again = False

    def begin_again(self, has_room: Callable[[str], bool]) -> int | None:
        """Return from where to read again; None where no queue that was passed over has room, or one is read already."""
        floors = [floor for name, floor in self.floors.items() if has_room(name)]
        if self.reads_again or not floors:
            return None
        self.reads_again = True
        # A queue that got room in the middle of the reading would miss its first ones.
        self._full = {name for name in self.floors if not has_room(name)}
        return min(floors)

    @property
    def floor(self) -> float:
        """Return before what to commit; without a bound where nothing was passed over."""
        return min(self.floors.values(), default=math.inf)
