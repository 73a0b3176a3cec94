"""Statuspage API v2 (metastatuspage.com/api): so that existing clients read our page unchanged.

`scheduled-maintenances` are planned incidents. Identifiers are ours; times are UTC with milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from services.publisher.page import IMPACT_OF, Component, Indicator, Page, Said, Shown

PAGE_ID = "interlock"
WORDS: dict[Indicator, str] = {
    "none": "All Systems Operational",
    "minor": "Minor Service Outage",
    "major": "Partial System Outage",
    "critical": "Major Service Outage",
    "maintenance": "Service Under Maintenance",
}


def documents(page: Page) -> dict[str, bytes]:
    """Return the documents, by their path."""
    open_works = [_works(page, one) for one in page.planned]
    all_works = [_works(page, s) for s in page.all if s.incident.planned]
    incidents = [_incident(page, s) for s in page.all if not s.incident.planned]
    unresolved = [_incident(page, one) for one in page.current]
    status = {"indicator": page.indicator, "description": WORDS[page.indicator]}
    components = _components(page)
    found: dict[str, dict[str, Any]] = {
        "summary": {
            "components": components,
            "incidents": unresolved,
            "scheduled_maintenances": open_works,
            "status": status,
        },
        "status": {"status": status},
        "components": {"components": components},
        "incidents": {"incidents": incidents},
        "incidents/unresolved": {"incidents": unresolved},
        "scheduled-maintenances": {"scheduled_maintenances": all_works},
        "scheduled-maintenances/upcoming": {
            "scheduled_maintenances": [w for w in open_works if w["status"] == "scheduled"]
        },
        "scheduled-maintenances/active": {
            "scheduled_maintenances": [w for w in open_works if w["status"] == "in_progress"]
        },
    }
    head = {"page": _page(page)}
    return {
        f"/api/v2/{name}.json": json.dumps(head | body).encode() for name, body in found.items()
    }


def _page(page: Page) -> dict[str, Any]:
    return {
        "id": PAGE_ID,
        "name": page.settings.title,
        "url": page.url,
        "time_zone": page.settings.time_zone,
        "updated_at": _at(page.changed_at),
    }


def _at(at: datetime | None) -> str | None:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z") if at else None


def _components(page: Page) -> list[dict[str, Any]]:
    return [
        _component(page, one, position=number)
        for number, one in enumerate(page.settings.components, 1)
    ]


def _component(page: Page, one: Component, *, position: int) -> dict[str, Any]:
    changed = max((s.incident.changed_at for s in page.all if one in s.components), default=None)
    return {
        "id": one.id,
        "name": one.name,
        "status": page.states[one.id],
        "created_at": None,
        "updated_at": _at(changed),
        "position": position,
        "description": None,
        "showcase": True,
        "start_date": None,
        "group_id": None,
        "page_id": PAGE_ID,
        "group": False,
        "only_show_if_degraded": False,
    }


def _incident(page: Page, shown: Shown) -> dict[str, Any]:
    one = shown.incident
    closed = one.status == "closed"
    status = "resolved" if closed else one.status
    return {
        "id": one.incident_id,
        "name": shown.title(page.settings.languages[0]),
        "status": status,
        "created_at": _at(one.opened_at),
        "updated_at": _at(one.changed_at),
        "monitoring_at": _at(one.changed_at) if status == "monitoring" else None,
        "resolved_at": _at(one.resolved_at),
        "impact": IMPACT_OF[one.severity],
        "shortlink": f"{page.url}/#{one.incident_id}",
        "started_at": _at(one.opened_at),
        "page_id": PAGE_ID,
        "incident_updates": _updates(page, shown, status),
        "components": _touched(page, shown.components),
        "reminder_intervals": None,
    }


def _touched(page: Page, touched: Iterable[Component]) -> list[dict[str, Any]]:
    place: Callable[[Component], int] = page.settings.components.index
    return [_component(page, one, position=place(one) + 1) for one in touched]


def _updates(page: Page, shown: Shown, status: str) -> list[dict[str, Any]]:
    texts = shown.texts(page.settings.languages[0])
    return [
        _update(shown.incident.incident_id, said, status if said is texts[0] else "investigating")
        for said in texts
    ]


def _update(incident_id: str, said: Said, status: str) -> dict[str, Any]:
    return {
        "id": said.post_id,
        "status": status,
        "body": said.text,
        "incident_id": incident_id,
        "created_at": _at(said.at),
        "updated_at": _at(said.at),
        "display_at": _at(said.at),
        "affected_components": None,
        "deliver_notifications": True,
        "custom_tweet": None,
        "tweet_id": None,
    }


def _works(page: Page, shown: Shown) -> dict[str, Any]:
    one = shown.incident
    begun = one.opened_at <= page.at
    status = "completed" if not one.is_open else "in_progress" if begun else "scheduled"
    return _incident(page, shown) | {
        "status": status,
        "impact": "maintenance",
        "scheduled_for": _at(one.opened_at),
        "scheduled_until": _at(one.expected_end_at or one.resolved_at or one.opened_at),
    }
