"""Runs Spin: model to C, C to a checker, the checker over every state, a counterexample to words.

Spin's manual pages: https://spinroot.com/spin/Man/Pan.html (options of the checker), .../Spin.html.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ops.model.cases import Bounds

MODEL: Final = Path(__file__).with_name("fence.pml")
MEMORY_MB: Final = 8_000
DEPTH: Final = 1_000_000
_SHORTEST: Final = ("-DBFS",)  # Breadth first: no counterexample is shorter.
_WARNINGS: Final = "-w"  # The C that Spin writes is not ours.
_STATES: Final = re.compile(r"([\d.e+]+) states, stored")
_ERRORS: Final = re.compile(r"errors: (\d+)")
_STORY: Final = re.compile(r"^\s*((?:[\w ]+): .+)$")


class NoChecker(Exception):
    """Spin or a C compiler is missing."""


@dataclass(frozen=True, slots=True)
class Found:
    """What one run has found: `story` is the counterexample in words, empty where there is none."""

    states: int
    seconds: float
    is_exhaustive: bool
    story: tuple[str, ...] = ()


def must_be_installed() -> None:
    """Raise NoChecker where Spin or a C compiler is missing."""
    missing = [name for name in ("spin", "cc") if shutil.which(name) is None]
    if missing:
        what = " and ".join(missing)
        raise NoChecker(f"{what} not found: on Debian, apt-get install spin gcc libc6-dev")


def check(bounds: Bounds, *, fault: str = "") -> Found:
    """Try every order of events within bounds; with a fault, until it is found."""
    macros = [f"-D{name}={value}" for name, value in bounds.items()] + (
        [f"-D{fault}"] if fault else []
    )
    with tempfile.TemporaryDirectory(prefix="interlock-model-") as name:
        folder = Path(name)
        shutil.copy(MODEL, folder / MODEL.name)
        _run(folder, "spin", "-a", *macros, MODEL.name)
        how = ["-O2", _WARNINGS, "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEMORY_MB}"]
        _run(folder, "cc", *how, *(_SHORTEST if fault else ()), "-o", "pan", "pan.c")
        begin = time.monotonic()
        said = _run(folder, "./pan", f"-m{DEPTH}")
        seconds = time.monotonic() - begin
        story = _told(folder, macros) if list(folder.glob("*.trail")) else ()
    states, errors = _STATES.search(said), _ERRORS.search(said)
    if states is None or errors is None:
        raise RuntimeError(f"the checker did not end as it should:\n{said[-2_000:]}")
    is_exhaustive = "Search not completed" not in said and "max search depth too small" not in said
    return Found(int(float(states[1])), seconds, is_exhaustive and errors[1] == "0", story)


def _told(folder: Path, macros: list[str]) -> tuple[str, ...]:
    played = _run(folder, "spin", "-t", "-B", *macros, MODEL.name)
    return tuple(
        found[1]
        for line in played.splitlines()
        if (found := _STORY.match(line)) and not line.lstrip().startswith("spin:")
    )


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode and command[0] == "cc":
        raise RuntimeError(said)
    return said
