"""A short campaign in CI; `./run faults --minutes 60` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.__main__ import report
from tests.faults.campaign import Campaign

MINUTES = 0.5
SEED = 5


@pytest.mark.timeout(600)
def test_the_promise_holds_while_processes_are_killed_and_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("INTERLOCK_KAFKA", "INTERLOCK_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    history = Campaign(tmp_path, seed=SEED, say=lambda _: None).run(MINUTES)
    assert history.faults, "nothing went wrong"
    assert history.promise_held, "\n".join(report(history, minutes=MINUTES, seed=SEED))
