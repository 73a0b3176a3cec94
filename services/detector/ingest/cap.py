"""Common Alerting Protocol 1.2 and 1.1 (OASIS), and the Atom and RSS indexes that list it.

Only the status `Actual` is taken: exercises, tests, drafts and system messages hold nothing. An
Update and a Cancel name what came before them in `references`: an Update takes its place, a Cancel
ends it. An alert is over when its last information `expires`, or says that it is past or all clear.
Several blocks of information are languages of one alert; areas are places, by `area` and geocodes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from schemas.base import SEVERITIES as OURS
from schemas.base import Severity
from services.detector.ingest.reading import (
    CannotRead,
    Reading,
    as_id,
    as_instant,
    as_language,
    as_name,
    as_xml,
    in_language,
    severity_of,
)
from services.detector.sources import Source

NAMESPACES = ("urn:oasis:names:tc:emergency:cap:1.2", "urn:oasis:names:tc:emergency:cap:1.1")
ATOM = "http://www.w3.org/2005/Atom"
LINKS = 200
REFERENCE_PARTS = 3  # sender,identifier,sent: clause 3.2.1, `references`.
STATUSES = ("Actual", "Exercise", "System", "Test", "Draft")
MESSAGES = ("Alert", "Update", "Cancel", "Ack", "Error")
SEVERITIES: dict[str, Severity] = {
    "extreme": "critical", "severe": "major", "moderate": "minor", "minor": "info",
}  # fmt: skip


def read(body: bytes, source: Source, now: datetime) -> Reading:
    """Read one alert."""
    found = _alert(body)
    kind, identifier = found.text("msgType"), found.text("identifier")
    reading = Reading()
    if found.text("status") != "Actual" or kind in ("Ack", "Error"):
        reading.ignored = 1
        return reading
    references = _references(found)
    if kind != "Cancel":
        _read_alert(reading, found, source, replaces=references if kind == "Update" else [])
        return reading
    if not references:
        raise CannotRead("/alert/references", "a Cancel names what it cancels")
    for one in references:
        reading.add("/alert", source, version=identifier, disruption_id=one, status="resolved")
    return reading


def index(body: bytes) -> list[str]:
    """Return what an Atom or RSS index links to, the addresses of alerts. Raises CannotRead."""
    root = as_xml(body)
    if root.tag == f"{{{ATOM}}}feed":
        links = [
            link.get("href", "")
            for entry in root.iter(f"{{{ATOM}}}entry")
            for link in _best_links(entry.findall(f"{{{ATOM}}}link"))
        ]
    elif root.tag == "rss":
        links = [(item.findtext("link") or "").strip() for item in root.iter("item")]
    else:
        raise CannotRead("/", f"an Atom or RSS feed was expected, found {root.tag}")
    return list(dict.fromkeys(link for link in links if link))[:LINKS]


def _best_links(links: list[Any]) -> list[Any]:
    typed = [link for link in links if "cap+xml" in link.get("type", "")]
    return (typed or links)[:1]


def _alert(body: bytes) -> _Element:
    root = as_xml(body)
    namespace, _, name = root.tag[1:].partition("}")
    if name != "alert" or namespace not in NAMESPACES:
        raise CannotRead("/", f"an alert of CAP 1.2 or 1.1 was expected, found {root.tag}")
    found = _Element(root, namespace)
    for field, allowed in (("status", STATUSES), ("msgType", MESSAGES)):
        if found.text(field) not in allowed:
            raise CannotRead(f"/alert/{field}", f"one of {', '.join(allowed)} was expected")
    for field in ("identifier", "sender"):
        if not found.text(field):
            raise CannotRead(f"/alert/{field}", "Field required")
    return found


class _Element:
    """An element with the namespace of its document."""

    def __init__(self, element: Any, namespace: str) -> None:
        self.element, self.namespace = element, namespace

    def text(self, name: str) -> str:
        return (self.element.findtext(f"{{{self.namespace}}}{name}") or "").strip()

    def all(self, name: str) -> list[_Element]:
        found = self.element.findall(f"{{{self.namespace}}}{name}")
        return [_Element(one, self.namespace) for one in found]


def _references(alert: _Element) -> list[str]:
    found = []
    for triple in alert.text("references").split():
        parts = triple.split(",")
        if len(parts) != REFERENCE_PARTS:
            raise CannotRead(
                "/alert/references", f"sender,identifier,sent expected: {triple[:80]!r}"
            )
        found.append(as_id(parts[1]))
    return found


def _read_alert(reading: Reading, alert: _Element, source: Source, *, replaces: list[str]) -> None:
    infos = alert.all("info")
    sent_at = as_instant(alert.text("sent"), source, where="/alert/sent")
    if not infos:
        raise CannotRead("/alert/info", "an Alert or an Update has information")
    titles = {_language(i, source): i.text("headline") or i.text("event") for i in reversed(infos)}
    title = in_language(titles, source.language)
    own = next(i for i in infos if title in (i.text("headline"), i.text("event")))
    severities = [severity_of(i.text("severity"), source, SEVERITIES) for i in infos]
    is_over = all(
        info.text("urgency") == "Past"
        or "AllClear" in [one.element.text for one in info.all("responseType")]
        for info in infos
    )
    places = [place for info in infos for area in info.all("area") for place in _places(area)]
    places = [place for number, place in enumerate(places) if place not in places[:number]]
    shared = places.pop() if len(places) == 1 else {}
    reading.add(
        "/alert",
        source,
        version=alert.text("sent"),
        disruption_id=alert.text("identifier"),
        status="resolved" if is_over else "opened",
        title=title,
        detail=_detail(own),
        titles={language: text[:300] for language, text in titles.items() if text},
        details={_language(i, source): t[:10_000] for i in infos if (t := _detail(i))},
        severity=max(severities, key=OURS.index),
        labels={
            "event": own.text("event"),
            "category": own.text("category"),
            "urgency": own.text("urgency"),
            "certainty": own.text("certainty"),
            "sender": alert.text("sender"),
        }
        | shared,
        scopes=places,
        periods=_periods(infos, source),
        occurred_at=sent_at,
        replaces=replaces,
        link=own.text("web"),
    )


def _language(info: _Element, source: Source) -> str:
    return as_language(info.text("language") or "", source.language)


def _detail(info: _Element) -> str:
    return " ".join(text for name in ("description", "instruction") if (text := info.text(name)))


def _places(area: _Element) -> list[dict[str, str]]:
    """Return an area's places: one for each value of a geocode that has several."""
    named = {"area": area.text("areaDesc")} if area.text("areaDesc") else {}
    codes: dict[str, list[str]] = {}
    for code in area.all("geocode"):
        codes.setdefault(as_name(code.text("valueName")), []).append(code.text("value"))
    single = {name: values[0] for name, values in codes.items() if len(values) == 1}
    several = [(name, v) for name, values in codes.items() if len(values) > 1 for v in values]
    if not several:
        return [named | single]
    return [named | single | {name: value} for name, value in several]


def _periods(infos: list[_Element], source: Source) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for number, info in enumerate(infos):
        where = f"/alert/info/{number}"
        begins = info.text("onset") or info.text("effective")
        period = {
            "start_at": as_instant(begins, source, where=f"{where}/onset") if begins else None,
            "end_at": as_instant(info.text("expires"), source, where=f"{where}/expires")
            if info.text("expires")
            else None,
        }
        if period not in found:
            found.append(period)
    return [] if any(not any(period.values()) for period in found) else found
