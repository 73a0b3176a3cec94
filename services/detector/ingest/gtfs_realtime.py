"""GTFS-Realtime Service Alerts (2.0), protobuf or JSON.

A full data set is all that is the case: an alert that it does not name any more is over. A
differential one says what has changed. Who is informed becomes places: `agency`, `line` (route_id),
`mode` (route_type), `direction`, `trip`, `stop`; cause and effect are labels. Construction and
maintenance are planned. The level of severity decides, and where it is unknown the effect.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import DecodeError
from google.transit import gtfs_realtime_pb2 as gtfs

from schemas.base import Severity
from services.detector.ingest.reading import (
    CannotRead,
    Reading,
    as_language,
    in_language,
    severity_of,
)
from services.detector.sources import Source

LATEST_S = 253_402_300_799  # The end of the year 9999: beyond, a period has no end.
MODES = {
    0: "tram", 1: "metro", 2: "rail", 3: "bus", 4: "ferry", 5: "cable-tram", 6: "aerial-lift",
    7: "funicular", 11: "trolleybus", 12: "monorail",
}  # fmt: skip
SEVERITIES: dict[str, Severity] = {"info": "info", "warning": "minor", "severe": "critical"}
BY_EFFECT: dict[str, Severity] = {
    "no_service": "critical", "reduced_service": "major", "significant_delays": "major",
    "detour": "minor", "stop_moved": "minor", "modified_service": "minor",
    "accessibility_issue": "minor", "additional_service": "info", "no_effect": "info",
}  # fmt: skip
PLANNED = ("construction", "maintenance")


def read(body: bytes, source: Source, now: datetime) -> Reading:
    """Read a feed message."""
    feed = _feed(body)
    reading = Reading(whole=feed.header.incrementality == gtfs.FeedHeader.FULL_DATASET)
    for number, entity in enumerate(feed.entity):
        where = f"/entity/{number}"
        if entity.is_deleted:
            reading.add(
                where, source, version=feed.header.timestamp, disruption_id=_text(entity.id),
                status="resolved",
            )  # fmt: skip
        elif entity.HasField("alert"):
            _read_alert(reading, entity, source, where=where, stamp=feed.header.timestamp)
        else:
            reading.ignored += 1  # Trip updates and vehicles: not what this door is for.
    return reading


def _feed(body: bytes) -> Any:
    feed = gtfs.FeedMessage()
    try:
        if body.lstrip()[:1] == b"{":
            Parse(body, feed, ignore_unknown_fields=True)
        else:
            feed.ParseFromString(body)
    except (DecodeError, ParseError, RecursionError, UnicodeDecodeError) as error:
        raise CannotRead("", f"not a GTFS-Realtime feed message: {error}") from error
    if not feed.IsInitialized() or not feed.header.gtfs_realtime_version:
        raise CannotRead("/header/gtfs_realtime_version", "Field required")
    return feed


def _read_alert(reading: Reading, entity: Any, source: Source, *, where: str, stamp: int) -> None:
    alert = entity.alert
    cause = gtfs.Alert.Cause.Name(alert.cause).lower()
    effect = gtfs.Alert.Effect.Name(alert.effect).lower()
    level = gtfs.Alert.SeverityLevel.Name(alert.severity_level).lower()
    titles = _texts(alert.header_text, source)
    details = _texts(alert.description_text, source)
    links = _texts(alert.url, source)
    places = [_place(one) for one in alert.informed_entity]
    shared = places.pop() if len(places) == 1 else {}
    by_effect = severity_of(effect, source, BY_EFFECT)
    reading.add(
        where,
        source,
        version=stamp or None,
        disruption_id=_text(entity.id),
        status="opened",
        title=in_language(titles, source.language)
        or in_language(details, source.language)
        or f"{effect}: {cause}",
        detail=in_language(details, source.language),
        titles={k: v[:300] for k, v in titles.items()},
        details={k: v[:10_000] for k, v in details.items()},
        severity=severity_of(level, source, SEVERITIES, otherwise=by_effect),
        labels={"cause": cause, "effect": effect} | shared,
        scopes=places,
        periods=[_period(one) for one in alert.active_period],
        planned=cause in PLANNED,
        link=in_language(links, source.language) or None,
        occurred_at=datetime.fromtimestamp(stamp, UTC) if 0 < stamp < LATEST_S else None,
    )


def _texts(translated: Any, source: Source) -> dict[str, str]:
    found = {}
    for one in translated.translation:
        language, text = _text(one.language), _text(one.text).strip()
        if text and "html" not in language:  # Some feeds have a second text for web pages.
            found[as_language(language, source.language)] = text
    return found


def _text(given: str | bytes) -> str:
    """Return words; those that are not UTF-8 come as bytes, since proto2 does not look."""
    return given if isinstance(given, str) else given.decode(errors="replace")


def _place(informed: Any) -> dict[str, str]:
    trip = informed.trip
    found = {
        "agency": _text(informed.agency_id),
        "line": _text(informed.route_id or trip.route_id),
        "stop": _text(informed.stop_id),
        "trip": _text(trip.trip_id),
    }
    if informed.HasField("route_type"):
        found["mode"] = MODES.get(informed.route_type, str(informed.route_type))
    if informed.HasField("direction_id"):
        found["direction"] = str(informed.direction_id)
    return {name: value for name, value in found.items() if value}


def _period(period: Any) -> dict[str, Any]:
    return {"start_at": _instant(period.start), "end_at": _instant(period.end)}


def _instant(stamp: int) -> datetime | None:
    return datetime.fromtimestamp(stamp, UTC) if 0 < stamp < LATEST_S else None
