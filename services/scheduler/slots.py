"""When offers may go out: a campaign's window, its daily hours, its drip, and rules that recur. Pure.

A rule is an RFC 5545 RRULE; its times are wall-clock times of the campaign's zone. A time that the change
to summer time leaves out is taken with the offset before the gap, and one that comes twice is the first
(RFC 5545, 3.3.5). Nothing is left out, nothing comes twice.
"""

from __future__ import annotations

import itertools
import re
from calendar import isleap
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import MAXYEAR, UTC, date, datetime, time, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

from dateutil.rrule import rrule, rrulestr

MOST_TIMES: Final = 1_000
YEARS_AHEAD: Final = 5
LAST_YEAR: Final = (
    MAXYEAR - YEARS_AHEAD - 1
)  # Behind a rule's five years there is another one to look at.
DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """Daily hours, in wall-clock time: from one, until before the other."""

    begin: time
    end: time

    def has(self, at: time) -> bool:
        if self.begin < self.end:
            return self.begin <= at < self.end
        return at >= self.begin or at < self.end  # Over midnight.


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """When a campaign's offers may be due."""

    zone: ZoneInfo
    begins_at: datetime | None = None
    ends_at: datetime | None = None
    hours: Hours | None = None
    per_hour: float | None = None

    def objection(self, due_at: datetime) -> str:
        """Say why an offer may not be due then; empty: it may."""
        if self.begins_at is not None and due_at < self.begins_at:
            return f"is before the campaign begins, {self.begins_at.isoformat()}"
        if self.ends_at is not None and due_at >= self.ends_at:
            return f"is not before the campaign ends, {self.ends_at.isoformat()}"
        local = due_at.astimezone(self.zone)
        if self.hours is not None and not self.hours.has(local.time()):
            near = self._into_hours(due_at).astimezone(self.zone)
            hours = f"{self.hours.begin:%H:%M} to {self.hours.end:%H:%M} {self.zone.key}"
            return (
                f"is {local:%H:%M}, outside the campaign's hours, {hours}; next: {near.isoformat()}"
            )
        return ""

    def slots(self, after: datetime) -> Iterator[datetime]:
        """Yield the times that are free from then on: in the hours, as far apart as the drip says.

        Ends with the campaign's window.
        """
        gap = timedelta(seconds=3_600 / self.per_hour) if self.per_hour else timedelta(0)
        at = max(after, self.begins_at) if self.begins_at else after
        while True:
            at = self._into_hours(at)
            if self.ends_at is not None and at >= self.ends_at:
                return
            yield at
            at += gap

    def _into_hours(self, at: datetime) -> datetime:
        """Return the first time from then on that lies in the daily hours."""
        if self.hours is None or self.hours.has(at.astimezone(self.zone).time()):
            return at
        today = datetime.combine(at.astimezone(self.zone).date(), self.hours.begin)
        for days, fold in itertools.product(range(7), (0, 1)):
            begin = (today + days * DAY).replace(tzinfo=self.zone, fold=fold).astimezone(UTC)
            # A begin that comes twice may be over once; one that a gap leaves out may be past the end.
            if begin >= at and self.hours.has(begin.astimezone(self.zone).time()):
                return begin
        raise AssertionError("no zone leaves out the same hour for a week")


def to_instant(local: datetime, zone: ZoneInfo) -> datetime:
    """Return when a wall-clock time is (RFC 5545, 3.3.5: the first of two; over a gap, the offset before)."""
    return local.replace(tzinfo=zone, fold=0).astimezone(UTC)


def recurring(rule: str, *, first: datetime, frame: Frame) -> list[datetime]:
    """Return when a rule's offers are due, from its first on, in the campaign's zone.

    Raises ValueError for a rule that is none, that has no end or more than a thousand times, or that begins too late. What
    would come later than five years from the first is left out.
    """
    if first.year >= LAST_YEAR:
        raise ValueError(f"begins too late: a rule begins before the year {LAST_YEAR}")
    local = first.astimezone(frame.zone).replace(tzinfo=None, microsecond=0)
    made = _read(rule, local)
    count = re.search(r"COUNT=(\d+)", rule.upper())
    most = min(int(count[1]), MOST_TIMES + 1) if count else MOST_TIMES + 1
    found: list[datetime] = []
    for one in itertools.islice(_times(made, local), most):
        at = to_instant(one, frame.zone)
        if frame.ends_at is not None and at >= frame.ends_at:
            break
        if len(found) == MOST_TIMES:
            raise ValueError(
                f"more than {MOST_TIMES} times: give COUNT, UNTIL or an end of the campaign"
            )
        found.append(at)
    return found


def _read(rule: str, local: datetime) -> rrule:
    """Return a rule that begins then, by the clock on the wall. Raises ValueError for one that we do not take."""
    if "UNTIL" in rule.upper() and rule.upper().partition("UNTIL=")[2].partition(";")[0].endswith(
        "Z"
    ):
        raise ValueError("UNTIL is a wall-clock time here: leave out its Z")
    try:
        made = rrulestr(rule.removeprefix("RRULE:"), dtstart=local)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"no RRULE of RFC 5545: {error}") from error
    if not isinstance(made, rrule):
        raise ValueError("one RRULE was expected, and no more")  # noqa: TRY004  # It is a value's.
    if re.search(r"FREQ=(SECOND|MINUTE)LY", rule.upper()):
        raise ValueError("FREQ: HOURLY is the most often")
    return made


def _times(rule: rrule, local: datetime) -> Iterator[datetime]:
    """Yield a rule's wall-clock times of the next five years.

    dateutil looks for the next one until the year 9999, however near the rule's end is, so that one which never
    comes true takes many seconds. So it is asked in the last years that are like those we want.
    """
    horizon = local + YEARS_AHEAD * 365 * DAY
    until = min(rule._until or horizon, horizon)  # type: ignore[attr-defined]  # noqa: SLF001
    if until < local:
        return
    years = _last_years_like(local.year) - local.year
    begins, ends = (at.replace(year=at.year + years) for at in (local, until))
    for one in rule.replace(count=None, dtstart=begins, until=ends):
        yield one.replace(year=one.year - years)


@cache
def _last_years_like(year: int) -> int:
    """Return the last year of which each day, and each in the years around it, has the same weekday."""

    def around(first: int) -> list[tuple[bool, int]]:
        years = range(first - 1, first + YEARS_AHEAD + 2)
        return [(isleap(one), date(one, 1, 1).weekday()) for one in years]

    return next(one for one in range(LAST_YEAR, year - 1, -1) if around(one) == around(year))
