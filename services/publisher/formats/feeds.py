"""Atom (RFC 4287), RSS 2.0 and iCalendar (RFC 5545): incidents, our own posts, planned works."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from feedgen.feed import FeedGenerator
from icalendar import Calendar, Event

from services.publisher.formats import cap
from services.publisher.page import Page, Said, Shown

PRODUCT = "-//Interlock//status page//EN"
TITLE_CHARS = 100


def documents(page: Page) -> dict[str, bytes]:
    """Return the feeds, by their path; a language other than the first has its own."""
    found = {"/feed.atom": _posts(page), "/works.ics": _works(page), "/cap.atom": _alerts(page)}
    for number, language in enumerate(page.settings.languages):
        root = "" if number == 0 else f"/{language}"
        feed = _feed(page, f"{root}/history.atom", language)
        for shown in page.all:
            _add(feed.add_entry(order="append"), page, shown, language)
        found[f"{root}/history.atom"] = feed.atom_str(pretty=True)
        found[f"{root}/history.rss"] = feed.rss_str(pretty=True)
    return found


def _feed(page: Page, path: str, language: str) -> Any:
    feed = FeedGenerator()
    title = page.settings.titles.get(language, page.settings.title)
    feed.id(f"urn:interlock:{path.strip('/')}")
    feed.title(title)
    feed.description(title)
    feed.link(href=f"{page.url}{path}", rel="self")
    feed.link(href=f"{page.url}/", rel="alternate")
    feed.language(language)
    feed.updated(page.changed_at)
    feed.lastBuildDate(page.changed_at)
    return feed


def _add(entry: Any, page: Page, shown: Shown, language: str) -> None:
    one, texts = shown.incident, shown.texts(language)
    entry.id(f"urn:interlock:incident:{one.incident_id}")
    entry.title(shown.title(language))
    entry.link(href=f"{page.url}/#{one.incident_id}")
    entry.published(one.opened_at)
    entry.updated(max([one.changed_at, *(said.at for said in texts)]))
    body = "\n\n".join(f"{said.at:%Y-%m-%d %H:%M} UTC: {said.text}" for said in texts)
    entry.content(body or shown.title(language), type="text")


def _posts(page: Page) -> bytes:
    feed = _feed(page, "/feed.atom", page.settings.languages[0])
    for post in page.posts:
        _add_post(feed.add_entry(order="append"), page, post)
    made: bytes = feed.atom_str(pretty=True)
    return made


def _add_post(entry: Any, page: Page, post: Said) -> None:
    entry.id(f"urn:interlock:post:{post.post_id}")
    entry.title(post.text[:TITLE_CHARS])
    entry.link(href=f"{page.url}/#{post.incident_id or ''}")
    entry.content(post.text, type="text")
    entry.published(post.at)
    entry.updated(post.at)


def _alerts(page: Page) -> bytes:
    """Return the index of what now is, as CAP's readers poll it."""
    feed = _feed(page, "/cap.atom", page.settings.languages[0])
    for shown in (*page.current, *page.planned):
        entry = feed.add_entry(order="append")
        _add(entry, page, shown, page.settings.languages[0])
        path = cap.path_of(shown.incident)
        entry.link(href=f"{page.url}{path}", type="application/cap+xml", replace=True)
    made: bytes = feed.atom_str(pretty=True)
    return made


def _works(page: Page) -> bytes:
    calendar = Calendar()
    calendar.add("prodid", PRODUCT)
    calendar.add("version", "2.0")
    calendar.add("x-wr-calname", page.settings.title)
    language = page.settings.languages[0]
    for shown in page.all:
        one = shown.incident
        if not one.planned:
            continue
        event = Event()
        event.add("uid", f"{one.incident_id}@interlock")
        event.add("dtstamp", one.changed_at)
        event.add("dtstart", one.opened_at)
        ends_at = one.expected_end_at or one.resolved_at or one.opened_at + timedelta(hours=1)
        event.add("dtend", max(ends_at, one.opened_at + timedelta(minutes=1)))
        event.add("summary", shown.title(language))
        event.add("description", "\n\n".join(said.text for said in shown.texts(language)))
        calendar.add_component(event)
    made: bytes = calendar.to_ical()
    return made
