"""CloudEvents 1.0 around our records: Kafka's binary mode out, binary and structured mode in.

What cannot be read is a value, `Unreadable`, and not an exception: the bytes may be the disruption
that matters, so that somebody has to decide what they mean. Binary mode is read here by hand, since
it is six headers on the way of every fence; structured mode goes through the official SDK.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from random import getrandbits

from cloudevents.core.bindings.kafka import KafkaMessage, from_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from pydantic import ValidationError

from schemas.base import Record
from schemas.topics import TOPICS

ERROR_CHARS = 500
ID_CHARS = 300
TYPES: dict[str, type[Record]] = {r.TYPE: r for topic in TOPICS for r in topic.records}
JSON_TYPE = "application/json"
STRUCTURED_TYPE = "application/cloudevents+json"
# The only way to write it in JSON. PostgreSQL keeps none.
_NUL = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
Headers = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A record with its CloudEvents attributes. `(source, event_id)` names one fact for ever."""

    record: Record
    event_id: str
    source: str
    traceparent: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """Bytes that are none of our records, and why; `error` names the field where there is one."""

    error: str
    event_id: str = ""
    source: str = ""
    traceparent: str = ""


def write_headers(
    record: Record, *, event_id: str, source: str, traceparent: str = "", at: datetime | None = None
) -> Headers:
    """Return the headers of CloudEvents' Kafka binary mode (Kafka binding 1.0.2, section 3.2)."""
    return {
        "ce_specversion": "1.0",
        "ce_type": record.TYPE,
        "ce_source": source,
        "ce_id": event_id,
        "ce_time": (at or datetime.now(UTC)).isoformat(),
        "content-type": JSON_TYPE,
        "traceparent": traceparent or new_traceparent(),
    }


def write_value(record: Record) -> bytes:
    """Return a record's JSON; optional fields that say nothing are left out."""
    return record.model_dump_json(exclude_none=True).encode()


def read(
    headers: Iterable[tuple[str, bytes]], value: bytes | None, *, allowed: Sequence[type[Record]]
) -> Envelope | Unreadable:
    """Read one Kafka record as one of the allowed types."""
    try:
        found = {name.lower(): text.decode() for name, text in headers}
    except UnicodeDecodeError as error:
        return Unreadable(error=f"a header is not UTF-8: {error}")
    if value is None:
        return Unreadable(error="the record has no value")
    if b"\\u0000" in value:
        value = _NUL.sub(rb"\1\\ufffd", value)  # In whatever field: a record is not refused for it.
    if found.get("content-type", "").startswith(STRUCTURED_TYPE):
        try:
            message = KafkaMessage(
                headers={"content-type": STRUCTURED_TYPE.encode()}, key=None, value=value
            )
            event = from_structured(message, JSONFormat(), CloudEvent)
        except Exception as error:  # The SDK raises its own, json's and plain TypeErrors.
            return Unreadable(error=f"not a CloudEvent in structured mode: {error}"[:ERROR_CHARS])
        return from_cloud_event(event, allowed=allowed)
    return _from_binary(found, value, allowed=allowed)


def from_cloud_event(event: object, *, allowed: Sequence[type[Record]]) -> Envelope | Unreadable:
    """Read an event of the official SDK as one of the allowed types."""
    assert isinstance(event, CloudEvent)
    event_id, source = event.get_id(), event.get_source()
    data = event.get_data()
    headers = {
        "ce_type": event.get_type(),
        "ce_source": source,
        "ce_id": event_id,
        "traceparent": str(event.get_extension("traceparent") or ""),
    }
    if isinstance(data, dict):
        return _read_record(headers, data, allowed=allowed)
    if isinstance(data, str | bytes):
        return _read_record(headers, data, allowed=allowed)
    return Unreadable(error="data: a JSON object was expected", event_id=event_id, source=source)


def _from_binary(
    headers: Headers, value: bytes, *, allowed: Sequence[type[Record]]
) -> Envelope | Unreadable:
    if headers.get("ce_specversion") != "1.0":
        return Unreadable(
            error='ce_specversion: "1.0" was expected: the record is not a CloudEvent 1.0',
            event_id=headers.get("ce_id", ""),
            source=headers.get("ce_source", ""),
        )
    return _read_record(headers, value, allowed=allowed)


def _read_record(
    headers: Headers, data: dict[str, object] | str | bytes, *, allowed: Sequence[type[Record]]
) -> Envelope | Unreadable:
    event_id, source = headers.get("ce_id", ""), headers.get("ce_source", "")

    def unreadable(error: str) -> Unreadable:
        return Unreadable(error=error[:ERROR_CHARS], event_id=event_id, source=source)

    if not event_id or not source:
        return unreadable("id and source: a CloudEvent has both, and neither is empty")
    if len(event_id) > ID_CHARS or len(source) > ID_CHARS:
        return unreadable(f"id and source: at most {ID_CHARS} characters")
    model = TYPES.get(headers.get("ce_type", ""))
    if model is None or model not in allowed:
        expected = ", ".join(t.TYPE for t in allowed)
        return unreadable(f"type: {headers.get('ce_type', '')!r} is none of {expected}")
    try:
        if isinstance(data, dict):
            record = model.model_validate(data)
        else:
            record = model.model_validate_json(data)
    except ValidationError as error:
        return unreadable(in_words(error))
    return Envelope(
        record=record,
        event_id=event_id,
        source=source,
        traceparent=headers.get("traceparent", ""),
    )


def in_words(error: ValidationError) -> str:
    """Say everything that is wrong at once, each with its field."""
    return "; ".join(
        f"{'.'.join(str(part) for part in where) or 'body'}: {why}"
        for where, why in mistakes_of(error)
    )


def mistakes_of(error: ValidationError) -> list[tuple[tuple[str | int, ...], str]]:
    """Return what is wrong, each with where it stands.

    A list whose every item is wrong is not called too short as well, as pydantic does.
    """
    found = error.errors()
    inside = {e["loc"][:n] for e in found for n in range(len(e["loc"]))}
    return [
        (e["loc"], e["msg"]) for e in found if e["type"] != "too_short" or e["loc"] not in inside
    ]


def new_traceparent() -> str:
    """Begin a trace (W3C Trace Context, section 3.2). Its ids are random, and no secrets."""
    return f"00-{getrandbits(128):032x}-{getrandbits(64):016x}-01"
