"""What watches Interlock: the rules are tested by Prometheus' own tool, and speak of real metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from ops.embedded.system import System

FAMILY = re.compile(r"\binterlock_[a-z_]+\b")
PARTS = ("_bucket", "_count", "_sum")


def test_the_rules_are_right(repository: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package prometheus)")
    rules = repository / "ops" / "prometheus" / "rules.test.yaml"
    done = subprocess.run(
        [promtool, "test", "rules", rules], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_and_dashboard_speak_of_metrics_that_are_there(
    system: System, repository: Path
) -> None:
    there: set[str] = set()
    for service in ("detector", "publisher", "scheduler"):
        with system.client(service, "viewer") as client:
            there |= set(re.findall(r"^# TYPE (\w+)", client.get("/metrics").text, re.MULTILINE))
    rules = yaml.safe_load((repository / "ops" / "prometheus" / "rules.yaml").read_text())
    said = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    dashboard = json.loads((repository / "ops" / "grafana" / "interlock.json").read_text())
    said += [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {name for expr in said for name in FAMILY.findall(expr)}
    for part in PARTS:
        named = {name.removesuffix(part) for name in named}
    assert named <= there | {name.removesuffix("_total") for name in there}
    assert named
