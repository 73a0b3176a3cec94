"""The life of an incident, as a table: which status may follow which, and what changes with it.

`investigating`, `identified` and `monitoring` are open: the holds stand. `resolved` has released
them, and within its rule's time comes back as the same incident. `closed` is the end.
"""

from __future__ import annotations

from datetime import datetime

from schemas.incidents import Incident, Status

NEXT: dict[Status, frozenset[Status]] = {
    "investigating": frozenset({"identified", "monitoring", "resolved", "closed"}),
    "identified": frozenset({"investigating", "monitoring", "resolved", "closed"}),
    "monitoring": frozenset({"investigating", "identified", "resolved", "closed"}),
    "resolved": frozenset({"investigating", "identified", "monitoring", "closed"}),
    "closed": frozenset(),
}
"""An open incident is closed at once only when it is merged into another."""


def move(incident: Incident, to: Status, *, at: datetime) -> Incident:
    """Return the incident in another status. An illegal move is a mistake of ours, and raises."""
    if to == incident.status:
        return incident
    assert to in NEXT[incident.status], f"{incident.status} → {to} is no move"
    over = to in ("resolved", "closed")
    return incident.model_copy(
        update={
            "status": to,
            "resolved_at": (incident.resolved_at or at) if over else None,
            "release_at": None,
            "next_update_at": None if over else incident.next_update_at,
        }
    )
