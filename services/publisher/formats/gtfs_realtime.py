"""GTFS-Realtime 2.0 Service Alerts (gtfs.org/realtime/reference): protobuf, and the same as JSON.

Labels that GTFS knows become informed entities: `line` a route, `stop`, `trip`, `agency`. An incident
with none of them is about the whole network: its agency.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.json_format import MessageToJson
from google.transit import gtfs_realtime_pb2 as gtfs

from schemas.base import Severity
from services.publisher.page import Page, Shown

VERSION = "2.0"
SEVERITIES: dict[Severity, str] = {
    "critical": "SEVERE", "major": "SEVERE", "minor": "WARNING", "info": "INFO",
}  # fmt: skip
SELECTORS = {"line": "route_id", "stop": "stop_id", "agency": "agency_id"}


def documents(page: Page) -> dict[str, bytes]:
    """Return the feed in both forms, by their path."""
    feed: Any = gtfs.FeedMessage()
    feed.header.gtfs_realtime_version = VERSION
    feed.header.incrementality = feed.header.FULL_DATASET
    feed.header.timestamp = int(page.changed_at.timestamp())
    for shown in (*page.current, *page.planned):
        _add(feed.entity.add(), page, shown)
    return {
        "/gtfs-realtime/alerts.pb": feed.SerializeToString(),
        "/gtfs-realtime/alerts.json": MessageToJson(feed).encode(),
    }


def _add(entity: Any, page: Page, shown: Shown) -> None:
    one, alert = shown.incident, entity.alert
    entity.id = one.incident_id
    period = alert.active_period.add()
    period.start = int(one.opened_at.timestamp())
    if one.planned and one.expected_end_at and one.expected_end_at > page.at:
        period.end = int(one.expected_end_at.timestamp())
    alert.severity_level = alert.SeverityLevel.Value(SEVERITIES[one.severity])
    alert.cause = alert.Cause.Value("MAINTENANCE" if one.planned else "UNKNOWN_CAUSE")
    selector = alert.informed_entity.add()
    known = {field: one.labels[label] for label, field in SELECTORS.items() if label in one.labels}
    if "trip" in one.labels:
        selector.trip.trip_id = one.labels["trip"]
    for field, value in (known or {"agency_id": one.labels.get("network", one.network)}).items():
        if "trip" not in one.labels or known:
            setattr(selector, field, value)
    for language in page.settings.languages:
        title = alert.header_text.translation.add()
        title.text, title.language = shown.title(language), language
        texts = [said for said in shown.said if said.language == language]
        if texts:
            text = alert.description_text.translation.add()
            text.text, text.language = texts[0].text, language
    if page.url:
        alert.url.translation.add().text = f"{page.url}/#{one.incident_id}"
