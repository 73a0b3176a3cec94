"""Which records of a partition are settled, and so how far a group may commit."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial


class Offsets:
    """Records in hand, per partition. A record is begun once and settled once, in any order."""

    def __init__(self) -> None:
        self._open: dict[int, set[int]] = {}
        self._next: dict[int, int] = {}
        self._committed: dict[int, int] = {}

    def begin(self, partition: int, offset: int) -> Callable[[], None]:
        """Take a record in hand; returns what settles it, and no record of the same place that is begun behind `forget`."""
        begun = self._open.setdefault(partition, set())
        begun.add(offset)
        self._next[partition] = max(self._next.get(partition, 0), offset + 1)
        return partial(begun.discard, offset)

    def committable(self, floor: Callable[[int], float] = lambda _: math.inf) -> dict[int, int]:
        """Return, by partition, the offset to commit where it has moved since the last commit.

        Of each partition nothing is committed from its floor on.
        """
        found = {p: min(self._open[p], default=end) for p, end in self._next.items()}
        found = {p: int(min(offset, floor(p))) for p, offset in found.items()}
        return {p: offset for p, offset in found.items() if self._committed.get(p) != offset}

    def committed(self, offsets: dict[int, int]) -> None:
        self._committed.update(offsets)

    def forget(self, partition: int) -> None:
        for known in (self._open, self._next, self._committed):
            known.pop(partition, None)
