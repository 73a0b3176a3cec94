"""CAP 1.2 (OASIS, docs.oasis-open.org/emergency/cap/v1.2): each incident as an alert, and their index.

The alert of an incident that has changed is an Update that refers to the first, and of one that is over
a Cancel (3.2.1, msgType). The area is what its labels say, in words: labels have no geometry.
"""

from __future__ import annotations

from datetime import datetime
from urllib.parse import quote
from xml.etree.ElementTree import Element, SubElement, tostring

from schemas.base import Severity
from schemas.incidents import Incident
from services.publisher.page import Page, Shown
from services.publisher.texts import printable

NAMESPACE = "urn:oasis:names:tc:emergency:cap:1.2"
SEVERITIES: dict[Severity, str] = {
    "critical": "Extreme", "major": "Severe", "minor": "Moderate", "info": "Minor",
}  # fmt: skip
SENDER = "interlock"


def documents(page: Page) -> dict[str, bytes]:
    """Return the alerts, by their path."""
    return {path_of(shown.incident): _alert(page, shown) for shown in page.all}


def path_of(incident: Incident) -> str:
    """Return where the alert of an incident stands."""
    return f"/cap/{quote(incident.incident_id, safe='')}.xml"


def _alert(page: Page, shown: Shown) -> bytes:
    one = shown.incident
    is_first = one.changed_at <= one.opened_at
    kind = "Cancel" if not one.is_open else "Alert" if is_first else "Update"
    alert = Element("alert", xmlns=NAMESPACE)
    first, sent = f"{one.incident_id}", one.opened_at if is_first else one.changed_at
    _say(alert, "identifier", first if is_first else f"{first}.{sent.timestamp():.0f}")
    _say(alert, "sender", SENDER)
    _say(alert, "sent", _at(sent))
    _say(alert, "status", "Actual")
    _say(alert, "msgType", kind)
    _say(alert, "scope", "Public")
    if not is_first:
        _say(alert, "references", f"{SENDER},{first},{_at(one.opened_at)}")
    for language in page.settings.languages:
        _add_info(alert, page, shown, language)
    xml: bytes = tostring(alert, encoding="utf-8", xml_declaration=True)
    return xml


def _add_info(alert: Element, page: Page, shown: Shown, language: str) -> None:
    one, info = shown.incident, SubElement(alert, "info")
    texts = shown.texts(language)
    _say(info, "language", language)
    _say(info, "category", "Transport" if "line" in one.labels else "Infra")
    _say(info, "event", shown.title(language))
    if not one.is_open:
        _say(info, "responseType", "AllClear")
    _say(info, "urgency", "Past" if not one.is_open else "Immediate")
    _say(info, "severity", SEVERITIES[one.severity])
    _say(info, "certainty", "Observed")
    if one.expected_end_at:
        _say(info, "expires", _at(one.expected_end_at))
    _say(info, "senderName", page.settings.titles.get(language, page.settings.title))
    _say(info, "headline", shown.title(language))
    if texts:
        _say(info, "description", texts[0].text)
    if page.url:
        _say(info, "web", f"{page.url}/#{one.incident_id}")
    area = SubElement(info, "area")
    _say(area, "areaDesc", ", ".join(f"{k} {v}" for k, v in one.labels.items()) or one.network)
    for name, value in one.labels.items():
        code = SubElement(area, "geocode")
        _say(code, "valueName", name)
        _say(code, "value", value)


def _say(element: Element, name: str, text: str) -> None:
    SubElement(element, name).text = printable(text)


def _at(at: datetime) -> str:
    # 3.3.2: no milliseconds, and `-00:00` for UTC.
    return at.strftime("%Y-%m-%dT%H:%M:%S-00:00")
