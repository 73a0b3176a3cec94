"""Named windows in IANA zones, and the periods of a disruption."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.policies import Window
from services.detector.windows import end_of, inside, standing
from tests.builders import AT, a_disruption, a_policy

NIGHT = {"from": "22:00", "to": "05:00", "zone": "Europe/London"}


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("window", "at", "is_inside"),
    [
        (NIGHT, "2026-10-17T20:59", False),  # London is an hour ahead in summer.
        (NIGHT, "2026-10-17T21:00", True),
        (NIGHT, "2026-10-18T03:59", True),
        (NIGHT, "2026-10-18T04:00", False),
        (NIGHT | {"days": ["sat"]}, "2026-10-18T01:00", True),  # It began on Saturday.
        (NIGHT | {"days": ["sun"]}, "2026-10-18T01:00", False),
        ({"from": "09:00", "to": "17:00"}, "2026-10-17T09:00", True),
        ({"from": "09:00", "to": "17:00"}, "2026-10-17T17:00", False),
        # The hour that summer time repeats belongs to the window both times.
        ({"from": "01:00", "to": "02:00", "zone": "Europe/London"}, "2026-10-25T00:30", True),
        ({"from": "01:00", "to": "02:00", "zone": "Europe/London"}, "2026-10-25T01:30", True),
        # The hour that it leaves out lasts no time.
        ({"from": "01:00", "to": "02:00", "zone": "Europe/London"}, "2026-03-29T01:00", False),
        (
            {"start_at": "2026-10-17T00:00Z", "end_at": "2026-10-18T00:00Z"},
            "2026-10-17T23:59",
            True,
        ),
        (
            {"start_at": "2026-10-17T00:00Z", "end_at": "2026-10-18T00:00Z"},
            "2026-10-18T00:00",
            False,
        ),
    ],
)
def test_a_window_is_wall_clock_time_of_its_zone(
    window: dict[str, Any], at: str, is_inside: bool
) -> None:
    assert inside(Window.model_validate(window), utc(at), zone="UTC") == is_inside


def test_windows_that_meet_end_together() -> None:
    windows = {"late": {"from": "18:00", "to": "22:00"}, "night": {"from": "22:00", "to": "05:00"}}
    policy = a_policy(windows=windows)
    assert end_of(policy, ("late", "night"), AT) == utc("2026-10-18T05:00")
    assert end_of(policy, ("night",), AT) == AT


def test_windows_without_an_end_end_after_a_week() -> None:
    windows = {"day": {"from": "06:00", "to": "18:30"}, "night": {"from": "18:00", "to": "06:00"}}
    assert end_of(a_policy(windows=windows), ("day", "night"), AT) == AT + timedelta(days=8)


def period(start: int | None, end: int | None) -> dict[str, Any]:
    def at(minute: int | None) -> datetime | None:
        return None if minute is None else AT + timedelta(minutes=minute)

    return {"start_at": at(start), "end_at": at(end)}


@pytest.mark.parametrize(
    ("periods", "state", "minute"),
    [
        ([], "stands", None),
        ([period(-5, 5)], "stands", 5),
        ([period(5, 9)], "ahead", 5),
        ([period(-9, 0)], "over", None),
        ([period(-9, -5), period(5, 9)], "ahead", 5),
        ([period(-5, None)], "stands", None),
        ([period(None, 3), period(-1, 7)], "stands", 7),
    ],
)
def test_a_disruption_stands_in_its_periods(
    periods: list[Any], state: str, minute: int | None
) -> None:
    due_at = None if minute is None else AT + timedelta(minutes=minute)
    assert standing(a_disruption(periods=periods), AT) == (state, due_at)


def test_a_disruption_that_is_not_reported_again_is_over_when_it_expires() -> None:
    event = a_disruption(expires_at=AT + timedelta(minutes=3), periods=[period(-1, 9)])
    assert standing(event, AT) == ("stands", AT + timedelta(minutes=3))
    assert standing(event, AT + timedelta(minutes=3)) == ("over", None)
