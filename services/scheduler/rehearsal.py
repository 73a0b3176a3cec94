"""An evening played against the queue: which offers its holds would silence, and what then. Pure.

The plan of each campaign decides, as it does behind a real hold; channels are not asked, so an offer that may
go out goes out when it is due. Whatever is still held at the end is said to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from schemas.labels import Matchers, covers
from services.scheduler.recovery import Plan, Slots, recover, recovers_at

Fate = Literal["as planned", "late", "review", "expired", "still held", "taken back"]
WHY = "due during a stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A hold of the evening; without an end it stands at the end."""

    hold_id: str
    matchers: Matchers
    opened_at: datetime
    released_at: datetime | None
    take_back_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An offer that waits, by its lane and campaign."""

    post_id: str
    lane_id: int
    due_at: datetime
    latest_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """A lane's labels, and what its campaign says of stops."""

    campaign_id: str
    labels: dict[str, str]
    plan: Plan
    quiet_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fated:
    """What would become of an offer, when it would go out (None: not by itself), and by which hold."""

    offer: Offer
    fate: Fate
    then_at: datetime | None
    hold_id: str | None


@dataclass(frozen=True, slots=True)
class _Stop:
    """A stretch in which a lane sends nothing, its quiet period included; `hold_id` began it."""

    begin: datetime
    end: datetime | None
    hold_id: str


def rehearse(
    offers: Iterable[Offer], lanes: Mapping[int, Lane], holds: Sequence[Hold], *, now: datetime
) -> list[Fated]:
    """Return the fate of each offer, in the order they were due."""
    by_lane: dict[int, list[Offer]] = {}
    for offer in offers:
        by_lane.setdefault(offer.lane_id, []).append(offer)
    slots: dict[str, Slots] = {}
    found: list[Fated] = []
    for lane_id, waiting in by_lane.items():
        lane = lanes[lane_id]
        mine = [hold for hold in holds if covers(hold.matchers, lane.labels)]
        shared = slots.setdefault(lane.campaign_id, Slots(now))
        found += _lane(waiting, lane, mine, shared)
    return sorted(found, key=lambda one: (one.offer.due_at, one.offer.post_id))


def _lane(waiting: list[Offer], lane: Lane, holds: list[Hold], slots: Slots) -> list[Fated]:
    """Play one lane: `pending` are offers that may still go out, by the hold that stopped them last."""
    pending: list[tuple[Offer, Offer, str | None]] = [(offer, offer, None) for offer in waiting]
    done: list[Fated] = []
    for stop in _stops(holds, quiet_s=lane.quiet_s):
        before, pending = pending, []
        for first, offer, held_by in sorted(before, key=lambda one: one[1].due_at):
            is_in = offer.due_at >= stop.begin and (stop.end is None or offer.due_at < stop.end)
            if not is_in and not (lane.plan.plan == "shift" and offer.due_at >= stop.begin):
                pending.append((first, offer, held_by))
            elif stop.end is None:
                fated = Fated(offer=first, fate="still held", then_at=None, hold_id=stop.hold_id)
                done.append(fated)
            else:
                _recover(first, offer, lane, stop, slots, pending=pending, done=done)
    return done + [_went_out(*one, holds) for one in pending]


def _recover(
    first: Offer,
    offer: Offer,
    lane: Lane,
    stop: _Stop,
    slots: Slots,
    *,
    pending: list[tuple[Offer, Offer, str | None]],
    done: list[Fated],
) -> None:
    assert stop.end is not None, "it has ended"
    decided = recover(
        due_at=offer.due_at, latest_at=offer.latest_at, now=stop.end, plan=lane.plan,
        stopped=stop.end - stop.begin, slots=slots, why=WHY,
    )  # fmt: skip
    if decided.state == "queued":
        later = replace(offer, due_at=decided.due_at, latest_at=decided.latest_at)
        pending.append((first, later, stop.hold_id))
        return
    done.append(Fated(offer=first, fate=decided.state, then_at=None, hold_id=stop.hold_id))


def _went_out(first: Offer, offer: Offer, held_by: str | None, holds: list[Hold]) -> Fated:
    """Return an offer that went out, and whether a hold would have taken it back."""
    for hold in holds:
        window = timedelta(seconds=hold.take_back_s)
        if hold.opened_at - window <= offer.due_at < hold.opened_at:
            return Fated(offer=first, fate="taken back", then_at=None, hold_id=hold.hold_id)
    fate: Fate = "as planned" if offer.due_at == first.due_at else "late"
    return Fated(offer=first, fate=fate, then_at=offer.due_at, hold_id=held_by)


def _stops(holds: list[Hold], *, quiet_s: int) -> list[_Stop]:
    """Return when a lane is stopped: holds that overlap, or follow within the quiet period, are one stop."""
    found: list[_Stop] = []
    for hold in sorted(holds, key=lambda one: one.opened_at):
        end = recovers_at(hold.released_at, quiet_s=quiet_s) if hold.released_at else None
        last = found[-1] if found else None
        if last is not None and (last.end is None or hold.opened_at < last.end):
            later = None if last.end is None or end is None else max(last.end, end)
            found[-1] = replace(last, end=later)
        else:
            found.append(_Stop(hold.opened_at, end, hold.hold_id))
    return found
