"""When something is in force: a policy's named windows, and the periods of a disruption.

Weekly windows are in wall-clock time of an IANA zone. An hour that summer time leaves out lasts no
time; one that it repeats belongs to the window both times.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from schemas.disruptions import Disruption, Period
from schemas.policies import WEEKDAYS, Policy, Window

MUTE_DAYS = 8  # Windows that follow on each other without a gap for a week never end.


def inside(window: Window, at: datetime, *, zone: str) -> bool:
    """Say whether an instant is in a window; `zone` is the policy's, where the window has none."""
    if window.start_at is not None and window.end_at is not None:
        return window.start_at <= at < window.end_at
    return _weekly_end(window, at, zone=zone) is not None


def any_inside(policy: Policy, names: tuple[str, ...], at: datetime) -> bool:
    return any(inside(policy.windows[name], at, zone=policy.time_zone) for name in names)


def end_of(policy: Policy, names: tuple[str, ...], at: datetime) -> datetime:
    """Return the first instant from `at` on that is in none of the named windows."""
    limit = at + timedelta(days=MUTE_DAYS)
    end = at
    while end < limit:
        ends = [_end(policy.windows[n], end, zone=policy.time_zone) for n in names]
        later = [e for e in ends if e is not None and e > end]
        if not later:
            return end
        end = max(later)
    return limit


def _end(window: Window, at: datetime, *, zone: str) -> datetime | None:
    if window.start_at is not None and window.end_at is not None:
        return window.end_at if window.start_at <= at < window.end_at else None
    return _weekly_end(window, at, zone=zone)


def _weekly_end(window: Window, at: datetime, *, zone: str) -> datetime | None:
    assert window.from_ is not None
    assert window.to is not None
    local = at.astimezone(ZoneInfo(window.zone or zone))
    passes_midnight = window.to < window.from_
    for days_ago in (0, 1) if passes_midnight else (0,):
        day = (local - timedelta(days=days_ago)).date()
        if WEEKDAYS[day.weekday()] not in window.days:
            continue
        start = _local(day, window.from_, local)
        end = _local(day + timedelta(days=int(passes_midnight)), window.to, local)
        if start <= at < end:
            return end
    return None


def _local(day: date, clock: time, like: datetime) -> datetime:
    made = datetime.combine(day, clock, tzinfo=like.tzinfo)
    return made.astimezone(ZoneInfo("UTC"))


def standing(event: Disruption, at: datetime) -> tuple[str, datetime | None]:
    """Return whether a disruption is `ahead`, `stands` or is `over`, and when that changes by time."""
    if event.expires_at is not None and event.expires_at <= at:
        return "over", None
    state, due_at = _by_periods(event.periods, at)
    if event.expires_at is not None and (due_at is None or event.expires_at < due_at):
        due_at = event.expires_at
    return state, due_at


def _by_periods(periods: tuple[Period, ...], at: datetime) -> tuple[str, datetime | None]:
    if not periods:
        return "stands", None
    in_force = [p for p in periods if _holds(p, at)]
    if any(p.end_at is None for p in in_force):
        return "stands", None
    if in_force:
        return "stands", max(p.end_at for p in in_force if p.end_at is not None)
    starts = [p.start_at for p in periods if p.start_at is not None and p.start_at > at]
    return ("ahead", min(starts)) if starts else ("over", None)


def _holds(period: Period, at: datetime) -> bool:
    return (period.start_at is None or period.start_at <= at) and (
        period.end_at is None or at < period.end_at
    )
