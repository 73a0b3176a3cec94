"""One fence: written behind the events to every partition, passed when every echo was read.

An event acknowledged before `begun_s` stands before the fence in its partition; the detector
emits that event's hold before the fence's echo; we read the hold before the echo. So a fence that
has passed says: every hold there was when it was begun is known here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

VOID_AFTER_S: Final = 10.0  # Far below the compaction lag of `ops.holds`.


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """One fence of this publisher."""

    number: int
    begun_s: float
    missing: frozenset[int]  # Partitions whose echo was not read yet.

    def echo(self, number: int, partition: int) -> Fence:
        """Take one echo. The echo of an older fence says nothing about this one."""
        if number != self.number:
            return self
        return replace(self, missing=self.missing - {partition})

    @property
    def passed(self) -> bool:
        return not self.missing

    def void(self, now_s: float) -> bool:
        """Say whether it took so long that compaction could have reordered what it proves."""
        return now_s - self.begun_s >= VOID_AFTER_S


def begin(number: int, *, now_s: float, partitions: int) -> Fence:
    """Begin a fence on all partitions; read the clock before the first write."""
    assert partitions > 0
    return Fence(number=number, begun_s=now_s, missing=frozenset(range(partitions)))
