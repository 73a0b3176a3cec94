"""What the detector says to whoever sends offers: holds opened and released, fences passed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import Field

from schemas.base import Id, Instant, Record, Title
from schemas.labels import Labels, Matchers, covers


class HoldOpened(Record):
    """Offers that these matchers cover stop. Opened once; the id is never used again."""

    TYPE: ClassVar[str] = "interlock.hold-opened.v1"
    hold_id: Id
    network: str
    matchers: Matchers
    reason: Title
    incident_id: Id | None = None
    opened_at: Instant
    take_back_s: int = Field(default=0, ge=0)
    author: str = "detector"

    def covers(self, labels: Labels) -> bool:
        return covers(self.matchers, labels)


class HoldReleased(Record):
    """The end of a hold."""

    TYPE: ClassVar[str] = "interlock.hold-released.v1"
    hold_id: Id
    released_at: Instant
    reason: Title
    author: str = "detector"


class FencePassed(Record):
    """The echo of a fence from one partition: every hold of an earlier record stands before it."""

    TYPE: ClassVar[str] = "interlock.fence-passed.v1"
    publisher: Id
    number: int = Field(ge=0)
    partition: int = Field(ge=0)


class OpenHolds:
    """The holds now open, from facts in any order: releasing wins over opening, for ever."""

    def __init__(self) -> None:
        self._open: dict[str, HoldOpened] = {}
        self._released: set[str] = set()

    def __iter__(self) -> Iterator[HoldOpened]:
        return iter(self._open.values())

    def __len__(self) -> int:
        return len(self._open)

    def __contains__(self, hold_id: str) -> bool:
        return hold_id in self._open

    def apply(self, fact: HoldOpened | HoldReleased) -> bool:
        """Take one fact; the answer says whether anything changed by it."""
        if isinstance(fact, HoldReleased):
            if fact.hold_id in self._released:
                return False
            self._released.add(fact.hold_id)
            self._open.pop(fact.hold_id, None)
            return True
        if fact.hold_id in self._released or fact.hold_id in self._open:
            return False
        self._open[fact.hold_id] = fact
        return True

    def released_before(self, hold_ids: set[str]) -> None:
        """Take holds that were released before anybody here had heard of them."""
        assert not self._open, "only at a beginning"
        self._released |= hold_ids

    def knows(self, hold_id: str) -> bool:
        """Say whether this hold was ever opened or released."""
        return hold_id in self._open or hold_id in self._released

    def covering(self, labels: Labels) -> HoldOpened | None:
        """Return an open hold that covers these labels, the longest standing one."""
        return next((hold for hold in self if hold.covers(labels)), None)
