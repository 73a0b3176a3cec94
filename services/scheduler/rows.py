"""Rows of files as offers, and offers as rows: CSV (RFC 4180) and NDJSON. Pure.

A CSV has one line of names: those of an offer's fields, `label.NAME` for its labels, `picture.url`,
`picture.type`, `picture.alt` for a picture, `thread.1`, `thread.2` for the parts below its text. An empty
cell is as no cell.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import ValidationError

from services.scheduler.bodies import PostBody

Format = Literal["csv", "ndjson"]
PLAIN: Final = (
    "account", "text", "due_at", "latest_at", "language", "external_id", "slot", "recurring",
)  # fmt: skip
LABEL, PICTURE, THREAD = "label.", "picture.", "thread."
SHOWN: Final = ("post_id", "state", "reason", "publication", "url")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file: an offer, or what is wrong with it, by field."""

    number: int
    body: PostBody | None
    problems: tuple[tuple[str, str], ...] = ()


def read(content: str, form: Format, *, first: int) -> Iterator[Row]:
    """Yield the rows of a file; a row that cannot be read is one with problems."""
    made = _csv(content) if form == "csv" else _ndjson(content)
    for number, given in enumerate(made, first):
        if isinstance(given, PostBody):
            yield Row(number, given)
        elif isinstance(given, str):
            yield Row(number, None, (("", given),))
        else:
            try:
                yield Row(number, PostBody.model_validate(given))
            except ValidationError as error:
                yield Row(number, None, tuple(_told(one) for one in error.errors()))


def _told(error: Any) -> tuple[str, str]:
    where = "/".join(str(part) for part in error["loc"])
    return where, str(error["msg"]).removeprefix("Value error, ")


def _ndjson(content: str) -> Iterator[PostBody | dict[str, Any] | str]:
    for line in content.splitlines():
        if not line.strip():
            continue
        try:
            yield PostBody.model_validate_json(line)  # Twice as fast; what is wrong is said below.
            continue
        except ValidationError:
            pass
        try:
            given = json.loads(line)
        except ValueError as error:
            yield f"no JSON: {error}"
            continue
        yield given if isinstance(given, dict) else "an object was expected"


def _csv(content: str) -> Iterator[dict[str, Any] | str]:
    reader = csv.DictReader(io.StringIO(content), strict=True)
    try:
        if why := strange_columns(reader.fieldnames or ()):
            yield why
            return
        for row in reader:
            yield "more cells than names" if None in row else of_cells(row)
    except csv.Error as error:
        yield f"no CSV: {error}"


def strange_columns(names: Iterable[str]) -> str:
    """Say which names of columns mean nothing; empty: all are known."""
    strange = sorted(
        name
        for name in names
        if name not in PLAIN and not name.startswith((LABEL, PICTURE, THREAD))
    )
    known = f"{', '.join(PLAIN)}, {LABEL}NAME, {PICTURE}url, {PICTURE}type, {PICTURE}alt, {THREAD}1"
    return f"no such column: {', '.join(strange)}; there are: {known}" if strange else ""


def of_cells(row: Mapping[str, str | None]) -> dict[str, Any]:
    """Return a row's cells as an offer's fields."""
    cells = {name: cell for name, cell in row.items() if cell not in (None, "")}
    made: dict[str, Any] = {name: cells[name] for name in PLAIN if name in cells}
    labels = {n.removeprefix(LABEL): cell for n, cell in cells.items() if n.startswith(LABEL)}
    picture = {n.removeprefix(PICTURE): cell for n, cell in cells.items() if n.startswith(PICTURE)}
    if labels:
        made["labels"] = labels
    if picture:
        made["media"] = [picture]
    if thread := sorted((name for name in cells if name.startswith(THREAD)), key=_place):
        made["thread"] = [cells[name] for name in thread]
    return made


def _place(name: str) -> tuple[int, str]:
    return len(name), name  # `thread.10` behind `thread.9`.


def write(posts: Iterable[Mapping[str, Any]], form: Format, *, head: bool) -> str:
    """Return offers as lines of a file; as CSV the labels are one cell of JSON each is read back from."""
    if form == "ndjson":
        return "".join(json.dumps(dict(post), default=_as_text) + "\n" for post in posts)
    out = io.StringIO()
    names = (*SHOWN, *PLAIN[:6], "labels")
    writer = csv.DictWriter(out, names, extrasaction="ignore", lineterminator="\r\n")
    if head:
        writer.writeheader()
    for post in posts:
        cells = {name: _as_text(post[name]) for name in names if post[name] is not None}
        writer.writerow(cells | {"labels": json.dumps(post["labels"])})
    return out.getvalue()


def _as_text(value: Any) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
