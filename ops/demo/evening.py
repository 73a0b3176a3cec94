"""The stranded-train evening, played on the real system and told as a timeline.

One second stands for one minute. Northlink, its lines and its trains are invented.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console

from ops.demo.judge import Disruption, Verdict, judge
from ops.demo.observer import Witness, arrivals_of, ends_of
from ops.embedded.screen import print_addresses, progress
from ops.embedded.system import System
from ops.policies import read_policy

LEASE_S: Final = 0.25
LINES: Final = ("coast", "valley", "harbour", None)
LANGUAGES: Final = {"en": "Weekend in {place} from 29 {n}", "fr": "Week-end à {place} dès 29 {n}"}
PLACES: Final = {
    "coast": "Saltmouth",
    "valley": "Upper Arden",
    "harbour": "Port Ellery",
    None: "Thornby",
}
DRIP_S: Final = 1.5
EVENING_S: Final = 54
QUIET_S: Final = 3
FIRST_MINUTE: Final = 17 * 60 + 57  # The first event comes five seconds in: 18:02.
SETTLE_S: Final = 30
SHORT_S: Final = 6
console = Console(highlight=False, soft_wrap=True)


def main(data: Path | None, *, keep: bool) -> int:
    """Play the evening; returns 0 only when the promise held."""
    folder = data or Path(tempfile.mkdtemp(prefix="interlock-demo-"))
    try:
        with progress() as say, System(folder, progress=say) as system:
            say("")
            tending = _Tending(system)
            try:
                held = Evening(system).play()
            finally:
                tending.stop()
            if keep:
                _keep(system)
    finally:
        if data is None:
            shutil.rmtree(folder, ignore_errors=True)
    return 0 if held else 1


def _keep(system: System) -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    print_addresses(system, took_s=0)
    while not stop.wait(0.5):
        system.tend()


class _Tending:
    """Starts again what crashes, as `interlock up` does, in a thread of its own."""

    def __init__(self, system: System) -> None:
        self._stop = threading.Event()
        self._system = system
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.2):
            self._system.tend()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


class Evening:
    """The play: who does what when, and what was seen of it."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.detector = system.client("detector", "emitter")
        self.operations = system.client("detector", "operations")
        self.marketing = system.client("scheduler", "marketing")
        self.sandbox = httpx.Client(base_url=system.address("sandbox"), timeout=30)
        self.witness = Witness(system.kafka)
        self.begun_s = 0.0
        self.queued: dict[str, dict[str, str]] = {}
        self.campaign = ""
        self.acknowledged: dict[str, float] = {}
        self.disruptions: list[Disruption] = []
        self.shown: set[str] = set()

    def play(self) -> bool:
        try:
            self._prepare()
            script = [
                (5, self._trains_stand),
                (6, self._show_silence),
                (12, self._second_incident),
                (15, self._kill_publisher),
                (23, self._first_resolves),
                (26, self._operations_writes),
                (28, self._kill_detector),
                (38, self._second_resolves),
            ]
            for at_s, act in script:
                self._until(at_s)
                act()
            self._until(EVENING_S)
            return self._end()
        finally:
            self.witness.close()

    def _tell(self, what: str, text: str) -> None:
        minute = FIRST_MINUTE + int(time.monotonic() - self.begun_s)
        console.print(f"[bold]{minute // 60}:{minute % 60:02}[/]  {what:<10} {text}")

    def _until(self, at_s: float) -> None:
        while (left_s := self.begun_s + at_s - time.monotonic()) > 0:
            self._show_posts()
            time.sleep(min(0.25, left_s))
        self._show_posts()

    def _show_posts(self) -> None:
        """Tell what the sandbox network has seen since the last look."""
        offers: dict[str, int] = {}
        taken_back = 0
        for seen in self._record():
            name = f"{seen['what']} {seen['id']} {seen['at_s']}"
            if name in self.shown:
                continue
            self.shown.add(name)
            if seen["what"] == "published" and seen["key"] in self.queued:
                line = self.queued[seen["key"]].get("line", "no line")
                offers[line] = offers.get(line, 0) + 1
            elif seen["what"] == "published":
                self._tell("[cyan]update[/]", f"@{seen['account']}: {seen['text']}")
            elif seen["what"] == "deleted":
                taken_back += 1
        if offers:
            told = ", ".join(f"{line} {count}" for line, count in sorted(offers.items()))
            self._tell("offers out", f"[green]{told}[/]")
        if taken_back:
            self._tell("[yellow]taken back[/]", f"{taken_back} offers that went out just before")

    def _record(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.sandbox.get("/sandbox/record").json()
        return found

    def _prepare(self) -> None:
        policy = read_policy(Path(__file__).with_name("policy.yaml"))
        with self.system.client("detector", "admin") as admin:
            admin.put("/v1/policy", json=policy.model_dump(mode="json")).raise_for_status()
        body = {"name": "Autumn by rail", "labels": {"network": "northlink"}, "quiet_s": QUIET_S}
        made = self.marketing.post("/v1/campaigns", json=body).raise_for_status().json()
        self.campaign = made["campaign_id"]
        self.begun_s = time.monotonic() + 1.0
        begun_at = datetime.now(UTC) + timedelta(seconds=1)
        posts = []
        for number in range(int((EVENING_S - 4) / DRIP_S)):
            due_at = begun_at + timedelta(seconds=number * DRIP_S)
            for line in LINES:
                # Every third offer is one for the hour: it is of no use a few minutes later.
                useful_s = SHORT_S if number % 3 == 0 else 3600
                posts += [
                    _offer(line, language, number, due_at, useful_s) for language in LANGUAGES
                ]
        answer = self.marketing.post(f"/v1/campaigns/{self.campaign}/posts", json=posts)
        for post in answer.raise_for_status().json():
            self.queued[post["post_id"]] = post["labels"]
        self._tell(
            "marketing",
            f"{len(posts)} offers are queued, for three lines and for no line at all, in two languages",
        )

    def _event(self, disruption: str, status: str, title: str, detail: str = "") -> float:
        data = {
            "disruption_id": disruption,
            "network": "northlink",
            "status": status,
            "title": title,
            "detail": detail,
            "labels": {"line": "coast"},
        }
        headers = {
            "content-type": "application/json",
            "ce-specversion": "1.0",
            "ce-id": f"{disruption}-{status}",
            "ce-source": "/control-room",
            "ce-type": "interlock.disruption.v1",
        }
        sent_s = time.monotonic()
        self.detector.post("/v1/events", json=data, headers=headers).raise_for_status()
        now_s = time.monotonic()
        self.acknowledged[f"{disruption} {status}"] = now_s
        told = f"{title} ({status}; acknowledged in {(now_s - sent_s) * 1000:.0f} ms)"
        self._tell("[red]event[/]", told)
        return sent_s

    def _trains_stand(self) -> None:
        self._event(
            "train-9114",
            "opened",
            "Trains are standing on the Coast line",
            "Two trains with 700 people on board have no power.",
        )

    def _show_silence(self) -> None:
        self._tell(
            "[red]silence[/]",
            "offers about coast, and those that name no line, have stopped; valley and harbour go on",
        )

    def _second_incident(self) -> None:
        self._event("points-77", "opened", "Signals have failed at Saltmouth")

    def _kill_publisher(self) -> None:
        self._tell("kill -9", "the publisher")
        self.system.children["publisher"].tell(signal.SIGKILL)

    def _first_resolves(self) -> None:
        self._event("train-9114", "resolved", "Trains are standing on the Coast line")
        self._tell("silence", "coast stays silent: the signals still fail")

    def _operations_writes(self) -> None:
        incidents = self.operations.get("/v1/incidents").raise_for_status().json()
        incident = next(i for i in incidents if i["status"] not in ("resolved", "closed"))
        texts = {
            "en": "This is Maya from the control room. Buses leave Saltmouth every ten minutes. We are sorry.",
            "fr": "Ici Maya, du centre de contrôle. Des bus quittent Saltmouth toutes les dix minutes. Pardon.",
        }
        self.operations.post(
            f"/v1/incidents/{incident['incident_id']}/updates", json={"texts": texts}
        ).raise_for_status()
        self._tell("operations", "writes an update by hand")

    def _kill_detector(self) -> None:
        self._tell("kill -9", "the detector: without it no fence passes, and all offers wait")
        self.system.children["detector"].tell(signal.SIGKILL)
        time.sleep(1)
        self.system.wait_ready("detector")
        self._tell("detector", "is back: it has replayed its log")

    def _second_resolves(self) -> None:
        sent_s = self._event("points-77", "resolved", "Signals have failed at Saltmouth")
        for disruption in ("train-9114", "points-77"):
            begun_s = self.acknowledged[f"{disruption} opened"]
            self.disruptions.append(Disruption("", {"line": "coast"}, begun_s, sent_s))
        self._tell(
            "recovery",
            f"after {QUIET_S} quiet minutes: stale offers expire, past-due ones wait for review",
        )

    def _end(self) -> bool:
        until_s = time.monotonic() + SETTLE_S
        while True:
            verdict = self._judge()
            if not verdict.unaccounted or time.monotonic() > until_s:
                break
            time.sleep(0.5)
        self._show_posts()
        self._summary(verdict)
        held = verdict.holds and self._prove()
        console.print(
            "[green]The promise held.[/]" if held else "[red]The promise did NOT hold.[/]"
        )
        return held and bool(verdict.counts["published"]) and bool(verdict.updates)

    def _judge(self) -> Verdict:
        states: dict[str, str] = {}
        cursor: str | None = "0"
        while cursor is not None:
            params: dict[str, Any] = {"campaign_id": self.campaign, "cursor": cursor, "limit": 1000}
            page = self.marketing.get("/v1/posts", params=params).raise_for_status().json()
            states |= {post["post_id"]: post["state"] for post in page["posts"]}
            cursor = page["next"]
        outcomes = [told.data for told in self.witness.of("interlock.outcome.v1")]
        ends = ends_of(states, outcomes)
        arrivals = arrivals_of(self._record())
        return judge(self.disruptions, self.queued, arrivals, ends, lease_s=LEASE_S)

    def _summary(self, verdict: Verdict) -> None:
        begun_s = self.acknowledged["train-9114 opened"]
        hold_s = min((t.at_s for t in self.witness.of("interlock.hold-opened.v1")), default=0)
        first = min(
            (
                s["at_s"]
                for s in self._record()
                if s["what"] == "published" and s["key"] not in self.queued
            ),
            default=0,
        )
        counts = verdict.counts
        console.rule("what an independent Kafka consumer and the network's own record say")
        rows = [
            ("offers queued", len(self.queued)),
            ("went out and stand", counts["published"]),
            ("taken back", counts["retracted"]),
            ("held", verdict.covered["expired"] + verdict.covered["review"]),
            ("  of these expired", verdict.covered["expired"]),
            ("  of these wait for review", verdict.covered["review"]),
            ("status updates at the channels", verdict.updates),
            ("acknowledged event to hold", f"{(hold_s - begun_s) * 1000:.1f} ms"),
            ("acknowledged event to first update", f"{(first - begun_s) * 1000:.1f} ms"),
            ("published twice", len(verdict.doubled)),
            ("unaccounted for", len(verdict.unaccounted)),
            ("offers sent after a covering event", len(verdict.late)),
        ]
        for name, value in rows:
            console.print(f"{name + ':':<38}{value}")
        for name, wrong in (
            ("late", [one.offer for one in verdict.late]),
            ("left standing", verdict.left_standing),
            ("unaccounted", verdict.unaccounted),
            ("doubled", verdict.doubled),
        ):
            for post_id in wrong[:10]:
                console.print(f"[red]{name}: {post_id}[/]")

    def _prove(self) -> bool:
        """Let the ledger speak for itself."""
        command = [sys.executable, "-m", "services.cli", "audit", "verify", "--since", "1h"]
        where = ["--kafka", self.system.kafka, "--database", self.system.database]
        return subprocess.run([*command, *where], check=False).returncode == 0


def _offer(
    line: str | None, language: str, number: int, due_at: datetime, useful_s: int
) -> dict[str, Any]:
    text = LANGUAGES[language].format(place=PLACES[line], n=number)
    return {
        "account": f"social-{language}",
        "text": text,
        "language": language,
        "labels": {"line": line} if line else {},
        "due_at": due_at.isoformat(),
        "latest_at": (due_at + timedelta(seconds=useful_s)).isoformat(),
    }
