"""The formats that operations systems send: what each sample means, and what is broken is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.disruptions import Disruption, Period
from schemas.labels import format_matchers
from services.detector.ingest import cap, pagerduty
from services.detector.ingest.alertmanager import fingerprint, read_filter
from services.detector.ingest.reading import CannotRead, as_id, as_instant
from tests.doors import NOW, read, samples, source_for


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def events(kind: str, name: str, **values: Any) -> list[Disruption]:
    reading = read(kind, samples(kind)[name], **values)
    assert reading.refused == []
    return [one.event for one in reading.reported]


def told(event: Disruption, *names: str) -> list[Any]:
    return [getattr(event, name) for name in names]


# Alertmanager and Prometheus.


def test_a_webhook_of_alertmanager_names_network_line_and_what_is_over() -> None:
    firing, resolved = events("alertmanager", "webhook-firing.json")
    assert told(firing, "status", "severity", "title") == [
        "opened",
        "critical",
        "Trains are standing on the coast line",
    ]
    assert firing.network == "northlink"
    assert firing.labels == {"alertname": "TrainStanding", "line": "coast"}
    assert firing.link == "https://ops.example/runbooks/standing"
    assert firing.expires_at is None
    assert told(resolved, "status", "disruption_id") == ["resolved", "00aa14d6b7e80913"]


def test_an_alert_that_prometheus_pushes_is_over_unless_it_is_sent_again() -> None:
    fires, ended, without_end = events("alertmanager", "pushed.json")
    assert told(fires, "status", "severity", "expires_at") == [
        "opened",
        "minor",
        utc("2026-10-17T18:06"),
    ]
    assert told(ended, "status", "severity", "title") == ["resolved", "critical", "PowerLost"]
    assert without_end.expires_at == NOW + timedelta(seconds=300)


def test_an_alerts_identity_is_prometheus_own() -> None:
    """The numbers are those of Prometheus' own tests: an alert by either way is the same one."""
    assert int(fingerprint({}), 16) == 14695981039346656037
    labels = {"name": "garland, briggs", "fear": "love is not enough"}
    assert int(fingerprint(labels), 16) == 5799056148416392346


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        ("line=coast", '{line="coast"}'),
        ('line="coast"', '{line="coast"}'),
        ('line=~a|b"c', '{line=~"a|b\\"c"}'),
        ('{line!="coast",network="n"}', '{line!="coast",network="n"}'),
    ],
)
def test_a_filter_of_amtool_needs_no_quotes(text: str, read_as: str) -> None:
    assert format_matchers(read_filter(text)) == read_as


@pytest.mark.parametrize("text", ["", "line", "line=", "=coast", "line=~("])
def test_a_filter_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_filter(text)


# GTFS-Realtime.


@pytest.mark.parametrize("name", ["full.json", "full.pb"])
def test_a_full_data_set_of_gtfs_realtime(name: str) -> None:
    reading = read("gtfs-realtime", samples("gtfs-realtime")[name])
    assert (reading.whole, reading.ignored) == (True, 1)
    assert reading.named == ["alert-17", as_id("alert 18: works")]
    alert, works = (one.event for one in reading.reported)
    assert told(alert, "severity", "title", "planned") == [
        "critical",
        "No trains on the coast line",
        False,
    ]
    assert alert.titles["fr"] == "Pas de trains sur la ligne côtière"
    assert alert.scopes == (
        {"agency": "northlink", "line": "coast", "mode": "rail"},
        {"direction": "1", "line": "harbour", "stop": "saltmouth-2"},
        {"line": "coast", "trip": "9114"},
    )
    assert alert.periods == (
        Period(start_at=utc("2026-10-17T18:00"), end_at=utc("2026-10-17T22:00")),
        Period(start_at=utc("2026-10-18T18:00")),
    )
    assert alert.labels == {"cause": "technical_problem", "effect": "no_service"}
    assert told(works, "severity", "planned", "labels") == [
        "info",
        True,
        {"agency": "northlink", "cause": "maintenance", "effect": "detour"},
    ]


def test_a_differential_data_set_says_what_changed() -> None:
    reading = read("gtfs-realtime", samples("gtfs-realtime")["differential.json"])
    assert not reading.whole
    assert [(one.event.disruption_id, one.event.status) for one in reading.reported] == [
        ("alert-17", "resolved"),
        ("alert-19", "opened"),
    ]


def test_a_change_that_is_sent_again_is_the_same_event() -> None:
    body = samples("gtfs-realtime")["differential.json"]
    first, second = (read("gtfs-realtime", body).reported for _ in range(2))
    assert [one.event_id for one in first] == [one.event_id for one in second]
    assert all(one.event_id for one in first)


def test_what_a_whole_data_set_names_again_is_no_retry() -> None:
    """An incident was gone from a page and came back word for word: it was taken for a retry."""
    reading = read("statuspage", samples("statuspage")["summary.json"])
    assert [one.event_id for one in reading.reported] == [""] * 4


# CAP.


def test_an_alert_of_cap_has_its_languages_areas_and_period() -> None:
    (alert,) = events("cap", "alert.xml")
    assert told(alert, "severity", "title", "link") == [
        "critical",
        "Storm surge on the west coast tonight",
        "https://met.example/041",
    ]
    assert alert.titles == {
        "en-GB": "Storm surge on the west coast tonight",
        "fr": "Onde de tempête sur la côte ouest cette nuit",
    }
    area = "Saltmouth and Port Ellery"
    assert alert.scopes == (
        {"area": area, "nuts3": "UKK30"},
        {"area": area, "nuts3": "UKK43"},
    )
    assert alert.periods == (
        Period(start_at=utc("2026-10-17T19:00"), end_at=utc("2026-10-18T05:00")),
    )
    assert alert.detail == "Waves above the sea wall. Keep away from the shore."


def test_an_update_of_cap_takes_the_place_of_what_it_names() -> None:
    (update,) = events("cap", "update.xml")
    assert told(update, "disruption_id", "replaces") == [
        "met.example.2026-10-17.052",
        ("met.example.2026-10-17.041",),
    ]


def test_a_cancel_of_cap_ends_all_that_it_names() -> None:
    ended = events("cap", "cancel.xml")
    assert [(e.disruption_id, e.status) for e in ended] == [
        ("met.example.2026-10-17.041", "resolved"),
        ("met.example.2026-10-17.052", "resolved"),
    ]


@pytest.mark.parametrize("status", ["Exercise", "Test", "Draft", "System"])
def test_what_is_not_actual_is_passed_over(status: str) -> None:
    body = samples("cap")["alert.xml"].replace(b">Actual<", f">{status}<".encode())
    reading = read("cap", body)
    assert (reading.reported, reading.ignored) == ([], 1)


def test_information_that_is_past_or_all_clear_ends_an_alert() -> None:
    (past,) = events("cap", "cap-1.1.xml")
    assert past.status == "opened", "one of two blocks of information still stands"
    body = samples("cap")["alert.xml"].replace(b">Expected<", b">Past<")
    assert [one.event.status for one in read("cap", body).reported] == ["resolved"]


@pytest.mark.parametrize(
    ("name", "first"), [("index.atom", "041.xml"), ("index.rss", "https://met.example/cap/041.xml")]
)
def test_an_index_of_cap_links_to_alerts(name: str, first: str) -> None:
    from tests.doors import SAMPLES

    found = cap.index((SAMPLES / "cap" / name).read_bytes())
    assert found == [first, "https://met.example/cap/042.xml"]


# SIRI.


def test_situations_of_siri() -> None:
    reading = read("siri-sx", samples("siri-sx")["delivery.xml"])
    assert (reading.whole, reading.ignored, reading.refused) == (True, 1, [])
    power, works, signal = (one.event for one in reading.reported)
    assert told(power, "disruption_id", "severity", "title") == [
        "northlink:4711",
        "critical",
        "No trains between Saltmouth and Port Ellery",
    ]
    assert power.titles["fr"] == "Pas de trains entre Saltmouth et Port Ellery"
    assert power.scopes == (
        {"agency": "NL", "line": "coast", "mode": "rail"},
        {"line": "harbour", "mode": "rail"},
        {"stop": "saltmouth-2"},
    )
    assert power.labels == {"effect": "noService", "reason": "powerProblem"}
    assert power.occurred_at == utc("2026-10-17T18:02:30")
    assert told(works, "planned", "severity", "labels") == [
        True,
        "minor",
        {"line": "valley", "reason": "maintenanceWork"},
    ]
    assert signal.status == "resolved"


def test_a_notification_of_siri_is_not_all_that_is_the_case() -> None:
    assert not read("siri-sx", samples("siri-sx")["notification-2.1.xml"]).whole
    heartbeat = read("siri-sx", samples("siri-sx")["heartbeat.xml"])
    assert (heartbeat.whole, heartbeat.reported) == (False, [])
    subscribed = samples("siri-sx")["subscribed.xml"]
    assert read("siri-sx", subscribed).reported == []
    with pytest.raises(CannotRead, match="refuses"):
        read("siri-sx", subscribed.replace(b">true<", b">false<"))


def test_a_time_without_a_zone_is_refused_or_read_by_the_stated_rule() -> None:
    body = samples("siri-sx")["delivery.xml"].replace(b"18:02:30Z", b"18:02:30")
    refused = read("siri-sx", body)
    assert refused.refused[0].where == "/Situations/0/CreationTime"
    assert "state the source's `time_zone`" in refused.refused[0].why
    assert "northlink:4711" in refused.named, "what was refused is not over because of it"
    taken = read("siri-sx", body, time_zone="Europe/London")
    assert taken.reported[0].event.occurred_at == utc("2026-10-17T17:02:30")


# PagerDuty.


def test_an_event_of_pagerduty_opens_is_acknowledged_and_ends() -> None:
    (trigger,) = events("pagerduty", "trigger.json")
    assert told(trigger, "severity", "title", "link") == [
        "critical",
        "The overhead line has no power",
        "https://scada.example/7",
    ]
    assert trigger.labels["line"] == "coast"
    assert trigger.labels["class"] == "outage"
    statuses = [events("pagerduty", f"{n}.json")[0].status for n in ("acknowledge", "resolve")]
    assert statuses == ["acknowledged", "resolved"]
    ids = {events("pagerduty", f"{n}.json")[0].disruption_id for n in ("trigger", "resolve")}
    assert ids == {"northlink/coast/power"}


def test_a_trigger_without_a_key_has_one_and_nothing_else_does() -> None:
    payload = {"summary": "s", "source": "x", "severity": "info"}
    trigger = {"event_action": "trigger", "payload": payload}
    assert pagerduty.dedup_key_of(trigger) == pagerduty.dedup_key_of(dict(trigger))
    with pytest.raises(CannotRead, match="/dedup_key"):
        pagerduty.dedup_key_of({"event_action": "resolve"})


def test_webhooks_of_pagerduty() -> None:
    (triggered,) = events("pagerduty", "webhook-triggered.json")
    assert told(triggered, "disruption_id", "severity", "title") == [
        "PNORTH1",
        "critical",
        "Ticket sales are down",
    ]
    assert triggered.labels["service"] == "Ticketing"
    assert events("pagerduty", "webhook-acknowledged.json")[0].status == "acknowledged"
    assert events("pagerduty", "webhook-resolved.json")[0].status == "resolved"
    assert read("pagerduty", samples("pagerduty")["webhook-annotated.json"]).ignored == 1


# Statuspage.


def test_a_summary_of_statuspage() -> None:
    reading = read("statuspage", samples("statuspage")["summary.json"])
    assert (reading.whole, reading.refused) == (True, [])
    incident, upgrade, compute, console = (one.event for one in reading.reported)
    assert told(incident, "phase", "severity", "detail") == [
        "identified",
        "major",
        "We have found the cause.",
    ]
    assert incident.scopes == ({"component": "API"}, {"component": "Compute (eu-west)"})
    assert told(upgrade, "planned", "labels") == [True, {"component": "API"}]
    assert upgrade.periods == (Period(start_at=utc("2026-10-20T02:00")),)
    assert told(compute, "severity", "title") == ["critical", "Compute (eu-west): major outage"]
    assert console.planned
    assert "component-c1" not in reading.named, "it works: what it had is over"


def test_webhooks_of_statuspage() -> None:
    assert events("statuspage", "webhook-incident.json")[0].status == "resolved"
    (component,) = events("statuspage", "webhook-component.json")
    assert told(component, "disruption_id", "status") == ["component-c2", "resolved"]


# Anything.


def test_a_mapping_says_where_the_fields_are() -> None:
    reading = read("mapping", samples("mapping")["buses.json"])
    assert (reading.ignored, reading.refused) == (1, [])
    diverted, done = (one.event for one in reading.reported)
    assert told(diverted, "disruption_id", "status", "severity", "network") == [
        "7",
        "opened",
        "major",
        "northbus",
    ]
    assert told(diverted, "labels", "values", "occurred_at") == [
        {"line": "B7"},
        {"delay_min": 12.0},
        utc("2026-10-17T17:02"),
    ]
    assert told(done, "status", "severity") == ["resolved", "info"]


def test_a_mapping_is_checked_when_it_is_loaded() -> None:
    for wrong, named in (
        ({"each": "a["}, "JMESPath"),
        ({"fields": {"disruption_id": "a", "status": "b"}}, "fields.title"),
        ({"fields": {"disruption_id": "a", "status": "b", "title": "c", "colour": "d"}}, "colour"),
    ):
        mapping = {"fields": {"disruption_id": "a", "status": "b", "title": "c"}} | wrong
        with pytest.raises(ValueError, match=named):
            source_for("mapping", mapping=mapping)


def test_words_of_gtfs_realtime_that_are_not_utf8_lose_no_disruption() -> None:
    """They come as bytes, which ended the reader."""
    body = samples("gtfs-realtime")["full.pb"]
    reading = read("gtfs-realtime", body.replace(b"\x12\x02en", b"\x12\x02e\xff"))
    whole = read("gtfs-realtime", body)
    assert len(reading.reported) == len(whole.reported)
    garbled = read("gtfs-realtime", body.replace(b"coast", b"co\xffst"))
    found = {str(one.event.labels) + str(one.event.scopes) for one in garbled.reported}
    assert any("co\ufffdst" in labels for labels in found)


@pytest.mark.parametrize(
    ("text", "year"),
    [("9999-12-31T23:59:59-05:00", 9000), ("0001-01-01T00:00:00+14:00", 100), ("2026-10-17T18:02:00Z", 2026)],
)  # fmt: skip
def test_a_time_that_no_zone_has_is_moved_to_where_it_can_be_reckoned_with(
    text: str, year: int
) -> None:
    assert as_instant(text, source_for("cap"), where="/expires").year == year
    told = Disruption.model_validate(
        {"disruption_id": "d", "network": "n", "status": "opened", "title": "t", "expected_end_at": text}
    )  # fmt: skip
    assert told.expected_end_at is not None
    assert told.expected_end_at.astimezone(UTC).year == year
