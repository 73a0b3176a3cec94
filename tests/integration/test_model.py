"""The model of the fence protocol: it holds within its bounds, and each fault put in is found."""

from __future__ import annotations

import shutil

import pytest

from ops.model.cases import CASES, FAULTS, Case, Fault
from ops.model.checker import check

pytestmark = pytest.mark.skipif(
    shutil.which("spin") is None or shutil.which("cc") is None,
    reason="on Debian: apt-get install spin gcc libc6-dev",
)


@pytest.mark.parametrize("case", [c for c in CASES if not c.long], ids=lambda c: c.what)
def test_the_protocol_holds(case: Case) -> None:
    found = check(case.bounds)
    assert not found.story, "\n".join(found.story)
    assert found.is_exhaustive


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.switch)
def test_a_fault_is_found_and_told(fault: Fault) -> None:
    found = check(fault.bounds, fault=fault.switch)
    assert found.story, f"{fault.what}: not found in {found.states:,} states"
    assert found.story[-1].startswith("WRONG: ")
