"""The architecture as a test: who imports whom, which files decide, how large things grow."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Some do I/O besides the four; ARCHITECTURE.md says which and why.
SHELL = {
    "app", "api", "stream", "store", "__init__",
    "again", "answers", "calendar_api", "campaign_api", "campaign_desk", "counts", "event_api", "event_store", "file_api", "hooks", "label_api", "lane_store", "once", "outcome_store", "post_api", "post_desk", "question_api", "questions",
    "delivery", "queues", "desk", "doors", "pollers", "fetch", "outbox", "views",
    "archive", "audit", "brokers_clock", "doubts", "ends", "failures", "turns", "orphans", "intake", "mail_store", "page_store", "paces", "partitions", "fences", "gatekeeper", "push", "push_store", "retractions", "site", "subscribe", "takeback",
}  # fmt: skip
PURE = {
    "__future__", "calendar", "collections", "dataclasses", "datetime", "enum", "functools", "json", "math",
    "operator", "typing", "pydantic", "pydantic_core", "schemas", "zoneinfo",
    "jmespath",  # Expressions over JSON.
    "csv", "dateutil", "icalendar", "io", "itertools", "re", "urllib",
    "rpds",  # Maps that never change in place.
    "regex",  # Graphemes.
    "babel", "jinja2",  # Rendering is pure: values in, text out, in a sandbox.
}  # fmt: skip
SERVICES = ("scheduler", "detector", "publisher")
KIT_FILES = {
    "__init__",
    "settings",
    "broker",
    "database",
    "web",
    "telemetry",
    "outbound",
    "rates",
    "cluster",
    "batches",
    "members",
    "gaps",
    "mends",
    "sockets",
    "topics",
}
KIT_LINES = 1_700
DOMAIN = re.compile(
    r"\b(offer|hold|fence|incident|disruption|campaign|publication)s?\b", re.IGNORECASE
)
FILE_LINES, FUNCTION_LINES = 400, 60


def python_files(*folders: str) -> list[Path]:
    found = [p for f in folders for p in sorted((ROOT / f).rglob("*.py"))]
    return [p.relative_to(ROOT) for p in found]


def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def modules_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports name their package"
            found.add(node.module or "")
    return found


def service_files() -> list[Path]:
    return [
        p
        for p in python_files("services")
        if p.parts[1] in SERVICES and "migrations" not in p.parts
    ]


def decisions() -> list[Path]:
    plugged = {"channels", "formats", "ingest"}
    return [p for p in service_files() if p.stem not in SHELL and not plugged & set(p.parts)]


@pytest.mark.parametrize("path", decisions(), ids=str)
def test_a_decision_does_no_io(path: Path) -> None:
    own = f"services.{path.parts[1]}"
    outside = {m for m in modules_of(path) if not m.startswith(own)}
    assert {m.split(".")[0] for m in outside} <= PURE
    inside = {
        m.removeprefix(f"{own}.").split(".")[0] for m in modules_of(path) if m.startswith(f"{own}.")
    }
    assert not inside & SHELL, "a decision imports a shell"


@pytest.mark.parametrize("path", service_files(), ids=str)
def test_services_know_schemas_and_kit_and_never_each_other(path: Path) -> None:
    own = f"services.{path.parts[1]}"
    ours = {
        m for m in modules_of(path) if m.split(".")[0] in ("services", "ops", "schemas", "tests")
    }
    assert all(m.startswith(("schemas", "services.kit", own)) for m in ours), ours


@pytest.mark.parametrize("path", python_files("schemas"), ids=str)
def test_schemas_know_nobody(path: Path) -> None:
    assert not {m for m in modules_of(path) if m.split(".")[0] in ("services", "ops", "tests")}


@pytest.mark.parametrize("path", python_files("services/kit"), ids=str)
def test_the_kit_speaks_no_word_of_the_domain(path: Path) -> None:
    assert not {
        m for m in modules_of(path) if m.startswith(("schemas", "services.")) and "kit" not in m
    }
    if path.stem != "__init__":
        assert not DOMAIN.findall((ROOT / path).read_text())


def test_the_kit_is_a_closed_list_of_small_files() -> None:
    files = python_files("services/kit")
    assert {p.stem for p in files} == KIT_FILES
    assert sum(len((ROOT / p).read_text().splitlines()) for p in files) <= KIT_LINES


def test_only_the_gate_clears_a_post() -> None:
    calls = {
        path
        for path in service_files()
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Cleared"
    }
    assert calls == {Path("services/publisher/gate.py")}


@pytest.mark.parametrize(
    "path",
    [
        p
        for p in service_files()
        if "channels" in p.parts and p.stem not in ("__init__", "http", "media", "threads")
    ],
    ids=str,
)
def test_a_channel_looks_at_the_clearance_before_its_io(path: Path) -> None:
    looks = r"\bclearance=clearance\b|\bclearance\.(check\b|confirm\(\))"
    assert re.search(looks, (ROOT / path).read_text())


@pytest.mark.parametrize("path", python_files("schemas", "services", "ops", "tests"), ids=str)
def test_files_and_functions_stay_small(path: Path) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= FILE_LINES
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            own = [
                n for n in node.body if not isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
            lines = sum((n.end_lineno or 0) - n.lineno + 1 for n in own)
            assert lines <= FUNCTION_LINES, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", python_files("schemas", "services", "ops"), ids=str)
def test_a_file_says_in_a_sentence_what_it_does(path: Path) -> None:
    if "migrations" in path.parts or (ROOT / path).stat().st_size == 0:
        return
    assert ast.get_docstring(tree_of(path))


@pytest.mark.parametrize("service", SERVICES)
def test_the_table_in_a_stream_names_its_handlers(service: str) -> None:
    path = Path("services") / service / "stream.py"
    told = set(
        re.findall(
            r"^\| [\w.]+ \| `(on_\w+)`", ast.get_docstring(tree_of(path)) or "", re.MULTILINE
        )
    )
    handlers = {
        node.name
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.AsyncFunctionDef)
        and node.name.startswith("on_")
        and any(arg.arg == "records" for arg in node.args.args)
    }
    assert told == handlers


def test_nothing_waits_a_fixed_time_for_another_process() -> None:
    sleeps = re.compile(r"\bsleep\((?!0\.02\)|0\.05\)|0\.2\)|(?:A_WHILE|SLOW|LOST)_S\))")
    found = [
        p
        for p in python_files("tests")
        if p.stem != "test_tidy"
        and not {"bench", "simulation", "faults"}
        & set(p.parts)  # There time is measured, made up, or part of the fault.
        and sleeps.search((ROOT / p).read_text())
    ]
    assert found == []
