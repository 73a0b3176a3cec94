"""`python -m tests.bench NAME [--check] [--quick]`: run one, print its table, keep it in docs/bench/NAME.md.

`--quick` is the scheduler's at a hundredth of the sizes, in a minute or two; it is not kept.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

NAMES = {
    "pause": "from an acknowledged event to silence and to the first update",
    "detector": "how many events the detector takes, alone, through Kafka and in a storm",
    "publisher": "how many offers the publisher bears, and what its updates wait for",
    "scheduler": "how the queue bears ten million offers",
    "start": "how fast and how big `up` is",
    "deploy": "what offers and updates wait for while one of two services ends and comes back",
    "loss": "what offers and updates wait for when one of three brokers, or PostgreSQL's host, is lost",
}
QUICK = "--quick"
QUICK_NAMES = {"scheduler"}
DOCS = Path(__file__).parents[2] / "docs" / "bench"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `aim` says what was wanted; `met` is None where nothing was."""

    what: str
    aim: str
    measured: str
    met: bool | None = None


def main() -> int:
    names = [word for word in sys.argv[1:] if not word.startswith("-")]
    if len(names) != 1 or names[0] not in NAMES:
        print("\n".join(f"./run bench {name:<9} {text}" for name, text in NAMES.items()))
        return 0 if not names else 2
    is_quick = QUICK in sys.argv
    if is_quick and names[0] not in QUICK_NAMES:
        print(f"{QUICK}: only {', '.join(QUICK_NAMES)} has it")
        return 2
    os.environ["BENCH_QUICK"] = "1" if is_quick else ""
    rows: list[Row] = [Row(**row) for row in import_module(f"tests.bench.{names[0]}").measure()]
    table = Table("what", "aim", "measured", "met")
    for row in rows:
        table.add_row(row.what, row.aim, row.measured, _met(row))
    Console().print(table)
    if is_quick:
        print(f"{QUICK}: small sizes, not kept; the aims are those of the whole bench")
    else:
        _keep(names[0], rows)
    missed = any(row.met is False for row in rows)
    return 1 if missed and "--check" in sys.argv else 0


def _met(row: Row) -> str:
    return {True: "yes", False: "NO", None: ""}[row.met]


def _keep(name: str, rows: list[Row]) -> None:
    head = ["git", "log", "-1", "--format=%h %s"]
    commit = subprocess.run(head, capture_output=True, text=True, check=False).stdout.strip()
    lines = [
        f"# bench {name}",
        "",
        f"{NAMES[name][0].upper()}{NAMES[name][1:]}. Written by `./run bench {name}`.",
        "",
        f"- commit: {commit or 'none'}",
        f"- when: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"- machine: {os.cpu_count()} cores, {platform.machine()}, {platform.system()}, Python {platform.python_version()}",
        "",
        "| what | aim | measured | met |",
        "| --- | --- | --- | --- |",
        *(f"| {r.what} | {r.aim} | {r.measured} | {_met(r)} |" for r in rows),
    ]
    DOCS.mkdir(parents=True, exist_ok=True)
    (DOCS / f"{name}.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
