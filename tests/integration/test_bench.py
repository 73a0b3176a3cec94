"""The scheduler's benchmark at a hundredth of its sizes: that it measures all it names; a shared machine decides on no aim."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENGINES = ("INTERLOCK_KAFKA", "INTERLOCK_DATABASE")
ROWS = ("dispatch", "lateness", "POST", "import", "a hold", "an UPDATE", "the calendar", "a tick")


@pytest.mark.timeout(600)
def test_the_schedulers_bench_measures_what_it_names(repository: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name not in ENGINES}
    command = [sys.executable, "-m", "tests.bench", "scheduler", "--quick"]
    done = subprocess.run(
        command, cwd=repository, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for row in ROWS:
        assert f"│ {row}" in done.stdout
