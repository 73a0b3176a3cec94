"""What happens to offers after a hold, a pause or our own downtime. Pure.

Whatever the plan: what is past its latest useful time expires, and what is due later goes on as planned,
but for `shift`. The plan decides of what was due meanwhile. Never a burst.

| plan | an offer that was due meanwhile |
| --- | --- |
| `review` | waits for a person; the default |
| `resume` | goes out at once, within the channel's rate |
| `spread` | goes out at `per_hour`, one after the other |
| `shift` | and every later one: as much later as the hold was long |
| `expire` | goes out where it is not older than `after_s`, else it expires |
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

USEFUL_S = 3600  # An offer that names no latest useful time has this long after it is due.
HOUR_S = 3600
State = Literal["expired", "review", "queued"]


class _Plan(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Review(_Plan):
    """A person decides."""

    plan: Literal["review"] = "review"


class Resume(_Plan):
    """At once."""

    plan: Literal["resume"]


class Spread(_Plan):
    """One after the other, at a rate of the campaign."""

    plan: Literal["spread"]
    per_hour: float = Field(gt=0, le=3_600_000)


class Shift(_Plan):
    """Everything, as much later as it was stopped."""

    plan: Literal["shift"]


class Expire(_Plan):
    """At once, where it is not older than this."""

    plan: Literal["expire"]
    after_s: int = Field(ge=1, le=30 * 86_400)


Plan = Annotated[Review | Resume | Spread | Shift | Expire, Field(discriminator="plan")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes of one offer: its state, its times, and why."""

    state: State
    due_at: datetime
    latest_at: datetime
    reason: str


@dataclass(slots=True)
class Slots:
    """The times that `spread` gives out, one after the other, for all lanes of a campaign."""

    next_at: datetime

    def take(self, now: datetime, *, per_hour: float) -> datetime:
        at = max(self.next_at, now)
        self.next_at = at + timedelta(seconds=HOUR_S / per_hour)
        return at


def recover(
    *,
    due_at: datetime,
    latest_at: datetime,
    now: datetime,
    plan: Plan,
    stopped: timedelta,
    slots: Slots,
    why: str,
) -> Decision:
    """Decide for one offer that may go on again; `stopped` is how long it could not."""
    if isinstance(plan, Shift):
        due_at, latest_at = due_at + stopped, latest_at + stopped
    if latest_at <= now:
        return Decision(
            state="expired", due_at=due_at, latest_at=latest_at, reason="too late to be of use"
        )
    if due_at > now:
        return Decision(state="queued", due_at=due_at, latest_at=latest_at, reason="")
    match plan:
        case Review():
            state, at = "review", due_at
        case Resume() | Shift():
            state, at = "queued", now
        case Spread(per_hour=per_hour):
            at = slots.take(now, per_hour=per_hour)
            state = "queued" if at < latest_at else "expired"
        case Expire(after_s=after_s):
            is_old = now - due_at > timedelta(seconds=after_s)
            state, at = ("expired", due_at) if is_old else ("queued", now)
    return Decision(state=state, due_at=at, latest_at=latest_at, reason=why)  # type: ignore[arg-type]


def recovers_at(released_at: datetime, *, quiet_s: int) -> datetime:
    """Return when a lane whose last hold has ended counts as recovered."""
    return released_at + timedelta(seconds=quiet_s)


def latest_of(due_at: datetime, latest_at: datetime | None, *, useful_s: int) -> datetime:
    """Return the latest useful time of an offer."""
    return latest_at or due_at + timedelta(seconds=useful_s)
