"""What happens to an offer when the holds over its lane have ended. Pure.

The default plan: after a quiet period, what is past its latest useful time expires, what else was
due during the hold waits for a person's review, and what is due later goes on. Never a burst.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

Decision = Literal["expired", "review", "queued"]
USEFUL_S = 3600  # An offer that names no latest useful time has this long after it is due.


def recover(*, due_at: datetime, latest_at: datetime, now: datetime) -> Decision:
    """Decide for one offer of a lane that has recovered."""
    if latest_at <= now:
        return "expired"
    if due_at <= now:
        return "review"
    return "queued"


def recovers_at(released_at: datetime, *, quiet_s: int) -> datetime:
    """Return when a lane whose last hold has ended counts as recovered."""
    return released_at + timedelta(seconds=quiet_s)


def latest_of(due_at: datetime, latest_at: datetime | None, *, useful_s: int) -> datetime:
    """Return the latest useful time of an offer."""
    return latest_at or due_at + timedelta(seconds=useful_s)
