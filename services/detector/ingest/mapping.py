"""Anything that is JSON: a mapping in the source's settings says where a disruption's fields are."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import jmespath

from services.detector.ingest.reading import CannotRead, Reading, as_instant, as_json
from services.detector.sources import Mapping, Source, Taken

INSTANTS = ("occurred_at", "expected_end_at", "expires_at")


def read(body: bytes, source: Source, now: datetime) -> Reading:
    """Read a body as the source's mapping says."""
    mapping = source.mapping
    assert mapping is not None, "a source of this format has a mapping"
    found = jmespath.search(mapping.each, as_json(body))
    if found is None:
        raise CannotRead("", f"each: {mapping.each!r} finds nothing")
    reading = Reading(whole=mapping.whole)
    for number, item in enumerate(found if isinstance(found, list) else [found]):
        if mapping.only is not None and not _search(mapping.only, item):
            reading.ignored += 1
            continue
        where = f"/{number}"
        try:
            values = _values(mapping, item, source, where=where)
        except CannotRead as error:
            named = _value(mapping.fields["disruption_id"], item)
            reading.refuse(error.where or where, error.why, named=named)
            continue
        if not values.get("disruption_id"):
            reading.refuse(f"{where}/disruption_id", _nothing(mapping.fields["disruption_id"]))
            continue
        reading.add(where, source, version=values.get("occurred_at"), **values)
    return reading


def _values(mapping: Mapping, item: Any, source: Source, *, where: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, field in mapping.fields.items():
        value = _value(field, item)
        if value is None:
            continue
        if name in INSTANTS:
            value = as_instant(value, source, where=f"{where}/{name}")
        values[name] = value
    labels = {name: _value(field, item) for name, field in mapping.labels.items()}
    numbers = {name: _value(field, item) for name, field in mapping.values.items()}
    values["labels"] = {name: value for name, value in labels.items() if value is not None}
    values["values"] = {name: value for name, value in numbers.items() if value is not None}
    return values


def _value(field: Taken, item: Any) -> Any:
    value = _search(field.from_, item)
    if field.table:
        value = field.table.get(str(value), field.default)
    return field.default if value is None else value


def _search(expression: str, item: Any) -> Any:
    try:
        return jmespath.search(expression, item)
    except jmespath.exceptions.JMESPathError as error:  # A function on what is of another type.
        raise CannotRead("", f"{expression}: {error}") from error


def _nothing(field: Taken) -> str:
    return f"{field.from_!r} finds nothing"
