"""A real Prometheus and a real Alertmanager drive the detector: a rule fires, offers are held, it resolves.

Both come from Debian's packages (`prometheus`, `prometheus-alertmanager`); without them this is skipped.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from ops.embedded.process import Child, free_port
from ops.embedded.system import System
from tests.journey import Journey, wait_for

TOOLS = ("prometheus", "prometheus-alertmanager", "amtool")
missing = [name for name in TOOLS if shutil.which(name) is None]
pytestmark = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
RULE = {
    "alert": "TrainStanding",
    "expr": "train_standing == 1",
    "labels": {"severity": "critical"},
    "annotations": {"summary": "Trains are standing on the {{ $labels.line }} line"},
}


class Trains:
    """What Prometheus scrapes: one gauge, which stands or does not."""

    def __init__(self, network: str) -> None:
        self.standing = 0
        trains = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                line = f'train_standing{{network="{network}",line="coast"}} {trains.standing}\n'
                self.send_response(200)
                self.send_header("content-type", "text/plain; version=0.0.4")
                self.end_headers()
                self.wfile.write(line.encode())

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.server.server_port}"


@pytest.fixture
def trains(journey: Journey) -> Iterator[Trains]:
    made = Trains(journey.network)
    yield made
    made.server.shutdown()
    made.server.server_close()


def start(name: str, folder: Path, *words: str) -> Child:
    path = shutil.which(name)
    assert path is not None
    return Child(name, [path, *words], log=folder / f"{name}.log")


def start_prometheus(folder: Path, trains: Trains, alertmanager: dict[str, Any]) -> Child:
    """Run a Prometheus that scrapes and judges every second."""
    (folder / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "trains", "interval": "1s", "rules": [RULE]}]})
    )
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules.yaml")],
        "scrape_configs": [
            {"job_name": "trains", "static_configs": [{"targets": [trains.target]}]}
        ],
        "alerting": {"alertmanagers": [alertmanager]},
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    return start(
        "prometheus",
        folder,
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{free_port()}",
        "--rules.alert.resend-delay=1s",
    )


def detector_of(system: System) -> str:
    return system.address("detector").removeprefix("http://")


def test_a_rule_of_prometheus_fires_and_resolves(
    journey: Journey, trains: Trains, tmp_path: Path
) -> None:
    key = journey.system.keys["emitter"]
    prometheus = start_prometheus(
        tmp_path,
        trains,
        {
            "path_prefix": "/sources/alertmanager",
            "authorization": {"credentials": key},
            "static_configs": [{"targets": [detector_of(journey.system)]}],
        },
    )
    try:
        trains.standing = 1
        (hold,) = wait_for("the hold", journey.holds)
        assert hold["reason"] == "Trains are standing on the coast line"
        assert hold["matchers"] == f'{{network="{journey.network}"}}', "critical: the network"
        listed = amtool(journey, tmp_path, "alert", "query", f"network={journey.network}")
        assert "TrainStanding" in listed
        assert "Trains are standing on the coast line" in listed
        assert "active" in amtool(journey, tmp_path, "alert", "-o", "extended")
        trains.standing = 0
        wait_for("the release", lambda: not journey.holds())
    finally:
        prometheus.stop()


def amtool(journey: Journey, folder: Path, *words: str) -> str:
    """Run amtool against the detector; returns what it prints."""
    http = folder / "http.yaml"
    http.write_text(
        yaml.safe_dump({"authorization": {"credentials": journey.system.keys["emitter"]}})
    )
    url = f"--alertmanager.url={journey.system.address('detector')}/sources/alertmanager"
    command = ["amtool", url, f"--http.config.file={http}", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_alert_goes_through_alertmanager_to_a_hold_and_back(
    journey: Journey, trains: Trains, tmp_path: Path
) -> None:
    key = journey.system.keys["emitter"]
    webhook = {
        "url": f"{journey.system.address('detector')}/v1/events/alertmanager",
        "http_config": {"authorization": {"credentials": key}},
        "send_resolved": True,
    }
    route = {"receiver": "interlock", "group_wait": "1s", "group_interval": "1s"}
    config = {
        "global": {"resolve_timeout": "5s"},
        "route": route,
        "receivers": [{"name": "interlock", "webhook_configs": [webhook]}],
    }
    (tmp_path / "alertmanager.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    alertmanager = start(
        "prometheus-alertmanager",
        tmp_path,
        f"--config.file={tmp_path / 'alertmanager.yaml'}",
        f"--storage.path={tmp_path / 'alerts'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
    )
    ready = f"http://127.0.0.1:{port}/-/ready"
    prometheus = None
    try:
        wait_for("Alertmanager", lambda: _answers(ready))
        target = {"static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        prometheus = start_prometheus(tmp_path, trains, target)
        trains.standing = 1
        (hold,) = wait_for("the hold", journey.holds)
        assert hold["reason"] == "Trains are standing on the coast line"
        trains.standing = 0
        wait_for("the release", lambda: not journey.holds())
    finally:
        if prometheus is not None:
            prometheus.stop()
        alertmanager.stop()


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False
