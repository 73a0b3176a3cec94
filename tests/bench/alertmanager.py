"""Interlock's first update beside a real Alertmanager's notification, of the same alert."""

from __future__ import annotations

import shutil
import statistics
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import yaml

from ops.embedded.process import Child, free_port, wait_until
from ops.embedded.system import System
from schemas.policies import Policy, Rule
from tests.builders import APART

COUNT, WARM = 100, 300  # Kafka compiles what is hot when it has seen it a few hundred times.
VOICE = "publisher-2"  # It runs only where updates have a publisher of their own.
PATIENCE_S = 10.0
WORDS = {"opened": "{{ title }}", "working": "{{ title }}", "resolved": "{{ title }} is over"}


class Receiver:
    """A webhook receiver: it notes when it first sees each name, by who calls."""

    def __init__(self) -> None:
        self.seen: dict[tuple[str, str], float] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                at_s = time.monotonic()
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                for name in receiver.awaited:
                    if name in body:
                        receiver.seen.setdefault((self.path, name), at_s)
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                return

        self.awaited: set[str] = set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def at(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def wait(self, path: str, name: str) -> float:
        until_s = time.monotonic() + PATIENCE_S
        while (path, name) not in self.seen:
            assert time.monotonic() < until_s, f"{path} has not seen {name}"
            time.sleep(0.001)
        return self.seen[path, name]


def versus_alertmanager(folder: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return the rows: both medians, and ours over theirs."""
    if shutil.which("prometheus-alertmanager") is None:
        what = "first update at a webhook beside Alertmanager's: it is not installed"
        return [{"what": what, "aim": "≤ 6 ×", "measured": "not measured", "met": False}]
    receiver = Receiver()
    alertmanager = _start_alertmanager(folder, receiver)
    try:
        with System(folder / "system", progress=say, copies={"publisher": 2}) as system:
            say("the same alerts to both")
            system.stopping = True
            system.children[VOICE].stop()
            _prepare(system, receiver)
            theirs, ours = _play(system, alertmanager, receiver)
            say("the same, with a publisher of their own for the updates")
            system.env_of |= APART
            for name in APART:
                system.replace(name)
            again, apart = _play(system, alertmanager, receiver)
    finally:
        alertmanager.stop()
        receiver.server.shutdown()
    return [
        _row("Alertmanager, group_wait 0s: alert pushed → its webhook called", theirs),
        _row(
            f"Interlock: the same alert pushed → the first update at a webhook; each behind {WARM} others",
            ours,
        ),
        _ratio("median of ours over theirs", ours, theirs),
        _row("Alertmanager again", again),
        _row("Interlock with a publisher of their own for the updates", apart),
        _ratio("median of these over theirs", apart, again),
    ]


def _ratio(what: str, ours: list[float], theirs: list[float]) -> dict[str, Any]:
    ratio = statistics.median(ours) / statistics.median(theirs)
    return {"what": what, "aim": "≤ 6 ×", "measured": f"{ratio:.2f} ×", "met": ratio <= 6}


def _start_alertmanager(folder: Path, receiver: Receiver) -> Any:
    port = free_port()
    route = {"receiver": "hook", "group_wait": "0s", "group_by": ["alertname", "line"]}
    hook = {"name": "hook", "webhook_configs": [{"url": receiver.at("/theirs")}]}
    file = folder / "alertmanager.yml"
    file.write_text(yaml.safe_dump({"route": route, "receivers": [hook]}))
    child = Child(
        "alertmanager",
        [
            shutil.which("prometheus-alertmanager") or "",
            f"--config.file={file}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
        ],
        log=folder / "alertmanager.log",
        env={},
    )
    child.url = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]

    def answers() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/-/ready").is_success
        except httpx.HTTPError:
            return False

    wait_until(answers, what="alertmanager", child=child, patience_s=30)
    return child


def _prepare(system: System, receiver: Receiver) -> None:
    account = {
        "channel": "webhook", "url": receiver.at("/ours"), "updates": "{}",
        "secret": "a-secret-of-the-bench",
    }  # fmt: skip
    path = system.data / "accounts.yaml"
    path.write_text(yaml.safe_dump({"accounts": {"hook": account}}))
    system.replace("publisher")
    rule = Rule(name="all", group_by=("network", "line"), quiet_s=0, update_gap_s=0, take_back_s=0)
    policy = Policy.model_validate({"name": "bench", "rules": (rule,), "messages": {"en": WORDS}})
    with system.client("detector", "admin") as admin:
        admin.put("/v1/policy", json=policy.model_dump(mode="json")).raise_for_status()


def _play(system: System, alertmanager: Any, receiver: Receiver) -> tuple[list[float], list[float]]:
    theirs: list[float] = []
    ours: list[float] = []
    emitter = system.client("detector", "emitter")
    with httpx.Client(base_url=alertmanager.url) as other, emitter:
        for _ in range(WARM + COUNT):
            theirs.append(_one(other, "/api/v2/alerts", receiver, "/theirs"))
            url = "/sources/alertmanager/api/v2/alerts"
            ours.append(_one(emitter, url, receiver, "/ours"))
    return theirs[WARM:], ours[WARM:]


def _one(client: httpx.Client, url: str, receiver: Receiver, path: str) -> float:
    """Push an alert of a line of its own; return milliseconds from the answer to the webhook."""
    name, now = uuid.uuid4().hex, datetime.now(UTC)
    receiver.awaited = {name}
    alert = {
        "labels": {"alertname": "Standing", "network": "northlink", "line": name},
        "annotations": {"summary": f"Trains are standing: {name}"},
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(minutes=5)).isoformat(),
    }
    begun_s = time.monotonic()
    client.post(url, json=[alert]).raise_for_status()
    return (receiver.wait(path, name) - begun_s) * 1000


def _row(what: str, values: list[float]) -> dict[str, Any]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    told = f"p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms, n {len(values)}"
    return {"what": what, "aim": "", "measured": told}
