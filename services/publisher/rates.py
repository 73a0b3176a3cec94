"""What a network lets an account send, as its own answers say; all publishers share what they heard.

Updates go first: offers leave a reserve of each window to them, and retractions stand between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

Purpose = Literal["update", "retraction", "offer"]
RESERVED: Final[dict[Purpose, float]] = {"update": 0.0, "retraction": 0.1, "offer": 0.2}
LONGEST_WAIT_S: Final = 3_600.0  # A server whose clock is wrong must not stop us for a year.


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What one answer said: so many of `limit` are left until `reset_at`. `refused`: it was a 429.

    `bucket` names what shares the limit, such as `create` and `delete`. A `limit` of 0 is one that
    nobody told: it must be waited until `reset_at`, and behind that nothing is known again.
    """

    limit: int
    remaining: int
    reset_at: datetime
    bucket: str = "create"
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What is left of an account's window, as far as we know."""

    limit: int
    remaining: int
    reset_at: datetime


@dataclass(frozen=True, slots=True)
class Go:
    """It may be sent; `rate` is what is left behind it."""

    rate: Rate


@dataclass(frozen=True, slots=True)
class Wait:
    """It must wait so long, in seconds."""

    seconds: float


def take(rate: Rate, purpose: Purpose, *, now: datetime) -> Go | Wait:
    """Take one of what is left, if there is one for this purpose."""
    if rate.reset_at <= now and not rate.limit:
        return Go(rate)
    if rate.reset_at <= now:  # A new window, of which no answer has told yet.
        return Go(replace(rate, remaining=rate.limit - 1, reset_at=now + _ONE_WINDOW))
    if rate.remaining > math.ceil(rate.limit * RESERVED[purpose]):
        return Go(replace(rate, remaining=rate.remaining - 1))
    return Wait(min(LONGEST_WAIT_S, (rate.reset_at - now).total_seconds()))


_ONE_WINDOW: Final = timedelta(seconds=60)  # Until the network says what its window is.


def heard(rate: Rate | None, told: Told) -> Rate:
    """Return what is known behind an answer.

    Answers overtake each other: within one window the lowest is the newest.
    """
    remaining = 0 if told.refused else told.remaining
    if rate is not None and abs((rate.reset_at - told.reset_at).total_seconds()) < 1:
        remaining = min(remaining, rate.remaining)
    return Rate(limit=max(0, told.limit), remaining=max(0, remaining), reset_at=told.reset_at)
