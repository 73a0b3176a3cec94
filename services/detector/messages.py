"""The words of a status update: sentences of the policy, filled in. Never raises, never empty.

A sentence is a list of ways to say it, each a Jinja template in a sandbox; the first whose every
value is known is taken. A value that is not known is not there: a way that names it is passed over,
and no update has a gap in it. Where no sentence is left, the incident's title stands in.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale, UnknownLocaleError
from babel.dates import format_date, format_datetime, format_timedelta
from babel.numbers import format_decimal
from jinja2 import StrictUndefined, Template, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from schemas.disruptions import HORIZON_S
from schemas.incidents import Incident, Variant
from schemas.policies import MOMENTS, Moment, Policy, Sentences, Words, WordsFor

TEXT_CHARS = 10_000
FAR = timedelta(seconds=HORIZON_S)  # An end that is further away is a word for "not known".
VALUES = (
    "title", "detail", "severity", "labels", "number", "now", "next_update", "expected_end",
    "started", "link", "reports", "planned", "facts",
)  # fmt: skip


class _Missing(StrictUndefined):
    """A value that is not known: to print it fails, to ask whether it is there does not."""

    __slots__ = ()

    def __bool__(self) -> bool:  # type: ignore[override]  # It raises in the base.
        return False


_JINJA = ImmutableSandboxedEnvironment(
    undefined=_Missing, trim_blocks=True, lstrip_blocks=True, autoescape=False
)


@dataclass(frozen=True, slots=True)
class Said:
    """What an update says: by language, and where a policy has other words for some readers."""

    texts: dict[str, str]
    variants: tuple[Variant, ...] = ()


@dataclass(frozen=True, slots=True, order=True)
class _Time:
    """An instant as a template sees it: printed as a time of day, with the day where it differs."""

    at: datetime
    now: datetime
    locale: Locale

    def __str__(self) -> str:
        other_day = self.at.date() != self.now.date()
        return format_datetime(self.at, "EEEE HH:mm" if other_day else "HH:mm", locale=self.locale)

    @property
    def date(self) -> str:
        return format_date(self.at, "long", locale=self.locale)

    @property
    def apart(self) -> str:
        """Say how far from now it is, such as `in 20 minutes`."""
        return format_timedelta(self.at - self.now, locale=self.locale, add_direction=True)


def write(policy: Policy, moment: Moment, incident: Incident, *, at: datetime) -> Said:
    """Return the words of a moment in each language of the policy."""
    texts: dict[str, str] = {}
    variants: list[Variant] = []
    for language, words in policy.messages.items():
        values = _values(policy, incident, language, at)
        fitting = [one for one in words.variants if _fits(one, incident)]
        everybody = [one for one in fitting if one.family is None and one.audience is None]
        chosen = _of(everybody, moment) or getattr(words, moment)
        if chosen is None:
            continue  # Nothing is to be said of it in this language.
        texts[language] = _text(chosen, values, incident, language)
        for family, audience in dict.fromkeys((one.family, one.audience) for one in fitting):
            theirs = [one for one in fitting if (one.family, one.audience) == (family, audience)]
            found = _of(theirs, moment)
            if found is not None and (family, audience) != (None, None):
                text = _text(found, values, incident, language)
                variants.append(
                    Variant(language=language, family=family, audience=audience, text=text)
                )
    return Said(texts, tuple(variants))


EXAMPLE = Incident.model_validate(
    {
        "incident_id": "example", "network": "example", "status": "investigating",
        "severity": "major", "title": "Trains are standing", "detail": "There is no power.",
        "opened_at": "2026-01-01T12:00Z", "changed_at": "2026-01-01T12:00Z",
        "expected_end_at": "2026-01-01T15:00Z", "next_update_at": "2026-01-01T12:20Z",
        "link": "https://example.org", "report_count": 2, "labels": {"network": "example"},
    }
)  # fmt: skip


def check(policy: Policy, *, incident: Incident = EXAMPLE) -> dict[tuple[str | int, ...], str]:
    """Return what is wrong with the sentences of a policy, by where it stands in the file."""
    wrong: dict[tuple[str | int, ...], str] = {}
    for language, words in policy.messages.items():
        values = _values(policy, incident, language, incident.opened_at)
        # Which labels there will be is not known; words may be shared by policies with other facts.
        values |= {"labels": _Anything(), "facts": _Anything(policy.facts)}
        for where, sentences in _all_sentences(words):
            for number, ways in enumerate(sentences):
                for way in ways:
                    if why := _failure(way, values):
                        wrong["messages", language, *where, number] = why
            if not _everybody_can_say(sentences, values):
                wrong.setdefault(
                    ("messages", language, *where),
                    "with the least that is known of an incident, it says nothing",
                )
    return wrong


class _Anything(dict[str, str]):
    """Labels of an example: whichever a template asks for, it is there."""

    def __missing__(self, name: str) -> str:
        return name

    def __contains__(self, name: object) -> bool:
        return True


def _all_sentences(words: Words) -> list[tuple[tuple[str | int, ...], Sentences]]:
    found: list[tuple[tuple[str | int, ...], Sentences]] = []
    for moment in MOMENTS:
        if (sentences := getattr(words, moment)) is not None:
            found.append(((moment,), sentences))
        for number, variant in enumerate(words.variants):
            if (sentences := getattr(variant, moment)) is not None:
                found.append((("variants", number, moment), sentences))
    return found


def _everybody_can_say(sentences: Sentences, values: dict[str, Any]) -> bool:
    least = {k: v for k, v in values.items() if k in ("title", "severity", "number", "now")}
    least |= {"plural": values["plural"], "labels": {}, "facts": {}, "planned": False, "reports": 1}
    return bool(_render(sentences, least))


def _fits(variant: WordsFor, incident: Incident) -> bool:
    if variant.severity and incident.severity not in variant.severity:
        return False
    return variant.planned is None or variant.planned == incident.planned


def _of(variants: list[WordsFor], moment: Moment) -> Sentences | None:
    found: Sentences | None = next(
        (s for one in variants if (s := getattr(one, moment)) is not None), None
    )
    return found


def _text(sentences: Sentences, values: dict[str, Any], incident: Incident, language: str) -> str:
    fallback = _in(incident.titles, language) or incident.title
    return _render(sentences, values)[:TEXT_CHARS] or fallback


def _render(sentences: Sentences, values: dict[str, Any]) -> str:
    return " ".join(said for ways in sentences if (said := _first(ways, values)))


def _first(ways: tuple[str, ...], values: dict[str, Any]) -> str:
    for way in ways:
        try:
            return " ".join(_compiled(way).render(values).split())
        except Exception:  # noqa: S112  # Whatever a template can do wrong: the next way.
            continue
    return ""


def _failure(way: str, values: dict[str, Any]) -> str:
    try:
        _compiled(way).render(values)
    except UndefinedError as error:
        return f"{error}; the values are {', '.join(VALUES)}"
    except Exception as error:  # Jinja's errors share no base with the ones of Python it passes on.
        return str(error)
    return ""


def _values(policy: Policy, incident: Incident, language: str, at: datetime) -> dict[str, Any]:
    """Return what is known; a value that is not known is left out, so that naming it fails."""
    zone, locale = ZoneInfo(policy.time_zone), _locale(language)
    now = at.astimezone(zone)

    def instant(value: datetime | None) -> _Time | None:
        return _Time(value.astimezone(zone), now, locale) if value else None

    known = {
        "title": _in(incident.titles, language) or incident.title,
        "detail": _in(incident.details, language) or incident.detail,
        "severity": incident.severity,
        "labels": incident.labels,
        "number": incident.update_count + 1,
        "now": instant(at),
        "next_update": instant(incident.next_update_at),
        "expected_end": _ahead(instant(incident.expected_end_at)),
        "started": instant(incident.opened_at),
        "link": incident.link,
        "reports": incident.report_count,
        "planned": incident.planned,
        "facts": policy.facts,
        "plural": _plural(language),
    }
    return {name: value for name, value in known.items() if value not in (None, "")}


def _in(texts: dict[str, str], language: str) -> str:
    """Return the text of a language, or of a variety of it."""
    alike = (
        text
        for tag, text in texts.items()
        if tag.split("-")[0] == language.split("-", maxsplit=1)[0]
    )
    return texts.get(language) or next(alike, "")


def _ahead(end: _Time | None) -> _Time | None:
    """Return an expected end that has not passed: nobody is told to wait until an hour ago, or the year 9999."""
    return end if end is not None and end.now < end.at < end.now + FAR else None


@lru_cache(maxsize=64)
def _locale(language: str) -> Locale:
    try:
        return Locale.parse(language, sep="-")
    except (UnknownLocaleError, ValueError):
        return Locale.parse("en")


def _plural(language: str) -> Any:
    """Return `plural(n, one="train", other="trains")`, by the language's own rule (CLDR)."""
    locale = _locale(language)

    def plural(number: float, **forms: str) -> str:
        form = forms.get(locale.plural_form(number), forms["other"])
        return f"{format_decimal(number, locale=locale)} {form}"

    return plural


@lru_cache(maxsize=1024)
def _compiled(template: str) -> Template:
    return _JINJA.from_string(template)
