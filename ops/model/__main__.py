"""`./run model [--long] [--keep]`: check the protocol, and find every fault that is put into it.

Exits 1 when the protocol breaks within the bounds, or when a fault is not found. `--long` adds the
cases that take minutes; `--keep` writes the counterexamples beside the model.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ops.model.cases import CASES, FAULTS, Bounds, Case, Fault
from ops.model.checker import Found, NoChecker, check, must_be_installed

STORIES = Path(__file__).with_name("counterexamples")
AT_ONCE = 2
screen = Console()


def main() -> int:
    is_long, keeps = "--long" in sys.argv, "--keep" in sys.argv
    try:
        must_be_installed()
    except NoChecker as error:
        screen.print(f"run: {error}")
        return 2
    cases = [case for case in CASES if is_long or not case.long]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        checked = list(pool.map(_check_case, cases))
        found = list(pool.map(_check_fault, FAULTS))
    screen.print(_cases_table(cases, checked), _faults_table(found))
    if keeps:
        for fault, one in zip(FAULTS, found, strict=True):
            keep(fault, one)
    broken = [case.what for case, one in zip(cases, checked, strict=True) if not one.is_exhaustive]
    missed = [fault.switch for fault, one in zip(FAULTS, found, strict=True) if not one.story]
    for case, one in zip(cases, checked, strict=True):
        if one.story:
            screen.print(f"\n{case.what}:", *one.story, sep="\n  ")
    states = sum(one.states for one in checked)
    screen.print(
        f"{states:,} states; {len(FAULTS) - len(missed)} of {len(FAULTS)} faults found"
        + (f"; broken: {', '.join(broken)}" if broken else "")
        + (f"; not found: {', '.join(missed)}" if missed else "")
    )
    return 1 if broken or missed else 0


def _check_case(case: Case) -> Found:
    found = check(case.bounds)
    screen.print(f"{case.what}: {found.states:,} states, {found.seconds:.1f} s")
    return found


def _check_fault(fault: Fault) -> Found:
    return check(fault.bounds, fault=fault.switch)


def keep(fault: Fault, found: Found) -> None:
    """Write a counterexample where the README finds it."""
    STORIES.mkdir(exist_ok=True)
    lines = [f"{fault.switch}: {fault.what}", _written(fault.bounds), "", *found.story]
    (STORIES / f"{fault.switch}.txt").write_text("\n".join(lines) + "\n")


def _written(bounds: Bounds) -> str:
    return " ".join(f"{name}={value}" for name, value in bounds.items())


def _cases_table(cases: list[Case], checked: list[Found]) -> Table:
    table = Table("the protocol", "bounds", "states", "seconds", "result")
    for case, found in zip(cases, checked, strict=True):
        result = (
            "holds, exhaustive" if found.is_exhaustive else "BROKEN" if found.story else "CUT SHORT"
        )
        table.add_row(
            case.what, _written(case.bounds), f"{found.states:,}", f"{found.seconds:.1f}", result
        )
    return table


def _faults_table(found: list[Found]) -> Table:
    table = Table("fault", "what is left out", "states", "steps", "found")
    for fault, one in zip(FAULTS, found, strict=True):
        end = "yes" if one.story else "NOT FOUND"
        table.add_row(fault.switch, fault.what, f"{one.states:,}", str(len(one.story)), end)
    return table


if __name__ == "__main__":
    sys.exit(main())
