"""The public page and all that is read beside it, in a system that runs."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import icalendar
import pytest
import yaml
from feedparser.api import parse

from ops.embedded.system import System
from services.detector.ingest import cap, gtfs_realtime, statuspage
from services.detector.sources import Source
from tests.journey import Journey, wait_for

NETWORK = "northpage"
PAGE = {
    "title": "Northlink status",
    "titles": {"fr": "État de Northlink"},
    "languages": ["en", "fr"],
    "time_zone": "Europe/London",
    "support_url": "https://northlink.example/help",
    "components": [
        {"id": "coast", "name": "Coast line", "names": {"fr": "Ligne de la côte"},
         "matchers": f'{{network="{NETWORK}",line="coast"}}'},
        {"id": "valley", "name": "Valley line", "matchers": f'{{network="{NETWORK}",line="valley"}}'},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("page")
    file = folder / "page.yaml"
    file.write_text(yaml.safe_dump(PAGE))
    system.extra_env |= {
        "INTERLOCK_PAGE": str(file),
        "INTERLOCK_PAGE_FOLDER": str(folder / "site"),
        "INTERLOCK_PUBLIC_URL": "https://status.northlink.example",
    }
    system.replace("publisher")
    yield folder / "site"
    for name in ("PAGE", "PAGE_FOLDER", "PUBLIC_URL"):
        del system.extra_env[f"INTERLOCK_{name}"]
    system.replace("publisher")


@pytest.fixture
def public(folder: Path, journey: Journey) -> Iterator[httpx.Client]:
    assert folder.parent.exists()
    journey.network = NETWORK
    with httpx.Client(base_url=journey.system.address("publisher")) as client:
        yield client


def an_incident(journey: Journey, public: httpx.Client, line: str = "coast") -> str:
    """Report a disruption; return its incident, once the page tells of it."""
    name = f"{line}-{journey.began_at:%H%M%S%f}"
    journey.event(disruption_id=name, title=f"{name} stands still", labels={"line": line})

    def told() -> list[Any]:
        found = public.get("/api/v2/incidents/unresolved.json").json()["incidents"]
        ours = [i for i in found if line in [c["id"] for c in i["components"]]]
        return [i for i in ours if i["incident_updates"]]

    return str(wait_for("the page", told)[0]["id"])  # What a rule groups is one incident.


def test_a_page_that_has_just_started_tells_of_what_is(
    journey: Journey, public: httpx.Client
) -> None:
    incident = an_incident(journey, public)
    journey.system.replace("publisher")
    found = public.get("/api/v2/incidents/unresolved.json").json()["incidents"]
    assert incident in {one["id"] for one in found}
    name = f"coast-{journey.began_at:%H%M%S%f}"
    journey.event(disruption_id=name, status="resolved", title="over", labels={"line": "coast"})


def test_the_page_tells_of_an_incident_in_each_language_and_of_its_end(
    journey: Journey, public: httpx.Client
) -> None:
    incident = an_incident(journey, public)
    english, french = public.get("/").text, public.get("/fr/").text
    assert incident in english
    assert 'Coast line</span> <span class="partial_outage"' in english
    assert 'Valley line</span> <span class="operational"' in english
    assert "<h1>État de Northlink</h1>" in french
    assert "Ligne de la côte" in french
    assert 'lang="fr"' in french
    journey.event(
        disruption_id=f"coast-{journey.began_at:%H%M%S%f}", status="resolved",
        title="over", labels={"line": "coast"},
    )  # fmt: skip

    def is_over() -> bool:
        summary = public.get("/api/v2/summary.json").json()
        return all(i["id"] != incident for i in summary["incidents"])

    wait_for("the end", is_over)
    assert incident in public.get("/").text, "it is in the history"


def test_the_page_is_cheap_to_ask_for(public: httpx.Client) -> None:
    whole = public.get("/", headers={"accept-encoding": "gzip"})
    assert whole.headers["content-encoding"] == "gzip"
    assert "stale-while-revalidate" in whole.headers["cache-control"]
    assert "script-src 'sha256-" in whole.headers["content-security-policy"]
    again = public.get("/", headers={"if-none-match": whole.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = public.head("/api/v2/status.json")
    assert (head.status_code, head.content) == (200, b"")
    assert public.get("/nothing").status_code == 404


def test_our_own_readers_read_what_we_write(journey: Journey, public: httpx.Client) -> None:
    """Each format, through the door that the detector has for it."""
    incident = an_incident(journey, public)
    source = Source(format="statuspage", network=NETWORK)
    now = datetime.now(UTC)
    reading = statuspage.read(public.get("/api/v2/summary.json").content, source, now)
    assert not reading.refused
    assert any(incident in one.event.disruption_id for one in reading.reported)
    for path in ("/gtfs-realtime/alerts.pb", "/gtfs-realtime/alerts.json"):
        reading = gtfs_realtime.read(public.get(path).content, source, now)
        assert not reading.refused
        (alert,) = [r.event for r in reading.reported if r.event.disruption_id == incident]
        assert alert.labels["line"] == "coast"
    (entry,) = [e for e in parse(public.get("/cap.atom").content).entries if incident in e.id]
    path = entry.link.removeprefix("https://status.northlink.example")
    reading = cap.read(public.get(path).content, source, now)
    assert not reading.refused
    assert reading.reported[0].event.severity == "major"


def test_a_feed_reader_and_a_calendar_read_the_feeds(
    journey: Journey, public: httpx.Client
) -> None:
    incident = an_incident(journey, public, line="valley")
    for path in ("/history.atom", "/history.rss", "/fr/history.atom", "/feed.atom"):
        feed = parse(public.get(path).content)
        assert not feed.bozo, feed.get("bozo_exception")
        assert any(incident in entry.link for entry in feed.entries)
    calendar = icalendar.Calendar.from_ical(public.get("/works.ics").content)
    assert calendar["version"] == "2.0"


def test_planned_works_are_a_maintenance_and_stand_in_the_calendar(
    journey: Journey, public: httpx.Client
) -> None:
    name = f"works-{journey.began_at:%H%M%S%f}"
    journey.event(
        disruption_id=name, title=name, labels={"line": "valley"}, planned=True,
        periods=[{"start_at": datetime.now(UTC).isoformat(), "end_at": "2099-01-01T00:00:00Z"}],
    )  # fmt: skip

    def told() -> list[Any]:
        url = "/api/v2/scheduled-maintenances/active.json"
        return [w for w in public.get(url).json()["scheduled_maintenances"] if name in w["name"]]

    (works,) = wait_for("the works", told)
    assert works["impact"] == "maintenance"
    calendar = icalendar.Calendar.from_ical(public.get("/works.ics").content)
    assert any(str(event["summary"]) == works["name"] for event in calendar.walk("VEVENT"))


def test_the_site_stands_in_a_folder_for_any_web_server(public: httpx.Client, folder: Path) -> None:
    assert (folder / "index.html").exists()
    assert "<h1>État de Northlink</h1>" in (folder / "fr" / "index.html").read_text()
    assert json.loads((folder / "api" / "v2" / "status.json").read_text())["page"]["url"] == (
        "https://status.northlink.example"
    )


CLIENT = """
const { Statuspage } = require("statuspage.io");
(async () => {
  const page = new Statuspage("interlock");
  page.setApiUrl(process.argv[2]);
  const [summary, status, components, unresolved, incidents, works] = await Promise.all([
    page.api.getSummary(), page.api.getStatus(), page.api.getComponents(),
    page.api.incidents.getUnresolved(), page.api.incidents.getAll(),
    page.api.scheduledMaintenances.getAll(),
  ]);
  console.log(JSON.stringify({ summary, status, components, unresolved, incidents, works }));
})();
"""


def test_a_statuspage_client_reads_it_unchanged(
    journey: Journey, public: httpx.Client, tmp_path: Path
) -> None:
    """The client of npm's `statuspage.io`, unmodified but for the address it is told."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("no node, no npm")
    install = [npm, "install", "--silent", "--no-fund", "--no-audit", "statuspage.io@3.3.8"]
    if subprocess.run(install, cwd=tmp_path, check=False, timeout=60).returncode:
        pytest.skip("npm cannot install the client")
    incident = an_incident(journey, public)
    (tmp_path / "read.js").write_text(CLIENT)
    run = [node, "read.js", str(public.base_url).rstrip("/")]
    said = subprocess.run(run, cwd=tmp_path, check=True, capture_output=True, timeout=30).stdout
    found = json.loads(said)
    assert found["status"]["status"]["indicator"] in ("major", "critical")  # Of others as well.
    assert [c["name"] for c in found["components"]["components"]] == ["Coast line", "Valley line"]
    assert incident in [i["id"] for i in found["unresolved"]["incidents"]]
    assert incident in [i["id"] for i in found["summary"]["incidents"]]
    assert "scheduled_maintenances" in found["works"]
