"""`./run fuzz [--seconds N] [NAME ...]`: bytes that follow what the code does with them, into each door.

Coverage-guided (atheris, libFuzzer), from the samples on. A finding is an input at which a door does anything
but read or refuse; it is kept, and said how to look at it. One target has a mistake on purpose: where that is
not found, the run proves nothing, and fails.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from tests.fuzz.targets import TARGETS

PLANTED: Final = "planted"
INPUT_BYTES: Final = 16_384
SLOW_S: Final = 10  # One input that takes so long is a finding as well.
MEMORY_MB: Final = 2_048
screen = Console()


@dataclass(frozen=True, slots=True)
class Run:
    """How one target ended: inputs tried, branches seen at first and at last, and what it broke at."""

    name: str
    inputs: int
    branches_first: int
    branches: int
    finding: Path | None
    said: str


def main() -> int:
    made = argparse.ArgumentParser(prog="./run fuzz", description=__doc__)
    made.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TARGETS))
    made.add_argument("--seconds", type=int, default=60, help="for each target")
    made.add_argument("--seed", type=int, default=1)
    made.add_argument("--jobs", type=int, default=2)
    made.add_argument(
        "--folder", type=Path, default=Path(".fuzz"), help="inputs that were kept, and findings"
    )
    made.add_argument("--input", type=Path, help="look at one input of the one target named")
    wanted = made.parse_args()
    if strange := sorted(set(wanted.names) - TARGETS.keys()):
        made.error(f"there is no {', '.join(strange)}: {', '.join(TARGETS)}")
    if wanted.input is not None and len(wanted.names) != 1:
        made.error("--input is of one target: name it")
    if wanted.input is not None:
        TARGETS[wanted.names[0]].act(wanted.input.read_bytes())
        print("read, or refused as it should be")
        return 0
    names = wanted.names or list(TARGETS)
    with ThreadPoolExecutor(wanted.jobs) as pool:
        runs = list(pool.map(lambda name: _fuzz(name, wanted), names))
    _show(runs)
    broken = [run for run in runs if run.finding and run.name != PLANTED]
    blind = [run for run in runs if not run.finding and run.name == PLANTED]
    for run in broken:
        print(f"{run.name}: {run.said}\n  ./run fuzz {run.name} --input {run.finding}")
    if blind:
        print("the planted mistake was not found: this run proves nothing")
    return 1 if broken or blind else 0


def _fuzz(name: str, wanted: argparse.Namespace) -> Run:
    corpus, found = wanted.folder / name / "kept", wanted.folder / name / "findings"
    for folder in (corpus, found):
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as seeds:
        for number, seed in enumerate(TARGETS[name].seeds):
            (Path(seeds) / str(number)).write_bytes(seed)
        command = [
            sys.executable, "-m", "tests.fuzz.one", name, str(corpus), seeds,
            f"-max_total_time={wanted.seconds}", f"-seed={wanted.seed}", f"-max_len={INPUT_BYTES}",
            f"-timeout={SLOW_S}", f"-rss_limit_mb={MEMORY_MB}", f"-artifact_prefix={found}/",
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False
        )
    finding = max(found.iterdir(), key=lambda path: path.stat().st_mtime, default=None)
    if done.returncode and finding is None:
        raise RuntimeError(f"{name}: {done.stderr[-2_000:]}")
    screen.print(f"  {name}: {'found something' if done.returncode else 'its time is up'}")
    said = done.stdout + done.stderr
    seen = [int(cov) for cov in re.findall(r"#\d+\s+\w+\s+cov: (\d+)", said)] or [0]
    inputs = [int(n) for n in re.findall(r"^(?:#|Done )(\d+)\b", said, re.MULTILINE)]
    raised = re.search(r"=== Uncaught Python exception: ===\s+(.*)", said)
    return Run(
        name, inputs=max(inputs, default=0), branches_first=seen[0], branches=seen[-1],
        finding=finding if done.returncode else None,
        said=raised.group(1)[:200] if raised else said[-200:] if done.returncode else "",
    )  # fmt: skip


def _show(runs: list[Run]) -> None:
    table = Table("target", "inputs", "branches, at first", "at last", "found")
    for run in runs:
        found = "planted mistake" if run.finding and run.name == PLANTED else run.said
        table.add_row(
            run.name,
            f"{run.inputs:,}",
            str(run.branches_first),
            str(run.branches),
            found or "nothing",
        )
    screen.print(table)


if __name__ == "__main__":
    sys.exit(main())
