"""SIRI Situation Exchange 2.0 and 2.1 (CEN/TS 15531-5): deliveries, asked for or subscribed to.

A situation is `participant:number`; a higher version takes the place of a lower one. `closed` is
over; drafts and what waits for approval are passed over. Planned situations hold in their validity
periods. Networks, lines, operators, stops, places and journeys that are affected become places.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from schemas.base import Severity
from services.detector.ingest.reading import (
    CannotRead,
    Reading,
    as_instant,
    as_language,
    as_xml,
    in_language,
    severity_of,
)
from services.detector.sources import Source

NAMESPACE = "{http://www.siri.org.uk/siri}"
LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"
SITUATIONS = ("PtSituationElement", "RoadSituationElement")
NOT_PUBLIC = ("draft", "pendingApproval", "approvedDraft", "rejected", "pendingapproval")
OVER = ("closed",)
SEVERITIES: dict[str, Severity] = {
    "verysevere": "critical", "severe": "critical", "normal": "major", "slight": "minor",
    "veryslight": "minor", "noimpact": "info",
}  # fmt: skip
AFFECTED = {  # Where an affected thing says what it is, and which label that is.
    "AffectedOperator": (("agency", "OperatorRef"),),
    "AffectedNetwork": (("mode", "VehicleMode"), ("siri_network", "NetworkRef")),
    "AffectedLine": (("line", "LineRef"), ("agency", "AffectedOperator/OperatorRef")),
    "AffectedStopPoint": (("stop", "StopPointRef"),),
    "AffectedStopPlace": (("stop_place", "StopPlaceRef"),),
    "AffectedPlace": (("place", "PlaceRef"),),
    "AffectedVehicleJourney": (
        ("line", "LineRef"), ("trip", "VehicleJourneyRef"),
        ("trip", "FramedVehicleJourneyRef/DatedVehicleJourneyRef"),
    ),
}  # fmt: skip
INNER = ("AffectedLine", "AffectedStopPoint", "AffectedStopPlace", "AffectedVehicleJourney")


def read(body: bytes, source: Source, now: datetime) -> Reading:
    """Read a delivery; a heartbeat and other notifications report nothing."""
    root = as_xml(body)
    if root.tag != f"{NAMESPACE}Siri":
        raise CannotRead("/", f"a Siri element was expected, found {root.tag}")
    delivery = root.find(_path("ServiceDelivery/SituationExchangeDelivery"))
    if delivery is None:
        return _notice(root)
    if (_text(delivery, "Status") or "true").lower() in ("false", "0"):
        why = _text(delivery, "ErrorCondition/Description") or "the producer says that it failed"
        raise CannotRead("/Siri/ServiceDelivery/SituationExchangeDelivery/Status", why)
    # What answers a request names all that is the case; what a subscription sends, what changed.
    is_answer = delivery.find(_path("SubscriptionRef")) is None
    more = (_text(root, "ServiceDelivery/MoreData") or "false").lower() == "true"
    reading = Reading(whole=is_answer and not more)
    situations = delivery.find(_path("Situations"))
    for number, one in enumerate(situations if situations is not None else ()):
        name = one.tag.removeprefix(NAMESPACE)
        where = f"/Situations/{number}"
        try:
            if name in SITUATIONS:
                _read_situation(reading, one, source, where=where)
            else:
                reading.ignored += 1
        except CannotRead as error:
            reading.refuse(error.where, error.why, named=_id(one))
    return reading


def _notice(root: Any) -> Reading:
    """Read what reports no situation: a heartbeat, or the answer to a request to subscribe."""
    answer = root.find(_path("SubscriptionResponse"))
    if answer is not None and (_text(answer, "ResponseStatus/Status") or "true").lower() != "true":
        why = _text(answer, "ResponseStatus/ErrorCondition/Description")
        raise CannotRead(
            "/Siri/SubscriptionResponse", why or "the producer refuses to subscribe us"
        )
    if answer is not None or root.find(_path("HeartbeatNotification")) is not None:
        return Reading(ignored=1)
    if root.find(_path("DataReadyNotification")) is not None:
        raise CannotRead(
            "/Siri/DataReadyNotification", "only direct delivery is taken: subscribe with it"
        )
    raise CannotRead("/Siri/ServiceDelivery", "a SituationExchangeDelivery was expected")


def _read_situation(reading: Reading, one: Any, source: Source, *, where: str) -> None:
    number = _text(one, "SituationNumber")
    if not number:
        raise CannotRead(f"{where}/SituationNumber", "Field required")
    progress = _text(one, "Progress") or "open"
    if progress in NOT_PUBLIC:
        reading.ignored += 1
        return
    titles, details = _texts(one, "Summary", source), _texts(one, "Description", source)
    places = _places(one)
    shared = places.pop() if len(places) == 1 else {}
    created = _text(one, "VersionedAtTime") or _text(one, "CreationTime")
    version = _text(one, "Version")
    reading.add(
        where,
        source,
        version=(version, created) if version or created else None,
        disruption_id=_id(one),
        status="resolved" if progress in OVER else "opened",
        title=in_language(titles, source.language)
        or in_language(details, source.language)
        or _reason(one)
        or number,
        detail=in_language(details, source.language),
        titles={k: v[:300] for k, v in titles.items()},
        details={k: v[:10_000] for k, v in details.items()},
        severity=severity_of(_severity(one), source, SEVERITIES),
        labels={"reason": _reason(one), "effect": _text(one, "Consequences/Consequence/Condition")}
        | shared,
        scopes=places,
        periods=_periods(one, source, where=where),
        planned=(_text(one, "Planned") or "false").lower() == "true",
        occurred_at=as_instant(created, source, where=f"{where}/CreationTime") if created else None,
        link=_text(one, "InfoLinks/InfoLink/Uri") or _text(one, "Source/Uri"),
    )


def _id(one: Any) -> str:
    number = _text(one, "SituationNumber")
    return f"{_text(one, 'ParticipantRef')}:{number}".lstrip(":") if number else ""


def _path(path: str) -> str:
    return "/".join(f"{NAMESPACE}{name}" for name in path.split("/"))


def _text(element: Any, path: str) -> str:
    return (element.findtext(_path(path)) or "").strip()


def _texts(one: Any, name: str, source: Source) -> dict[str, str]:
    found: dict[str, str] = {}
    for element in one.findall(_path(name)):
        text = (element.text or "").strip()
        if text:
            found.setdefault(as_language(element.get(LANGUAGE) or "", source.language), text)
    return found


def _severity(one: Any) -> str:
    return _text(one, "Severity") or _text(one, "Consequences/Consequence/Severity")


def _reason(one: Any) -> str:
    """Return the reason, whichever of its elements has it: `MiscellaneousReason` and its like."""
    for child in one:
        name = child.tag.removeprefix(NAMESPACE)
        if name.endswith("Reason") and (child.text or "").strip():
            return str(child.text).strip()
    return _text(one, "AlertCause")


def _places(one: Any) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    affects = [
        *one.findall(_path("Affects")),
        *one.findall(_path("Consequences/Consequence/Affects")),
    ]
    for root in affects:
        for element in _outermost(root):
            place = _place(element)
            inner = [
                _place(e)
                for name in INNER
                for e in element.iter(f"{NAMESPACE}{name}")
                if e is not element
            ]
            found += [place | one for one in inner if one] or [place]
    unique = [place for number, place in enumerate(found) if place and place not in found[:number]]
    has_unnamed = any(not place for place in found)
    return [*unique, {}] if has_unnamed and unique else unique


def _outermost(root: Any) -> Iterator[Any]:
    """Yield the affected things that stand in no other one."""
    for child in root:
        if child.tag.removeprefix(NAMESPACE) in AFFECTED:
            yield child
        else:
            yield from _outermost(child)


def _place(element: Any) -> dict[str, str]:
    name = element.tag.removeprefix(NAMESPACE)
    return {label: text for label, path in AFFECTED[name] if (text := _text(element, path))}


def _periods(one: Any, source: Source, *, where: str) -> list[dict[str, Any]]:
    found = []
    for number, period in enumerate(one.findall(_path("ValidityPeriod"))):
        place = f"{where}/ValidityPeriod/{number}"
        begins, ends = _text(period, "StartTime"), _text(period, "EndTime")
        found.append(
            {
                "start_at": as_instant(begins, source, where=f"{place}/StartTime")
                if begins
                else None,
                "end_at": as_instant(ends, source, where=f"{place}/EndTime") if ends else None,
            }
        )
    return found
