"""The doors, their samples, and what is done to them: `python -m tests.doors` writes docs/doors.md.

Each sample is broken in every way that a sender could break it: a key or an element gone, a value of
another kind in its place, the end cut off. A door takes what is left or says where it cannot.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import tostring

import yaml
from defusedxml.ElementTree import fromstring
from google.protobuf.json_format import Parse
from google.transit import gtfs_realtime_pb2 as gtfs

from schemas.disruptions import Disruption
from services.detector.doors import FORMATS
from services.detector.ingest import cloudevents
from services.detector.ingest.reading import CannotRead, Reading, Reported
from services.detector.sources import Source

SAMPLES = Path(__file__).parent / "samples"
PAGE = Path(__file__).parents[1] / "docs" / "doors.md"
NOW = datetime(2026, 10, 17, 18, 3, tzinfo=UTC)
WRONG: tuple[Any, ...] = (None, "", "x" * 20_000, -1, 1e400, [], {}, [[1]], {"a": {}}, True)
CUTS = 25


def source_for(kind: str, **values: Any) -> Source:
    """Return a source of a format; `mapping` has the settings that stand beside its sample."""
    known: dict[str, Any] = {"format": kind, "network": "northlink"}
    if kind == "mapping":
        known = yaml.safe_load((SAMPLES / "mapping" / "buses.yaml").read_text())
    return Source.model_validate(known | values)


def samples(kind: str) -> dict[str, bytes]:
    """Return a format's samples; GTFS-Realtime's as protobuf too."""
    found = {}
    for path in sorted((SAMPLES / kind).iterdir()):
        if path.suffix in (".json", ".xml"):
            found[path.name] = path.read_bytes()
        if kind == "gtfs-realtime":
            message = Parse(path.read_text(), gtfs.FeedMessage())
            found[f"{path.stem}.pb"] = message.SerializeToString()
    return found


def read(kind: str, body: bytes, **values: Any) -> Reading:
    if kind == "cloudevents":
        found, refused = cloudevents.read_file(body)
        if refused:
            raise CannotRead(refused[0].where, refused[0].why)
        events = [(one.record, one.event_id) for one in found]
        return Reading([Reported(e, said) for e, said in events if isinstance(e, Disruption)])
    return FORMATS[kind](body, source_for(kind, **values), NOW)


def broken(name: str, body: bytes) -> Iterator[bytes]:
    """Yield a sample, broken in every way."""
    for number in range(CUTS):
        yield body[: len(body) * number // CUTS]
    yield b"\xff\xfe" + body
    if name.endswith(".json"):
        found = json.loads(body)
        for path in list(_paths(found)):
            yield json.dumps(_without(found, path)).encode()
            for wrong in WRONG:
                yield json.dumps(_with(found, path, wrong)).encode()
    elif name.endswith(".xml"):
        yield from _broken_xml(body)
    else:
        for number in range(0, len(body), max(1, len(body) // 200)):
            yield body[:number] + bytes([body[number] ^ 0x55]) + body[number + 1 :]


def _paths(found: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    items: Any = ()
    if isinstance(found, dict):
        items = found.items()
    elif isinstance(found, list):
        items = enumerate(found)
    for key, value in items:
        yield from _paths(value, (*path, key))


def _without(found: Any, path: tuple[Any, ...]) -> Any:
    changed = copy.deepcopy(found)
    del _parent(changed, path)[path[-1]]
    return changed


def _with(found: Any, path: tuple[Any, ...], value: Any) -> Any:
    changed = copy.deepcopy(found)
    _parent(changed, path)[path[-1]] = value
    return changed


def _parent(found: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        found = found[key]
    return found


def _broken_xml(body: bytes) -> Iterator[bytes]:
    count = sum(1 for _ in fromstring(body).iter())
    for number in range(1, count):
        for change in (_removed, _emptied, _filled):
            root = fromstring(body)
            change(root, number)
            yield tostring(root)
    yield b'<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;&a;">]>' + tostring(fromstring(body))
    yield b'<!DOCTYPE x SYSTEM "file:///etc/passwd">' + tostring(fromstring(body))


def _removed(root: Any, number: int) -> None:
    element = list(root.iter())[number]
    next(parent for parent in root.iter() if element in list(parent)).remove(element)


def _emptied(root: Any, number: int) -> None:
    list(root.iter())[number].clear()


def _filled(root: Any, number: int) -> None:
    element = list(root.iter())[number]
    element.clear()
    element.text = "?" * 20_000


@dataclass(slots=True)
class Tried:
    """What became of a format's samples and of their broken copies."""

    samples: int = 0
    disruptions: int = 0
    broken: int = 0
    refused: int = 0
    taken_in_part: int = 0


def try_all(kind: str, note: Callable[[str, bytes], None] = lambda _, __: None) -> Tried:
    """Try a format; anything but CannotRead is raised. `note` sees each input before it is read."""
    tried = Tried()
    for name, body in samples(kind).items():
        tried.samples += 1
        tried.disruptions += len(read(kind, body).reported)
        for one in broken(name, body):
            note(name, one)
            tried.broken += 1
            try:
                tried.taken_in_part += bool(read(kind, one).refused)
            except CannotRead:
                tried.refused += 1
    return tried


DOORS = {
    "cloudevents": "`POST /v1/events` (binary, structured, batched), `ops.disruptions` (binary, structured)",
    "alertmanager": "`POST /v1/events/SOURCE` (webhook v4), `POST /sources/SOURCE/api/v2/alerts` (Prometheus)",
    "gtfs-realtime": "`POST /v1/events/SOURCE`, polled",
    "cap": "`POST /v1/events/SOURCE`, polled (Atom and RSS indexes)",
    "siri-sx": "`POST /v1/events/SOURCE` (deliveries, subscriptions), polled (request and response)",
    "pagerduty": "`POST /v2/enqueue` (Events v2), `POST /v1/events/SOURCE` (webhooks v3)",
    "statuspage": "`POST /v1/events/SOURCE` (webhook), polled (`summary.json`)",
    "mapping": "`POST /v1/events/SOURCE`, polled",
}


def page() -> str:
    """Return the page that tells of the doors."""
    rows = []
    for kind, how in DOORS.items():
        t = try_all(kind)
        rows.append(
            f"| {kind} | {how} | {t.samples} → {t.disruptions} | {t.broken} | {t.refused} | {t.taken_in_part} |"
        )
    return (SAMPLES / "doors.md").read_text().replace("TABLE\n", "\n".join(rows) + "\n")


if __name__ == "__main__":
    PAGE.write_text(page())
