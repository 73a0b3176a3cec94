"""`interlock labels …`: the file of labels, checked, and filled from a GTFS feed."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from services.commands.ending import fail

labels = typer.Typer(no_args_is_help=True, help="The labels there are, and their values.")

# GTFS Schedule: routes.txt and stops.txt. A stop that belongs to a station is left to the station.
TABLES: Final = {
    "line": ("routes.txt", "route_id", ("route_short_name", "route_long_name")),
    "stop": ("stops.txt", "stop_id", ("stop_name",)),
}
SHOWN: Final = 10
LabelsFile = Annotated[Path, typer.Argument(envvar="INTERLOCK_LABELS", help="the file of labels")]


@labels.command("check")
def check(file: LabelsFile) -> None:
    """Read a file of labels, and say what it knows."""
    for name, known in _read(file).labels.items():
        count = f"{len(known.values):,} values" if known.values else "any value"
        print(f"{name}: {count}{', expected' if known.expected else ''}: {known.means}")


@labels.command("import")
def bring(
    feed: Annotated[Path, typer.Argument(help="a GTFS feed: the zip file or its folder")],
    into: Annotated[Path, typer.Option("--into", help="the file of labels")],
    dry_run: Annotated[bool, typer.Option(help="only say what would change")] = False,
) -> None:
    """Take the values of `line` and `stop` from a GTFS feed; what else the file says stays."""
    import yaml

    from schemas.vocabulary import Vocabulary

    before = _read(into) if into.exists() else Vocabulary()
    plain = before.model_dump(mode="json", exclude_defaults=True)
    known = plain.setdefault("labels", {})
    for name, (table, key, told) in TABLES.items():
        values = dict(_values(feed, table, key, told))
        old = before.labels[name].values if name in before.labels else {}
        _say(name, set(values) - set(old), set(old) - set(values), len(values))
        known.setdefault(name, {})["values"] = values
    Vocabulary.model_validate(plain)
    if dry_run:
        return
    part = into.with_suffix(".part")  # Whoever reads it meanwhile reads all of it.
    part.write_text(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100))
    part.replace(into)
    print(f"wrote {into}")


def _say(name: str, new: set[str], gone: set[str], count: int) -> None:
    print(f"{name}: {count:,} values, {len(new):,} new, {len(gone):,} gone")
    for mark, some in (("+", new), ("-", gone)):
        for value in sorted(some)[:SHOWN]:
            print(f"  {mark} {value}")
        if len(some) > SHOWN:
            print(f"  {mark} and {len(some) - SHOWN:,} more")


def _read(file: Path) -> Any:
    from schemas.vocabulary import Vocabulary
    from services.kit.settings import read_file

    try:
        return read_file(file, Vocabulary)
    except (OSError, ValueError) as error:
        fail(str(error))


def _values(feed: Path, table: str, key: str, told: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    try:
        content = _open(feed, table)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        fail(f"{feed}: {table} could not be read: {error}")
    for number, row in enumerate(csv.DictReader(io.StringIO(content, newline="")), 2):
        value = (row.get(key) or "").strip()
        if not value:
            fail(f"{feed}: {table}, line {number}: {key} is missing")
        if not row.get("parent_station"):
            yield value, " ".join(filter(None, ((row.get(one) or "").strip() for one in told)))


def _open(feed: Path, table: str) -> str:
    if feed.is_dir():
        return (feed / table).read_text(encoding="utf-8-sig")
    with zipfile.ZipFile(feed) as archive:
        return archive.read(table).decode("utf-8-sig")
