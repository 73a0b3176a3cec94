"""One whole system for all tests that need one: real Kafka, real PostgreSQL, real processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ops.embedded.nursery import Nursery
from ops.embedded.system import System
from tests.builders import at_once
from tests.engines import Engines, engines
from tests.journey import Journey

_used: list[str] = []


@pytest.fixture(scope="session")
def test_engines() -> Iterator[Engines]:
    with engines() as found:
        _used.append(found.kind)
        yield found


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Return what has imported the services, once for all systems of this process."""
    made = Nursery(tmp_path_factory.mktemp("nursery") / "nursery.log")
    yield made
    made.close()


@pytest.fixture(scope="session")
def system(
    test_engines: Engines, nursery: Nursery, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    """Return the running system. Tests share it: each speaks of a network of its own."""
    if test_engines.kafka:
        os.environ["INTERLOCK_KAFKA"] = test_engines.kafka
        os.environ["INTERLOCK_DATABASE"] = test_engines.database
    folder = tmp_path_factory.mktemp("system")
    with System(folder, progress=lambda _: None, replicas=1, nursery=nursery) as running:
        with running.client("detector", "admin") as admin:
            admin.put("/v1/policy", json=at_once()).raise_for_status()
        yield running


@pytest.fixture
def journey(system: System) -> Iterator[Journey]:
    """Return one test's own network, campaign and eyes; what it broke is mended behind it."""
    with Journey(system) as made:
        yield made


@pytest.fixture(scope="session")
def repository() -> Path:
    return Path(__file__).parents[1]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # A worker of pytest-xdist tells its controller.
        session.config.workeroutput["engines"] = _used


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    told: list[str] = getattr(node, "workeroutput", {}).get("engines", [])
    _used.extend(kind for kind in told if kind not in _used)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for kind in _used:
        terminalreporter.write_line(f"engines: {kind}")


@pytest.fixture
def new_system(
    tmp_path: Path, nursery: Nursery, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., System]:
    """Return what makes a system with engines of this test's own, for what cannot be undone."""
    for name in ("INTERLOCK_KAFKA", "INTERLOCK_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    return partial(System, tmp_path, progress=lambda _: None, nursery=nursery)


@pytest.fixture
def own_system(new_system: Callable[..., System]) -> Iterator[System]:
    with new_system(env={"INTERLOCK_REQUESTS_PER_MINUTE": "0"}) as running:
        yield running
