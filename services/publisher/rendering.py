"""The page in each of its languages, as HTML: values in, text out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo

import babel
from babel.dates import format_datetime, format_time
from jinja2 import Environment, PackageLoader, StrictUndefined

from services.publisher.page import IMPACT_OF, Component, Page, Shown

MARKS = {
    "operational": "✓", "degraded_performance": "◐", "partial_outage": "▲",
    "major_outage": "✕", "under_maintenance": "⚒",
}  # fmt: skip
Words = dict[str, dict[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How people can be told: by mail, and by push where there is a key (base64url)."""

    mail: bool = False
    push_key: str = ""


def documents(page: Page, words: Words, ways: Ways) -> dict[str, bytes]:
    """Return the page in each language, by its path."""
    return {
        home(page.settings.languages, language): _page(page, words, language, ways)
        for language in page.settings.languages
    }


def home(languages: tuple[str, ...], language: str) -> str:
    """Return the path of the page in a language; the first is `/`."""
    return "/" if language == languages[0] else f"/{language}/"


def words_of(words: Words, language: str) -> dict[str, str]:
    """Return the page's words in a language; English where there are none."""
    return words["en"] | words.get(language, words.get(language[:2], {}))


def _page(page: Page, words: Words, language: str, ways: Ways) -> bytes:
    zone = ZoneInfo(page.settings.time_zone)
    languages = page.settings.languages
    known = locale_of(language)

    def when(at: datetime) -> str:
        local = at.astimezone(zone)
        if local.date() == page.at.astimezone(zone).date():
            return format_time(local, "HH:mm", locale=known)
        return format_datetime(local, "d MMM HH:mm", locale=known)

    made = (
        _templates()
        .get_template("page.html")
        .render(
            page=page,
            title=page.settings.titles.get(language, page.settings.title),
            language=language,
            main=languages[0],
            words=words_of(words, language),
            root="" if language == languages[0] else f"/{language}",
            home=lambda one: home(languages, one),
            name_of=_name_of,
            when=when,
            marks=MARKS,
            impact=_impact,
            ways=ways,
        )
    )
    return made.encode()


def message(words: Words, language: str, *, title: str, text: str, action: str = "") -> str:
    """Return a page with one sentence of the words; with an `action` it is the one button."""
    known = words_of(words, language)
    return (
        _templates()
        .get_template("message.html")
        .render(
            title=title, language=language, words=known, text=known[text], action=action, home="/"
        )
    )


def _impact(shown: Shown) -> str:
    return "maintenance" if shown.incident.planned else IMPACT_OF[shown.incident.severity]


@cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("services.publisher"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    found.filters["name_in"] = _name_in
    return found


def _name_in(component: Component, language: str) -> str:
    return component.names.get(language, component.name)


def locale_of(language: str) -> babel.Locale:
    """Return the locale of a language tag; English where it is not known."""
    try:
        return babel.Locale.parse(language, sep="-")
    except (babel.UnknownLocaleError, ValueError):
        return babel.Locale("en")


def _name_of(language: str) -> Any:
    known = locale_of(language)
    return (known.get_display_name(known) or language).capitalize()
