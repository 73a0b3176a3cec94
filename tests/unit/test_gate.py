"""The gate: an offer goes out only when every doubt is ruled out."""

from __future__ import annotations

import math
import subprocess
import sys
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.holds import OpenHolds
from schemas.posts import Post
from services.publisher.gate import Cleared, Held, Passed, Stale, TooLate, Verdict, Waiting, judge
from tests.builders import AT, a_hold, a_post

LEASE_S = 0.25
NOW_S = 1000.0
FRESH = Passed(number=7, begun_s=NOW_S - 0.1)


def verdict(
    post: Post,
    *matchers: str,
    passed: Passed | None = FRESH,
    now_s: float = NOW_S,
    late_s: float = 0,
    wall: datetime | None = None,
) -> Verdict:
    holds = OpenHolds()
    for text in matchers:
        holds.apply(a_hold(text))
    return judge(
        post,
        open_holds=holds,
        passed=passed,
        now_s=now_s,
        now=AT + timedelta(seconds=late_s),
        lease_s=LEASE_S,
        wall=wall,
    )


def test_an_offer_that_nothing_covers_is_cleared_for_the_rest_of_the_lease() -> None:
    found = verdict(a_post(), '{line="valley"}')
    assert isinstance(found, Cleared)
    assert found.until_s == FRESH.begun_s + LEASE_S
    assert found.fence == FRESH.number


def test_a_covered_offer_is_held() -> None:
    assert isinstance(verdict(a_post(), '{line="coast"}'), Held)


def test_an_offer_without_a_line_label_is_held() -> None:
    assert isinstance(verdict(a_post(labels={}), '{line="coast"}'), Held)


def test_without_a_fence_an_offer_waits() -> None:
    assert isinstance(verdict(a_post(), passed=None), Waiting)


@pytest.mark.parametrize("age_s", [LEASE_S, 1.0, 3600.0, -0.001])
def test_an_old_fence_and_one_from_the_future_are_not_relied_on(age_s: float) -> None:
    passed = Passed(number=7, begun_s=NOW_S - age_s)
    assert isinstance(verdict(a_post(), passed=passed), Waiting)


@pytest.mark.parametrize(("wall_s", "kind"), [(0.2, Cleared), (LEASE_S, Waiting), (3600, Waiting)])
def test_a_fence_that_is_old_by_the_wall_clock_is_not_relied_on(wall_s: float, kind: type) -> None:
    """A machine that its host stopped and let go on: its steady clock may have stood still."""
    wall_at = AT - timedelta(seconds=wall_s)
    passed = Passed(number=7, begun_s=NOW_S - 0.1, wall_at=wall_at)
    assert isinstance(verdict(a_post(), passed=passed, wall=AT), kind)


def test_the_ledger_is_told_a_send_by_the_age_of_its_fence_and_not_as_a_clock_was_set() -> None:
    fence_at = AT - timedelta(hours=1)
    found = verdict(a_post(), passed=Passed(number=7, begun_s=NOW_S - 0.1, begun_at=fence_at))
    assert isinstance(found, Cleared)
    assert found.fence_begun_at == fence_at
    assert found.at(NOW_S + 0.1) == fence_at + timedelta(seconds=0.2)


def test_an_update_relies_on_no_fence() -> None:
    found = verdict(a_post(kind="update"))
    assert isinstance(found, Cleared)
    assert found.at(NOW_S) is None


SLEPT_S = 1_000
READ = "import time; from services.kit.telemetry import Clock; print(Clock().monotonic_s() - time.monotonic())"


def test_the_steady_clock_counts_the_time_that_a_machine_sleeps() -> None:
    """A time namespace (Linux, for root) whose machine slept for a thousand seconds."""
    asleep = ["unshare", "--time", "--boottime", str(SLEPT_S), "--fork", sys.executable, "-c", READ]
    try:
        done = subprocess.run(asleep, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no time namespace: {error}")
    assert float(done.stdout) > SLEPT_S - 1


def test_an_offer_past_its_use_is_stale_even_without_a_fence() -> None:
    assert isinstance(verdict(a_post(), passed=None, late_s=3600), Stale)


@pytest.mark.parametrize("passed", [FRESH, None])
def test_an_update_never_waits(passed: Passed | None) -> None:
    found = verdict(a_post(kind="update"), "{}", passed=passed, late_s=10**6)
    assert isinstance(found, Cleared)
    assert found.until_s == math.inf


@given(st.floats(-1, 2), st.booleans(), st.booleans())
def test_an_offer_is_cleared_only_without_a_covering_hold_and_within_the_lease(
    age_s: float, covered: bool, stale: bool
) -> None:
    passed = Passed(number=1, begun_s=NOW_S - age_s)
    holds = ['{line="coast"}'] if covered else []
    found = verdict(a_post(), *holds, passed=passed, late_s=3600 if stale else 0)
    within = 0 <= NOW_S - passed.begun_s < LEASE_S
    assert isinstance(found, Cleared) == (within and not covered and not stale)


def test_a_clearance_runs_out() -> None:
    cleared = Cleared(a_post(), until_s=10.0, fence=1)
    cleared.check(9.999)
    with pytest.raises(TooLate):
        cleared.check(10.0)
