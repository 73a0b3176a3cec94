"""PagerDuty: its Events API v2 (what monitoring tools send it), and its webhooks v3 (what it sends).

`trigger` opens, `acknowledge` says that somebody is at it, `resolve` ends; the `dedup_key` is the
disruption. An incident of a webhook is one by its id, with its service and priority as labels.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from schemas.base import Severity
from services.detector.ingest.reading import (
    CannotRead,
    Reading,
    as_id,
    as_instant,
    as_json,
    digest,
    must_be,
    severity_of,
)
from services.detector.sources import Source

ACTIONS = {"trigger": "opened", "acknowledge": "acknowledged", "resolve": "resolved"}
SEVERITIES: dict[str, Severity] = {
    "critical": "critical", "error": "major", "warning": "minor", "info": "info",
    "p1": "critical", "p2": "major", "p3": "minor", "p4": "minor", "p5": "info",
    "high": "major", "low": "minor",
}  # fmt: skip
PAGED = ("critical", "error", "warning", "info")
OPENS = ("incident.triggered", "incident.reopened")
CHANGES = (
    "incident.escalated", "incident.reassigned", "incident.delegated", "incident.priority_updated",
    "incident.unacknowledged", "incident.service_updated",
)  # fmt: skip


def read(body: bytes, source: Source, now: datetime) -> Reading:
    """Read an event of either API."""
    found = must_be(dict, as_json(body), "")
    if "event_action" in found:
        return _read_event(found, source)
    if "event" in found:
        return _read_webhook(must_be(dict, found["event"], "/event"), source)
    raise CannotRead("/event_action", "Field required; a webhook has `event`")


def dedup_key_of(found: dict[str, Any]) -> str:
    """Return an event's key; one that a trigger does not give is made of what it says."""
    given = found.get("dedup_key")
    if given:
        return as_id(must_be(str, given, "/dedup_key"))
    if found.get("event_action") != "trigger":
        raise CannotRead("/dedup_key", "Field required: it says what is meant")
    payload = must_be(dict, found.get("payload") or {}, "/payload")
    return digest(payload.get("source"), payload.get("summary"), payload.get("component"))


def _read_event(found: dict[str, Any], source: Source) -> Reading:
    action = str(found.get("event_action"))
    if action not in ACTIONS:
        raise CannotRead("/event_action", f"one of {', '.join(ACTIONS)} was expected")
    payload = must_be(dict, found.get("payload") or {}, "/payload")
    if action == "trigger":
        for name in ("summary", "source", "severity"):
            must_be(str, payload.get(name), f"/payload/{name}")
        if payload["severity"] not in PAGED:
            raise CannotRead(
                "/payload/severity", "one of critical, error, warning, info was expected"
            )
    at = None
    if payload.get("timestamp"):
        at = as_instant(payload["timestamp"], source, where="/payload/timestamp")
    details = payload.get("custom_details") or {}
    labels = details if isinstance(details, dict) else {}
    reading = Reading()
    reading.add(
        "/payload",
        source,
        version=at,
        disruption_id=dedup_key_of(found),
        status=ACTIONS[action],
        title=str(payload.get("summary") or ""),
        severity=severity_of(payload.get("severity"), source, SEVERITIES),
        labels={name: v for name, v in labels.items() if isinstance(v, str | int | float)}
        | {name: payload.get(name) for name in ("source", "component", "group", "class")},
        occurred_at=at,
        link=_link(found),
    )
    return reading


def _link(found: dict[str, Any]) -> str:
    links = found.get("links")
    first = links[0] if isinstance(links, list) and links else {}
    return str(
        (first.get("href") if isinstance(first, dict) else "") or found.get("client_url") or ""
    )


def _read_webhook(event: dict[str, Any], source: Source) -> Reading:
    kind, reading = str(event.get("event_type") or ""), Reading()
    statuses = {"incident.acknowledged": "acknowledged", "incident.resolved": "resolved"}
    status = statuses.get(kind) or ("opened" if kind in OPENS or kind in CHANGES else "")
    if not status:
        reading.ignored = 1  # Notes, responders and what else says nothing of the disruption.
        return reading
    data = must_be(dict, event.get("data"), "/event/data")
    service = _summary(data, "service")
    priority = _summary(data, "priority")
    at = event.get("occurred_at")
    reading.add(
        "/event/data",
        source,
        version=event.get("id"),
        disruption_id=must_be(str, data.get("id"), "/event/data/id"),
        status=status,
        title=str(data.get("title") or data.get("summary") or "An incident"),
        severity=severity_of(priority or data.get("urgency"), source, SEVERITIES),
        phase="identified" if data.get("status") == "acknowledged" else None,
        labels={"service": service, "priority": priority, "urgency": data.get("urgency")},
        occurred_at=as_instant(at, source, where="/event/occurred_at") if at else None,
        link=data.get("html_url"),
    )
    return reading


def _summary(data: dict[str, Any], name: str) -> str:
    found = data.get(name)
    return str(found.get("summary") or "") if isinstance(found, dict) else ""
