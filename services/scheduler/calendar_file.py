"""Offers as a calendar (RFC 5545), for the calendars that people have. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from icalendar import Calendar, Event

from services.scheduler.bodies import PostView
from services.scheduler.life import State

SUMMARY_CHARS: Final = 80
_STATUS: Final[dict[State, str]] = {
    "published": "CONFIRMED",
    "cancelled": "CANCELLED",
    "expired": "CANCELLED",
    "failed": "CANCELLED",
    "retracted": "CANCELLED",
}


def as_icalendar(posts: Iterable[PostView], *, at: datetime) -> bytes:
    """Return offers as events of a quarter of an hour, each with its state."""
    calendar = Calendar()
    calendar.add("prodid", "-//Interlock//offers//EN")
    calendar.add("version", "2.0")
    calendar.add("x-wr-calname", "Offers")
    for post in posts:
        event = Event()
        event.add("uid", f"{post.post_id}@interlock")
        event.add("dtstamp", at)
        event.add("dtstart", post.due_at)
        event.add("dtend", post.due_at + timedelta(minutes=15))
        line = post.text.strip().partition("\n")[0][:SUMMARY_CHARS]
        event.add("summary", f"{post.account}: {line} ({post.state})")
        event.add("description", post.text)
        event.add("status", _STATUS.get(post.state, "TENTATIVE"))
        event.add("categories", [post.campaign_id])
        event.add("sequence", post.version)
        if post.url:
            event.add("url", post.url)
        calendar.add_component(event)
    made: bytes = calendar.to_ical()
    return made
