"""The doors of operations systems, in a system that runs: who may, what is taken, what is polled."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner

from ops.embedded.system import System
from schemas.topics import DISRUPTIONS
from services.cli import app
from services.detector.fold import LOST
from tests.builders import a_disruption
from tests.doors import SAMPLES
from tests.integration.test_detector import delete_what_is_there
from tests.journey import Journey, wait_for
from tests.polled import AN_INDEX, Page

SECRET = "a-secret-of-sixteen-or-more"
NETWORK = "northdoors"
SIGNED = {"header": "X-PagerDuty-Signature", "prefix": "v1=", "secret": SECRET}

SUBSCRIPTION = "<Siri><SubscriptionRequest>{now} {until}</SubscriptionRequest></Siri>"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    made = Page()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def sources(system: System, page: Page, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run the detector with sources of our own; the suite's come back behind it."""
    file = tmp_path_factory.mktemp("sources") / "sources.yaml"
    buses = yaml.safe_load((SAMPLES / "mapping" / "buses.yaml").read_text())
    found: dict[str, Any] = {
        name: {"format": kind, "network": NETWORK}
        for name, kind in (("prometheus", "alertmanager"), ("metro", "gtfs-realtime"))
    }
    found |= {
        "pager": {"format": "pagerduty", "network": NETWORK, "signature": SIGNED},
        "buses": buses | {"network": NETWORK},
        "cloud": {
            "format": "statuspage",
            "network": f"{NETWORK}-cloud",
            "poll": {"url": page.url, "every_s": 1},
        },
        "weather": {
            "format": "cap",
            "network": f"{NETWORK}-met",
            "poll": {"url": page.at("/cap/index.atom"), "every_s": 1, "index": True},
        },
        "coach": {
            "format": "siri-sx",
            "network": f"{NETWORK}-coach",
            "poll": {
                "url": page.at("/siri"),
                "every_s": 1,
                "body": "<Siri><SituationExchangeRequest/></Siri>",
            },
        },
        "tram": {
            "format": "siri-sx",
            "network": f"{NETWORK}-tram",
            "poll": {"url": page.at("/siri"), "every_s": 1, "body": SUBSCRIPTION},
        },
    }
    file.write_text(yaml.safe_dump({"sources": found}))
    system.extra_env["INTERLOCK_SOURCES"] = str(file)
    system.replace("detector")
    yield file
    del system.extra_env["INTERLOCK_SOURCES"]
    system.replace("detector")


@pytest.fixture
def doors(journey: Journey, sources: Path) -> Journey:
    assert sources.exists()
    return journey


def an_alert(journey: Journey, *, ends_in_s: float = 300, **labels: str) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        "labels": {"alertname": "Standing", "network": journey.network, "line": "coast"} | labels,
        "annotations": {"summary": f"Trains are standing ({journey.network})"},
        "startsAt": now.isoformat(),
        "endsAt": (now + timedelta(seconds=ends_in_s)).isoformat(),
    }


ALERTS = "/sources/prometheus/api/v2/alerts"


def test_prometheus_pushes_alerts_that_hold_until_it_does_not(doors: Journey) -> None:
    alert = an_alert(doors)
    assert doors.emitter.post(ALERTS, json=[alert]).status_code == 200
    (hold,) = wait_for("the hold", doors.holds)
    assert hold["matchers"] == f'{{network="{doors.network}",line="coast"}}'
    params = {"filter": f'network="{doors.network}"'}
    (listed,) = doors.emitter.get(ALERTS, params=params).json()
    assert listed["labels"]["alertname"] == "Standing"
    assert listed["status"]["state"] == "active"
    assert doors.emitter.get(ALERTS, params={"filter": 'network="x"'}).json() == []
    assert doors.emitter.get(ALERTS, params={"filter": "x"}).status_code == 400
    doors.emitter.post(ALERTS, json=[an_alert(doors, ends_in_s=-1)])
    wait_for("the release", lambda: not doors.holds())


def test_an_alert_that_is_not_sent_again_is_over_at_its_end(doors: Journey) -> None:
    doors.emitter.post(ALERTS, json=[an_alert(doors, ends_in_s=2)])
    wait_for("the hold", doors.holds)
    wait_for("the release", lambda: not doors.holds())


def test_a_sender_that_only_knows_a_password_uses_the_key(doors: Journey) -> None:
    key = doors.system.keys["emitter"]
    url = f"{doors.system.address('detector')}/v1/events/prometheus"
    webhook = {"version": "4", "alerts": [an_alert(doors) | {"status": "firing"}]}
    basic = base64.b64encode(f"anybody:{key}".encode()).decode()
    answer = httpx.post(url, json=webhook, headers={"authorization": f"Basic {basic}"})
    assert answer.json() == {"taken": 1, "ignored": 0}
    wait_for("the hold", doors.holds)
    for wrong in ("Basic !", "Basic " + base64.b64encode(b"a:b").decode(), "Digest x"):
        assert httpx.post(url, json=webhook, headers={"authorization": wrong}).status_code == 401


def test_what_can_be_read_of_a_body_is_taken_and_the_rest_is_named(doors: Journey) -> None:
    alerts = [an_alert(doors), an_alert(doors) | {"startsAt": "yesterday"}, {"labels": {}}]
    answer = doors.emitter.post(ALERTS, json=alerts)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("1 of 3 were taken. /1/startsAt: 'yesterday'")
    assert [e["pointer"] for e in answer.json()["errors"]] == ["/1/startsAt", "/2/labels"]
    wait_for("the hold", doors.holds)


def test_a_source_that_is_not_known_and_a_body_that_is_no_such_thing_say_so(doors: Journey) -> None:
    unknown = doors.emitter.post("/v1/events/nobody", json={})
    assert unknown.status_code == 404
    assert (
        "there are: buses, cloud, coach, metro, pager, prometheus, tram, weather"
        in unknown.json()["detail"]
    )
    answer = doors.emitter.post("/v1/events/metro", content=b"\xff\xff\xff")
    assert answer.status_code == 422
    assert "not a GTFS-Realtime feed message" in answer.json()["detail"]
    other = doors.emitter.post("/sources/metro/api/v2/alerts", json=[])
    assert (other.status_code, other.json()["detail"]) == (
        404,
        "the source 'metro' has the format gtfs-realtime",
    )


def pagerduty(journey: Journey, action: str, key: str) -> httpx.Response:
    event = json.loads((SAMPLES / "pagerduty" / f"{action}.json").read_text())
    event["dedup_key"] = journey.network
    url = f"{journey.system.address('detector')}/v2/enqueue"
    return httpx.post(url, json=event | {"routing_key": key})


def test_pagerdutys_events_are_taken_by_their_routing_key(doors: Journey) -> None:
    key = doors.system.keys["emitter"]
    doors.network = NETWORK
    answer = pagerduty(doors, "trigger", key)
    assert answer.status_code == 202
    assert answer.json() == {
        "status": "success",
        "message": "Event processed",
        "dedup_key": NETWORK,
    }
    wait_for("the hold", doors.holds)
    pagerduty(doors, "acknowledge", key)
    known = wait_for("the incident", lambda: identified(doors))
    assert known is not None
    assert known["title"] == "The overhead line has no power"
    pagerduty(doors, "resolve", key)
    wait_for("the release", lambda: not doors.holds())
    assert pagerduty(doors, "trigger", "no-key").status_code == 401
    url = f"{doors.system.address('detector')}/v2/enqueue"
    for no_object in (b"[" * 100_000, b"[]", b"1", b"\xff"):
        assert httpx.post(url, content=no_object).status_code == 401


def identified(journey: Journey) -> dict[str, Any] | None:
    incidents = journey.operations.get("/v1/incidents").json()
    found = [i for i in incidents if i["network"] == NETWORK and i["status"] == "identified"]
    return found[0] if found else None


def test_an_invalid_event_of_pagerduty_is_answered_as_its_clients_expect(doors: Journey) -> None:
    url = f"{doors.system.address('detector')}/v2/enqueue"
    event = {"routing_key": doors.system.keys["emitter"], "event_action": "explode"}
    answer = httpx.post(url, json=event)
    assert (answer.status_code, answer.json()["status"]) == (400, "invalid event")
    assert answer.json()["errors"][0].startswith("/event_action: one of trigger")


@pytest.mark.parametrize(("prefix", "status"), [("v1=", 202), ("v0=", 401)])
def test_a_sender_that_signs_needs_no_key(doors: Journey, prefix: str, status: int) -> None:
    doors.network = NETWORK
    event = json.loads((SAMPLES / "pagerduty" / "webhook-triggered.json").read_text())
    event["event"]["data"]["id"] = f"{doors.began_at:%H%M%S%f}"
    body = json.dumps(event).encode()
    signature = prefix + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    url = f"{doors.system.address('detector')}/v1/events/pager"
    answer = httpx.post(url, content=body, headers={SIGNED["header"]: f"v1=00,{signature}"})
    assert answer.status_code == status
    if status == 202:
        wait_for("the hold", doors.holds)


def test_a_status_page_is_read_again_and_again(doors: Journey, page: Page) -> None:
    doors.network = f"{NETWORK}-cloud"
    page.shows("errors", "latency")
    wait_for("two holds", lambda: len(doors.holds()) == 2)
    before = page.unchanged
    wait_for("answers that nothing is new", lambda: page.unchanged > before)
    page.shows("latency")
    wait_for("one hold", lambda: len(doors.holds()) == 1)
    page.shows()
    wait_for("none", lambda: not doors.holds())


def test_a_page_is_written_down_anew_where_records_were_lost(doors: Journey, page: Page) -> None:
    doors.network = f"{NETWORK}-cloud"
    page.shows("errors", "latency")
    wait_for("two holds", lambda: len(doors.holds()) == 2)

    def folded() -> float:
        with doors.system.client("detector", "viewer") as client:
            text = client.get("/metrics").raise_for_status().text
        found = re.search(
            r'^interlock_detector_records_total{type="Disruption"} (\S+)', text, re.MULTILINE
        )
        assert found is not None
        return float(found[1])

    before = folded()
    detector = doors.system.children["detector"]
    detector.tell(signal.SIGSTOP)
    try:  # The first ends the fetch that is under way; what comes behind it is asked for too late.
        for status in ("resolved", "opened"):
            event = a_disruption(network=doors.network, disruption_id="gone", status=status)
            doors.produce(DISRUPTIONS.name, event)
        delete_what_is_there(doors)
    finally:
        detector.tell(signal.SIGCONT)

    def lost() -> list[str]:
        return [hold["hold_id"] for hold in doors.holds() if hold["reason"] == LOST]

    (hold_id,) = wait_for("the precautionary hold", lost)
    wait_for(
        "both, written again; of those that were deleted one may have been read",
        lambda: folded() >= before + 2,
    )
    doors.release(hold_id)
    page.shows()
    wait_for("the release", lambda: not doors.holds())


def test_a_page_that_cannot_be_read_is_told_and_what_it_said_stays(
    doors: Journey, page: Page
) -> None:
    doors.network = f"{NETWORK}-cloud"
    page.shows("errors")
    wait_for("the hold", doors.holds)
    page.status = 500
    detector = doors.system.address("detector")

    def remarks() -> Any:
        answer = httpx.get(f"{detector}/readyz")
        assert answer.status_code == 200, "the service itself is ready"
        return answer.json().get("remarks")

    told = wait_for("a remark", remarks)
    assert "500" in told["source cloud"]
    assert len(doors.holds()) == 1
    metrics = httpx.get(
        f"{detector}/metrics", headers={"authorization": f"Bearer {doors.system.keys['viewer']}"}
    ).text
    assert 'interlock_source_failures_total{source="cloud"}' in metrics
    page.status = 200
    page.shows()
    wait_for("the release", lambda: not doors.holds())
    wait_for("no remark", lambda: not remarks())


def test_an_index_of_cap_is_read_with_all_that_it_links_to(doors: Journey, page: Page) -> None:
    doors.network = f"{NETWORK}-met"
    alert = (SAMPLES / "cap" / "alert.xml").read_bytes()
    page.cap["041.xml"] = alert.replace(b"2026-10-18T06", b"2099-10-18T06")
    page.cap["index.atom"] = AN_INDEX % b'<entry><link href="041.xml"/></entry>'
    holds = wait_for("the holds", doors.holds)
    assert {h["reason"] for h in holds} == {"Storm surge on the west coast tonight"}
    before = page.not_modified
    wait_for("index and alert, not modified", lambda: page.not_modified >= before + 2)
    assert doors.holds(), "what was not modified stands"
    names = (b"041.xml", b"042.xml", b"gone.xml", b"http://[::1")
    broken = b"".join(b'<entry><link href="%s"/></entry>' % name for name in names)
    page.cap["042.xml"] = b"<alert>"
    page.cap["index.atom"] = AN_INDEX % broken
    log = doors.system.data / "logs" / "detector.log"

    def refused(name: str) -> bool:
        lines = log.read_text().splitlines()
        return any("part of a source refused" in line and name in line for line in lines)

    wait_for("a word on each", lambda: all(map(refused, ("042.xml", "gone.xml", "[::1"))))
    assert doors.holds(), "the one that can be read stands"
    page.cap["index.atom"] = AN_INDEX % b""
    wait_for("the release", lambda: not doors.holds())


def test_a_producer_of_siri_is_asked_and_answers(doors: Journey, page: Page) -> None:
    doors.network = f"{NETWORK}-coach"
    assert doors.holds() == []
    page.siri = page.siri.replace(b"<EndTime>2026-10-17T21", b"<EndTime>2099-10-17T21")
    (hold,) = wait_for("the hold", doors.holds)
    assert hold["reason"] == "No trains between Saltmouth and Port Ellery"
    assert hold["matchers"] == f'{{network="{doors.network}"}}', "very severe: the network"
    page.siri = page.siri.replace(b">published<", b">closed<")
    wait_for("the release", lambda: not doors.holds())


def test_a_producer_of_siri_is_subscribed_to_and_delivers(doors: Journey, page: Page) -> None:
    doors.network = f"{NETWORK}-tram"
    wait_for("two requests", lambda: len(page.subscribed) >= 2)
    now, until = re.findall(r"20\S+Z", page.subscribed[-1])
    assert datetime.fromisoformat(until) - datetime.fromisoformat(now) == timedelta(seconds=3)
    assert abs(datetime.now(UTC) - datetime.fromisoformat(now)) < timedelta(minutes=1)

    def deliver(body: bytes) -> int:
        return doors.emitter.post("/v1/events/tram", content=body).status_code

    first = (SAMPLES / "siri-sx" / "notification-2.1.xml").read_bytes()
    lasting = re.sub(rb"<EndTime>20\d\d", b"<EndTime>2099", first)
    assert deliver(lasting) == 202
    wait_for("the hold", doors.holds)
    asked = len(page.subscribed)
    wait_for("two more requests", lambda: len(page.subscribed) >= asked + 2)
    assert deliver((SAMPLES / "siri-sx" / "heartbeat.xml").read_bytes()) == 202
    assert doors.holds(), "neither a subscription nor a heartbeat says that it is over"
    assert deliver(re.sub(rb"(<Progress>)\w+", rb"\1closed", lasting)) == 202
    wait_for("the release", lambda: not doors.holds())


def test_files_are_sent_into_the_log_by_hand(doors: Journey, sources: Path, tmp_path: Path) -> None:
    doors.network = NETWORK
    sample = tmp_path / "buses.json"
    sample.write_bytes((SAMPLES / "mapping" / "buses.json").read_bytes())
    words = ["--source", "buses", "--sources", str(sources), "--kafka", doors.system.kafka]
    told = CliRunner().invoke(app, ["events", "send", str(tmp_path), *words])
    assert told.exit_code == 0, told.output
    assert "7 opened major 'Line B7 is diverted': acknowledged at " in told.output
    wait_for("the hold", doors.holds)
    sample.write_text(sample.read_text().replace("ACTIVE", "DONE"))
    assert CliRunner().invoke(app, ["events", "send", str(sample), *words]).exit_code == 0
    wait_for("the release", lambda: not doors.holds())


def test_a_file_with_a_mistake_sends_nothing(sources: Path, tmp_path: Path) -> None:
    sample = tmp_path / "buses.json"
    sample.write_text((SAMPLES / "mapping" / "buses.json").read_text().replace("ACTIVE", "?"))
    words = ["--source", "buses", "--sources", str(sources), "--dry-run"]
    told = CliRunner().invoke(app, ["events", "send", str(sample), *words])
    assert told.exit_code == 1
    assert "/0/status: Field required" in told.output
    assert "would be sent" not in told.output
