"""What somebody at a terminal sees of the embedded system: progress, addresses, memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ops.embedded.system import System


def print_addresses(system: System, *, took_s: float) -> None:
    """Print where everything is and how to use the keys."""
    print(f"Interlock is ready ({took_s:.1f} s). Data, logs and keys: {system.data}\n")
    for name in [*sorted(n for n in system.children if n not in ("kafka", "postgres"))]:
        print(f"  {name:<12} {system.address(name)}")
    print(f"  {'kafka':<12} {system.kafka}\n  {'postgres':<12} {system.database}\n")
    file = system.data / "development-keys.json"
    print(f"Development keys, one for each role, from this machine only: {file}")
    print(f"""
  key() {{ python3 -c "import json; print(json.load(open('{file}'))['$1'])"; }}
  curl -H "Authorization: Bearer $(key viewer)" {system.address("detector")}/v1/holds

Ctrl-C stops it.""", flush=True)  # fmt: skip


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show what is going on: a spinner on a terminal, else a line for each new thing."""
    from rich.console import Console

    console = Console(stderr=True)
    shown = console.status("starting")
    said = ""

    def say(text: str) -> None:
        nonlocal said
        if not text:
            shown.stop()
        elif console.is_terminal:
            shown.update(text)
            shown.start()
        elif text.partition(":")[0] != said.partition(":")[0]:
            print(text, file=sys.stderr, flush=True)
        said = text

    try:
        yield say
    finally:
        shown.stop()


def resident_mb(pid: int) -> float:
    """Return a process's resident memory in MB; 0 where there is none."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
