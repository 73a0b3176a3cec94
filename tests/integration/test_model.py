"""The model of the fence protocol: it holds within its bounds, and each fault put in is found."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from ops.model.cases import CASES, FAULTS
from ops.model.checker import Found, check

pytestmark = pytest.mark.skipif(
    shutil.which("spin") is None or shutil.which("cc") is None,
    reason="on Debian: apt-get install spin gcc libc6-dev",
)
SHORT = [case for case in CASES if not case.long]
AT_ONCE = 2


@pytest.fixture(scope="module")
def found() -> Iterator[dict[str, Future[Found]]]:
    """Return what the checker finds, by case and by fault; two are under way at a time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        started = {case.what: pool.submit(check, case.bounds) for case in SHORT}
        for fault in FAULTS:
            started[fault.switch] = pool.submit(check, fault.bounds, fault=fault.switch)
        yield started


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", [case.what for case in SHORT])
def test_the_protocol_holds(found: dict[str, Future[Found]], what: str) -> None:
    one = found[what].result()
    assert not one.story, "\n".join(one.story)
    assert one.is_exhaustive


@pytest.mark.timeout(300)
@pytest.mark.parametrize("switch", [fault.switch for fault in FAULTS])
def test_a_fault_is_found_and_told(found: dict[str, Future[Found]], switch: str) -> None:
    one = found[switch].result()
    assert one.story, f"not found in {one.states:,} states"
    assert one.story[-1].startswith("WRONG: ")
