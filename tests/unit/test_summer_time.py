"""Recurring offers in every zone of the tz database that changes its clocks: none is lost, none comes twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import pytest

from services.scheduler.slots import Frame, Hours, recurring

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
