"""Lanes: posts of a campaign with the same labels. Holds are judged per lane, never per post."""

from __future__ import annotations

import json
from collections.abc import Iterable

from schemas.holds import HoldOpened


def lane_key(labels: dict[str, str]) -> str:
    """Return one text for equal labels."""
    return json.dumps(labels, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def held_by(labels: dict[str, str], holds: Iterable[HoldOpened]) -> list[str]:
    """Return the ids of the holds that cover a lane."""
    return [hold.hold_id for hold in holds if hold.covers(labels)]


def covered(lanes: Iterable[tuple[int, dict[str, str]]], hold: HoldOpened) -> list[int]:
    """Return the lanes that a hold covers."""
    return [lane_id for lane_id, labels in lanes if hold.covers(labels)]
