"""What every format makes: disruptions, what was refused and why, and whether that was all.

- What one alert of many has wrong refuses that alert, by where it stands; the others are taken.
- An id says the same thing for ever. It is made of what the sender says of its own time or version;
  a sender that says nothing of it, and a whole data set, get an id that is new each time: the fold
  sees what is the same.
- A time without a zone is refused, or read in the zone that the source's settings state.
- Names and values that are too long for a label are cut, by the same rule every time.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring
from pydantic import ValidationError

from schemas.base import LANGUAGE, Severity, clamped
from schemas.disruptions import DETAIL_CHARS, LINK_CHARS, Disruption
from schemas.envelope import mistakes_of
from schemas.labels import LABEL_COUNT, VALUE_CHARS, canonical
from services.detector.sources import Source

ID_CHARS = 200
TITLE_CHARS = 300
NAME_CHARS = 64
_ID = re.compile(r"^[\x21-\x7e]+$")
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]+")


class CannotRead(ValueError):
    """A body that is none of its format at all; `where` names the place."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}" if where else why)
        self.where, self.why = where, why


@dataclass(frozen=True, slots=True)
class Reported:
    """One disruption, and the id of the event that reports it; empty: it needs a new one."""

    event: Disruption
    event_id: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """A part of a body that could not be taken."""

    where: str
    why: str


@dataclass(slots=True)
class Reading:
    """What a body says. `whole`: it names all that is the case now, by `named`."""

    reported: list[Reported] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    whole: bool = False
    ignored: int = 0

    def add(self, where: str, source: Source, *, version: object = None, **values: Any) -> None:
        """Take one disruption; `version` is what the sender says of its time or version."""
        disruption_id = as_id(str(values.pop("disruption_id")))
        self.named.append(disruption_id)
        labels = as_labels(values.pop("labels", {}), source)
        network = labels.pop("network", source.network)
        # A whole data set is of one network: what is gone from it must be looked for there.
        known = {"network": source.network if self.whole else network} | values
        known |= {"disruption_id": disruption_id, "labels": labels}
        if "scopes" in known:
            scopes = [as_labels(scope, source, defaults={}) for scope in known["scopes"]]
            known["scopes"] = [s for n, s in enumerate(scopes) if s not in scopes[:n]]
        for name, chars in (("title", TITLE_CHARS), ("detail", DETAIL_CHARS)):
            if name in known:
                known[name] = cut(known[name], chars)
        if not re.match("https?://", str(known.get("link") or "")):
            known.pop("link", None)
        elif len(known["link"]) > LINK_CHARS:
            known.pop("link")
        try:
            event = Disruption.model_validate(known)
        except ValidationError as error:
            self.refused += [
                Refused("/".join([where, *map(str, inner)]), why)
                for inner, why in mistakes_of(error)
            ]
            return
        # What a whole data set names, stands now, also if it stood before and was gone meanwhile.
        is_news = version is None or self.whole
        said = "" if is_news else digest(event.model_dump_json(), version)
        self.reported.append(Reported(event, said))

    def refuse(self, where: str, why: str, *, named: object = None) -> None:
        """Refuse a part. Where not even its id is known, nobody knows what else is over."""
        self.refused.append(Refused(where, why))
        if named:
            self.named.append(as_id(str(named)))
        else:
            self.whole = False


Reader = Callable[[bytes, Source, datetime], Reading]
"""Reads a body, by a source's settings, at a time. Raises CannotRead."""


def as_id(text: str) -> str:
    """Return an id that a record may have; one that it may not is told by its digest."""
    text = text.strip()
    if len(text) <= ID_CHARS and _ID.match(text):
        return text
    kept = re.sub(r"[^\x21-\x7e]+", "-", text)[: ID_CHARS - 20].strip("-")
    return f"{kept}~{digest(text)[:16]}" if kept else digest(text)


def as_labels(
    found: Mapping[str, object], source: Source, *, defaults: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return labels as they may be: renamed, cut, without those that say nothing; by name."""
    labels = dict(source.labels if defaults is None else defaults)
    for name, value in sorted(found.items()):
        plain = str(canonical(str(value if value is not None else ""))).strip()
        if text := plain if len(plain) <= VALUE_CHARS else plain[: VALUE_CHARS - 3] + "...":
            labels[as_name(source.rename.get(name, name))] = text
    network = {"network": labels["network"]} if "network" in labels else {}
    return network | dict(list(labels.items())[: LABEL_COUNT - len(network)])


def as_name(text: str) -> str:
    """Return a label's name: letters, digits and underscores, beginning with none of the digits."""
    name = _NOT_IN_NAMES.sub("_", text).strip("_").lower() or "label"
    return (f"_{name}" if name[0].isdigit() else name)[:NAME_CHARS]


def cut(text: object, chars: int) -> str:
    """Return a text of so many characters at most, with its end marked where it was cut."""
    plain = str(text or "").strip()
    return plain if len(plain) <= chars else plain[: chars - 1] + "…"


def severity_of(
    word: object, source: Source, table: Mapping[str, Severity], *, otherwise: Severity = "major"
) -> Severity:
    """Return our word for a source's: its own settings first, then the format's table."""
    text = str(word or "").strip().lower()
    own = {name.lower(): found for name, found in source.severities.items()}
    return own.get(text) or table.get(text, otherwise)


def as_language(text: str, otherwise: str) -> str:
    """Return a language tag (BCP 47) as a record has it: `en-GB`, its first part in small letters.

    What is no tag is `otherwise`: the words are there, and no disruption is refused for their language.
    """
    first, *rest = text.strip().replace("_", "-").split("-")
    found = "-".join([first.lower(), *rest])
    return found if re.fullmatch(LANGUAGE, found) else otherwise


def in_language(texts: Mapping[str, str], language: str) -> str:
    """Return the text of a language, of a variety of it, or else the first there is."""
    alike = (
        text
        for tag, text in texts.items()
        if tag.split("-")[0] == language.split("-", maxsplit=1)[0]
    )
    return texts.get(language) or next(alike, "") or next(iter(texts.values()), "")


def as_instant(text: object, source: Source, *, where: str) -> datetime:
    """Read a time (RFC 3339, ISO 8601). Raises CannotRead without a zone, unless one is stated."""
    try:
        at = datetime.fromisoformat(str(text).strip())
    except ValueError as error:
        raise CannotRead(
            where, f"{str(text)[:40]!r} is no time such as 2026-10-17T18:02:00Z"
        ) from error
    if at.tzinfo is None and source.time_zone is None:
        raise CannotRead(where, "a time without a zone: state the source's `time_zone`")
    known = at if at.tzinfo else at.replace(tzinfo=ZoneInfo(source.time_zone or "UTC"))
    return clamped(known).astimezone(UTC)


def as_json(body: bytes) -> Any:
    """Read JSON. Raises CannotRead."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CannotRead("", f"not JSON: {error}") from error


def as_xml(body: bytes) -> Any:
    """Read XML without a document type: no entities, nothing from outside. Raises CannotRead."""
    try:
        return fromstring(body, forbid_dtd=True)
    except DefusedXmlException as error:
        raise CannotRead("", f"a document type or an entity is not taken: {error}") from error
    except Exception as error:  # expat's ParseError, and ValueError for an encoding it cannot read.
        raise CannotRead("", f"not XML: {error}") from error


def must_be(kind: type[Any], found: object, where: str) -> Any:
    """Return what is of a kind. Raises CannotRead."""
    if not isinstance(found, kind):
        words = {"dict": "an object", "list": "an array", "str": "a text"}
        raise CannotRead(where, f"{words[kind.__name__]} was expected")
    return found


def digest(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:32]
