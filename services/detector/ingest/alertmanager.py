"""Prometheus: Alertmanager's webhook (version 4), and the alerts that Prometheus itself pushes.

Prometheus takes Interlock for one more Alertmanager (its API v2, `POST /api/v2/alerts`): an alert
that it does not send again is over at its `endsAt`. Alertmanager's webhook says when one is over.

A label `network` names the network. `severity` is `critical`, `error`, `warning`, `info` or what
the source's settings say. The title is the annotation `summary`, else the alert's name.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from schemas.base import Severity
from schemas.labels import Matcher, parse_matchers
from services.detector.ingest.reading import (
    CannotRead,
    Reading,
    as_instant,
    as_json,
    must_be,
    severity_of,
)
from services.detector.sources import Source
from services.detector.state import Report

_UNQUOTED = re.compile(r"\s*(?P<name>\w+)\s*(?P<operator>=~|!~|!=|=)\s*(?P<value>[^\s\"{][^,]*)")
NEVER = 1970  # Go's zero time is of the year 1: it stands where there is no end.
SEVERITIES: dict[str, Severity] = {
    "critical": "critical", "page": "critical", "fatal": "critical", "emergency": "critical",
    "error": "major", "high": "major", "major": "major",
    "warning": "minor", "warn": "minor", "medium": "minor", "minor": "minor", "low": "minor",
    "info": "info", "informational": "info", "none": "info", "debug": "info",
}  # fmt: skip


def read(body: bytes, source: Source, now: datetime) -> Reading:
    """Read a webhook (an object) or pushed alerts (an array)."""
    found = as_json(body)
    if isinstance(found, list):
        return _read_alerts(found, source, now, where="", pushed=True)
    must_be(dict, found, "")
    if found.get("version") != "4":
        raise CannotRead("/version", '"4" was expected: the webhook format of Alertmanager ≥ 0.6')
    alerts = must_be(list, found.get("alerts"), "/alerts")
    return _read_alerts(alerts, source, now, where="/alerts", pushed=False)


def _read_alerts(
    alerts: list[Any], source: Source, now: datetime, *, where: str, pushed: bool
) -> Reading:
    reading = Reading()
    for number, alert in enumerate(alerts):
        place = f"{where}/{number}"
        try:
            _read_alert(reading, alert, source, now, place=place, pushed=pushed)
        except CannotRead as error:
            reading.refuse(error.where, error.why)
    return reading


def _read_alert(
    reading: Reading, alert: Any, source: Source, now: datetime, *, place: str, pushed: bool
) -> None:
    must_be(dict, alert, place)
    labels = _texts(alert.get("labels"), f"{place}/labels")
    if not labels:
        raise CannotRead(f"{place}/labels", "an alert has labels")
    notes = _texts(alert.get("annotations") or {}, f"{place}/annotations")
    starts_at = _instant(alert, "startsAt", source, place)
    ends_at = _instant(alert, "endsAt", source, place)
    if pushed:
        ends_at = ends_at or now + timedelta(seconds=source.resolve_after_s)
        is_over = ends_at <= now
    else:
        is_over = alert.get("status") == "resolved"
    reading.add(
        place,
        source,
        version=None if pushed else (starts_at, ends_at),
        disruption_id=alert.get("fingerprint") or fingerprint(labels),
        status="resolved" if is_over else "opened",
        title=notes.get("summary") or notes.get("title") or labels.get("alertname") or "An alert",
        detail=notes.get("description") or notes.get("message") or "",
        severity=severity_of(labels.get("severity"), source, SEVERITIES),
        labels={name: value for name, value in labels.items() if name != "severity"},
        occurred_at=ends_at if is_over and not pushed else None,
        expires_at=ends_at if pushed and not is_over else None,
        link=notes.get("runbook_url") or alert.get("generatorURL"),
    )


def write_alert(report: Report) -> dict[str, Any]:
    """Return a report as a `gettableAlert` of Alertmanager's API v2."""
    event = report.event
    labels = {**event.labels, "network": event.network, "severity": event.severity}
    state = "unprocessed" if report.waits_for else "active"
    return {
        "labels": labels,
        "annotations": {"summary": event.title, "description": event.detail},
        "startsAt": report.first_at.isoformat(),
        "updatedAt": report.first_at.isoformat(),
        "endsAt": (event.expires_at or report.first_at + timedelta(days=1)).isoformat(),
        "generatorURL": event.link or "",
        "fingerprint": event.disruption_id,
        "receivers": [{"name": "interlock"}],
        "status": {"state": state, "inhibitedBy": [], "silencedBy": []},
    }


def read_filter(text: str) -> tuple[Matcher, ...]:
    """Read a filter as amtool writes it: the value may stand without quotes. Raises ValueError."""
    plain = _UNQUOTED.fullmatch(text)
    if plain is not None:
        value = plain["value"].replace("\\", "\\\\").replace('"', '\\"')
        text = f'{plain["name"]}{plain["operator"]}"{value}"'
    return parse_matchers(text)


def status(*, started_at: datetime) -> dict[str, Any]:
    """Return an `alertmanagerStatus` of Alertmanager's API v2."""
    names = ("branch", "buildDate", "buildUser", "goVersion", "revision", "version")
    return {
        "cluster": {"status": "disabled", "peers": []},
        "config": {"original": ""},
        "uptime": started_at.isoformat(),
        "versionInfo": dict.fromkeys(names, "") | {"version": "interlock"},
    }


def fingerprint(labels: dict[str, str]) -> str:
    """Return an alert's identity as Prometheus has it: FNV-1a over its labels, by name.

    prometheus/common, model/signature.go: each name and value is followed by the byte 255.
    """
    value = 0xCBF29CE484222325
    for name in sorted(labels):
        for byte in f"{name}".encode() + b"\xff" + labels[name].encode() + b"\xff":
            value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def _texts(found: Any, where: str) -> dict[str, str]:
    must_be(dict, found, where)
    return {str(name): must_be(str, value, f"{where}/{name}") for name, value in found.items()}


def _instant(alert: dict[str, Any], name: str, source: Source, place: str) -> datetime | None:
    if not alert.get(name):
        return None
    text = str(alert[name])
    if text.startswith("0001-01-01"):
        return None
    at = as_instant(text, source, where=f"{place}/{name}")
    return None if at.year <= NEVER else at
