"""Recurring offers in every zone of the tz database that changes its clocks: none is lost, none comes twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import pytest
from dateutil.rrule import rrulestr

from services.scheduler.slots import LAST_YEAR, Frame, Hours, recurring

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
YEAR = timedelta(days=366)


@cache
def changes(name: str) -> tuple[datetime, ...]:
    """Return when a zone's clocks change within a year, to the minute, by looking."""
    zone, found, at = ZoneInfo(name), list[datetime](), BEGIN
    while at < BEGIN + YEAR:
        if at.astimezone(zone).utcoffset() != (at + 12 * HOUR).astimezone(zone).utcoffset():
            low, high = at, at + 12 * HOUR
            while high - low > MINUTE:
                middle = low + (high - low) // 2
                middle = middle.replace(second=0, microsecond=0)
                same = middle.astimezone(zone).utcoffset() == low.astimezone(zone).utcoffset()
                low, high = (middle, high) if same else (low, middle)
            found.append(high)
        at += 12 * HOUR
    return tuple(found)


ZONES = sorted(name for name in available_timezones() if changes(name))


def instants_of(wall: datetime, zone: ZoneInfo) -> list[datetime]:
    """Return when a wall clock shows a time, by looking at every quarter of an hour around it."""
    begin = wall.replace(tzinfo=UTC) - 27 * HOUR
    shown = (begin + n * 15 * MINUTE for n in range(54 * 4))
    return [at for at in shown if at.astimezone(zone).replace(tzinfo=None) == wall]


def walls_about(change: datetime, zone: ZoneInfo) -> Iterator[datetime]:
    """Yield wall-clock times before, in and behind a gap or an overlap."""
    before = (change - MINUTE).astimezone(zone).replace(tzinfo=None) + MINUTE
    after = change.astimezone(zone).replace(tzinfo=None)
    low, high = min(before, after), max(before, after)
    for wall in (low - 30 * MINUTE, low + (high - low) / 2, high + 30 * MINUTE):
        yield wall.replace(second=0, microsecond=0)


def test_there_are_zones_that_change() -> None:
    assert len(ZONES) > 100
    assert "Europe/London" in ZONES
    assert "Australia/Lord_Howe" in ZONES, "by half an hour"


@pytest.mark.parametrize("name", ZONES)
def test_a_daily_offer_goes_out_once_on_each_day_around_a_change(name: str) -> None:
    zone = ZoneInfo(name)
    for change in changes(name):
        for wall in walls_about(change, zone):
            first = (wall - timedelta(days=2)).replace(tzinfo=zone).astimezone(UTC)
            times = recurring("FREQ=DAILY;COUNT=5", first=first, frame=Frame(zone=zone))
            assert len(times) == len(set(times)) == 5
            assert times == sorted(times)
            there = instants_of(wall, zone)
            if there:
                assert times[2] == there[0], "one that comes twice is the first"
            else:
                offset = (change - MINUTE).astimezone(zone).utcoffset()
                assert offset is not None
                wanted = (wall - offset).replace(tzinfo=UTC)
                assert times[2] == wanted, "over the gap the offset before it counts"


@pytest.mark.parametrize("name", ZONES)
def test_free_slots_keep_to_the_hours_through_a_change(name: str) -> None:
    zone = ZoneInfo(name)
    frame = Frame(zone=zone, hours=Hours(begin=time(1, 30), end=time(3)), per_hour=2)
    for change in changes(name):
        slots = frame.slots(change - 30 * HOUR)
        found = [next(slots) for _ in range(8)]
        assert found == sorted(set(found))
        assert all(frame.hours and frame.hours.has(at.astimezone(zone).time()) for at in found)


@pytest.mark.parametrize("rule", ["FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30", "FREQ=MINUTELY;COUNT=2"])
def test_a_rule_is_at_most_hourly(rule: str) -> None:
    with pytest.raises(ValueError, match="HOURLY"):
        recurring(rule, first=BEGIN, frame=Frame(zone=ZoneInfo("UTC")))


def test_a_rule_that_never_comes_true_has_no_times() -> None:
    rule = "FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30;COUNT=3"
    assert recurring(rule, first=BEGIN, frame=Frame(zone=ZoneInfo("UTC"))) == []


@pytest.mark.parametrize("first", ["2026-11-26", "2028-02-29", "2096-03-01", "2099-12-31"])
@pytest.mark.parametrize(
    "rule",
    [
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29",
        "FREQ=YEARLY;BYWEEKNO=1,53;BYDAY=MO",
        "FREQ=YEARLY;BYYEARDAY=1,366;INTERVAL=2",
        "FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13",
        "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
        "FREQ=WEEKLY;INTERVAL=3;BYDAY=SA;WKST=SU",
        "FREQ=DAILY;INTERVAL=17",
        "FREQ=HOURLY;INTERVAL=5;BYHOUR=0,7,23;BYDAY=SU;UNTIL=20990601T000000",
    ],
)
def test_the_years_that_are_asked_are_like_those_that_are_wanted(rule: str, first: str) -> None:
    """Dateutil is asked in another century; its own answer for ours is the same."""
    begin = datetime.fromisoformat(f"{first}T07:30:00+00:00")
    naive = begin.replace(tzinfo=None)
    plain = rrulestr(rule, dtstart=naive).between(naive, naive + timedelta(days=5 * 365), inc=True)
    found = recurring(rule, first=begin, frame=Frame(zone=ZoneInfo("UTC")))
    assert [at.replace(tzinfo=None) for at in found] == plain


def test_a_rule_that_ended_before_its_first_time_has_none() -> None:
    rule = "FREQ=DAILY;UNTIL=20200101T000000"
    assert recurring(rule, first=BEGIN, frame=Frame(zone=ZoneInfo("UTC"))) == []


def test_a_rule_at_the_end_of_the_calendar_is_refused_and_one_before_it_has_its_times() -> None:
    frame = Frame(zone=ZoneInfo("Asia/Tokyo"))  # There it is the next year already.
    late = datetime(LAST_YEAR - 1, 12, 31, 23, tzinfo=UTC)
    assert len(recurring("FREQ=YEARLY;COUNT=2", first=late, frame=frame)) == 2
    for year in range(LAST_YEAR, 10_000):
        with pytest.raises(ValueError, match="begins too late"):
            recurring("FREQ=YEARLY;COUNT=2", first=late.replace(year=year), frame=frame)
