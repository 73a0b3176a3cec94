"""The gate: may this post go out now? The whole safety decision, on one screen.

When in doubt, quiet: one line clears an offer, the last, behind every doubt. Only this file makes a `Cleared`. A
channel takes nothing but a `Clearance` around one, which it looks at right before the first byte.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from schemas.holds import OpenHolds
from schemas.posts import Post


class TooLate(Exception):
    """The fence that a send relied on grew too old before the send began. Nothing was sent."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """The post may go out until `until_s` by this machine's monotonic clock."""

    post: Post
    until_s: float
    fence: int | None
    fence_begun_at: datetime | None = None  # For the ledger: what the send relied on,
    fence_begun_s: float = 0.0  # and the same by the steady clock.

    def at(self, now_s: float) -> datetime | None:
        """Return the brokers' time of a moment, told by the age of the fence; None: it relies on none."""
        if self.fence_begun_at is None:
            return None
        return self.fence_begun_at + timedelta(seconds=now_s - self.fence_begun_s)

    def check(self, now_s: float) -> None:
        """Raise TooLate when the clearance has run out. Call it last before the I/O."""
        if now_s >= self.until_s:
            raise TooLate(f"cleared until {self.until_s:.3f}, now {now_s:.3f}")


@dataclass(frozen=True, slots=True)
class Held:
    """An open hold covers the offer."""

    post: Post
    hold_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """Nobody knows yet whether a hold covers the offer."""

    post: Post
    reason: str


@dataclass(frozen=True, slots=True)
class Stale:
    """The offer's latest useful time has passed."""

    post: Post


Verdict = Cleared | Held | Waiting | Stale


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """The newest fence that has passed: when it was begun by the steady clock, the brokers' and the host's."""

    number: int
    begun_s: float
    begun_at: datetime | None = None
    wall_at: datetime | None = None


def judge(
    post: Post,
    *,
    open_holds: OpenHolds,
    passed: Passed | None,
    now_s: float,
    now: datetime,
    lease_s: float,
    wall: datetime | None = None,
) -> Verdict:
    """Judge one post. `now_s` is monotonic, `now` the brokers' time, `wall` the host's. When in doubt it waits."""
    if post.kind == "update":
        return Cleared(post, until_s=math.inf, fence=None)  # Voice: updates never wait.
    hold = open_holds.covering(post.labels)
    if hold is not None:
        return Held(post, hold.hold_id, hold.reason)
    if now >= post.latest_at:
        return Stale(post)
    if passed is None:
        return Waiting(post, "no fence has passed")
    age_s = now_s - passed.begun_s
    if not 0 <= age_s < lease_s or _age_by_wall_s(passed, wall) >= lease_s:
        return Waiting(post, "the fence is too old")
    until_s = passed.begun_s + lease_s
    return Cleared(post, until_s, passed.number, passed.begun_at, passed.begun_s)


def _age_by_wall_s(passed: Passed, wall: datetime | None) -> float:
    """Return a fence's age by the host's wall clock: where the machine stood still, only that one may know."""
    return (wall - passed.wall_at).total_seconds() if passed.wall_at and wall else 0.0
