"""Statuspage v2: somebody else's status page (`summary.json`, read), and its webhook.

A summary is all that is the case: incidents that are not resolved, maintenances, and components
that are not operational. A maintenance is planned, for its period. A webhook speaks of one of them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from schemas.base import Severity
from services.detector.ingest.reading import (
    CannotRead,
    Reading,
    as_instant,
    as_json,
    must_be,
    severity_of,
)
from services.detector.sources import Source

OVER = ("resolved", "postmortem", "completed")
PHASES = ("investigating", "identified", "monitoring")
SEVERITIES: dict[str, Severity] = {
    "none": "info", "minor": "minor", "major": "major", "critical": "critical",
    "maintenance": "minor", "degraded_performance": "minor", "partial_outage": "major",
    "major_outage": "critical", "under_maintenance": "minor", "operational": "info",
}  # fmt: skip


def read(body: bytes, source: Source, now: datetime) -> Reading:
    """Read a summary or a webhook."""
    found = must_be(dict, as_json(body), "")
    if "components" in found and "incidents" in found:
        return _read_summary(found, source)
    reading = Reading()
    if isinstance(found.get("incident"), dict):
        _read_incident(reading, found["incident"], source, where="/incident")
    elif isinstance(found.get("component"), dict):
        _read_component(reading, found["component"], source, where="/component")
    else:
        raise CannotRead("", "neither a summary nor a webhook of an incident or a component")
    return reading


def _read_summary(found: dict[str, Any], source: Source) -> Reading:
    reading = Reading(whole=True)
    kinds = (
        ("incidents", _read_incident),
        ("scheduled_maintenances", _read_incident),
        ("components", _read_component),
    )
    for name, take in kinds:
        for number, one in enumerate(must_be(list, found.get(name, []), f"/{name}")):
            where = f"/{name}/{number}"
            try:
                take(reading, must_be(dict, one, where), source, where=where)
            except CannotRead as error:
                reading.refuse(error.where, error.why, named=_id(name, one))
    return reading


def _id(kind: str, one: Any) -> str:
    given = one.get("id") if isinstance(one, dict) else None
    return f"component-{given}" if given and kind == "components" else str(given or "")


def _read_incident(reading: Reading, one: dict[str, Any], source: Source, *, where: str) -> None:
    def instant(name: str) -> datetime | None:
        text = one.get(name)
        return as_instant(text, source, where=f"{where}/{name}") if text else None

    status = str(one.get("status") or "")
    begins_at, ends_at = instant("scheduled_for"), instant("scheduled_until")
    planned = begins_at is not None
    updates = _objects(one, "incident_updates", where)
    names = [str(c["name"]) for c in _objects(one, "components", where) if c.get("name")]
    reading.add(
        where,
        source,
        version=one.get("updated_at"),
        disruption_id=must_be(str, one.get("id"), f"{where}/id"),
        status="resolved" if status in OVER else "opened",
        title=str(one.get("name") or "An incident"),
        detail=str(updates[0].get("body") or "") if updates else "",
        severity=severity_of(one.get("impact"), source, SEVERITIES),
        phase=status if status in PHASES else None,
        labels={"component": names[0]} if len(names) == 1 else {},
        scopes=[{"component": name} for name in names] if len(names) > 1 else [],
        planned=planned,
        # What has begun goes on until somebody says that it is over, whatever was scheduled.
        periods=[{"start_at": begins_at, "end_at": None}] if planned else [],
        expected_end_at=ends_at,
        occurred_at=instant("updated_at"),
        link=one.get("shortlink"),
    )


def _objects(one: dict[str, Any], name: str, where: str) -> list[dict[str, Any]]:
    found = must_be(list, one.get(name) or [], f"{where}/{name}")
    return [must_be(dict, inner, f"{where}/{name}/{n}") for n, inner in enumerate(found)]


def _read_component(reading: Reading, one: dict[str, Any], source: Source, *, where: str) -> None:
    status = str(one.get("status") or "")
    if one.get("group"):
        return  # A group is as its components are.
    name = str(one.get("name") or "A component")
    at = one.get("updated_at")
    if status == "operational":
        if where.startswith("/components/"):
            return  # Not named: that is how a summary says that it is over.
        status_word, title = "resolved", name
    else:
        status_word, title = "opened", f"{name}: {status.replace('_', ' ')}"
    reading.add(
        where,
        source,
        version=(at, status) if at else None,
        disruption_id=f"component-{must_be(str, one.get('id'), f'{where}/id')}",
        status=status_word,
        title=title,
        severity=severity_of(status, source, SEVERITIES),
        labels={"component": name},
        planned=status == "under_maintenance",
        occurred_at=as_instant(at, source, where=f"{where}/updated_at") if at else None,
    )
