"""Processes that are forked from one that has imported what they need: modules of Python's own here."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.embedded.nursery import Forked, Nursery
from ops.embedded.process import CannotStart

PATIENCE_S = 30
FOR_EVER = ["http.server", "0", "--bind", "127.0.0.1"]
SHOWS = ["timeit", "-n", "1", "-r", "1", "import os; print(os.environ['FOR_IT'])"]
FAILS = ["timeit", "-n", "1", "-r", "1", "None.nothing"]


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path / "nursery.log", modules=["json"])
    yield made
    made.close()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.log"


def start(nursery: Nursery, module: list[str], out: Path) -> Forked:
    return nursery.fork(module, env=os.environ | {"FOR_IT": "a value of its own"}, log=out)


def test_a_module_runs_with_its_own_variables_and_log(nursery: Nursery, out: Path) -> None:
    forked = start(nursery, SHOWS, out)
    assert forked.wait(PATIENCE_S) == 0
    assert forked.poll() == 0, "it may be asked again"
    assert "a value of its own\n" in out.read_text()


def test_a_failure_is_its_status_and_in_its_log(nursery: Nursery, out: Path) -> None:
    assert start(nursery, FAILS, out).wait(PATIENCE_S) == 1
    assert "has no attribute 'nothing'" in out.read_text()


def test_what_is_killed_says_by_what_and_the_others_run_on(nursery: Nursery, out: Path) -> None:
    one, other = (start(nursery, FOR_EVER, out) for _ in range(2))
    assert one.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        one.wait(0)
    one.send_signal(signal.SIGKILL)
    assert one.wait(PATIENCE_S) == -signal.SIGKILL
    one.send_signal(signal.SIGTERM)  # Nobody hears it.
    assert other.poll() is None


def test_all_of_them_end_with_the_nursery(nursery: Nursery, out: Path) -> None:
    watched = os.pidfd_open(start(nursery, FOR_EVER, out).pid)
    nursery.close()
    assert select.select([watched], [], [], PATIENCE_S)[0]
    os.close(watched)


def test_what_cannot_be_imported_is_named(tmp_path: Path, out: Path) -> None:
    broken = Nursery(tmp_path / "nursery.log", modules=["no_such_module"])
    with pytest.raises(
        CannotStart, match=r"cannot be imported[^$]*No module named 'no_such_module'"
    ):
        start(broken, FOR_EVER, out)
    broken.close()
