"""A short campaign, which CI runs by itself; `./run faults --minutes 60` is the long one. It cuts its own network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

MINUTES = 0.5
SEED = 5


@pytest.mark.skipif(
    "INTERLOCK_FAULTS" not in os.environ,
    reason="it wants the machine for itself: INTERLOCK_FAULTS=1 ./run test tests/faults",
)
@pytest.mark.timeout(1200)
def test_the_promise_holds_while_processes_are_killed_and_stopped(repository: Path) -> None:
    command = [sys.executable, "-m", "tests.faults", "--minutes", str(MINUTES), "--seed", str(SEED)]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The promise held" in done.stdout
    assert re.search(r"faults; processes started again \| [1-9]", done.stdout), "nothing went wrong"
    assert re.search(r"went out behind that \(must be 0\), of [1-9]", done.stdout), "none cancelled"
