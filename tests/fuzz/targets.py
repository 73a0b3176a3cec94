"""What is fuzzed: whatever reads bytes that strangers write. Each refuses in its own way, and in no other."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from ops.policies import DEFAULT, WrongPolicy, read_policy
from schemas import envelope
from schemas.labels import covers, parse_matchers
from schemas.topics import DISRUPTIONS
from services.detector.ingest.reading import CannotRead
from services.scheduler import rows
from tests.doors import DOORS, SAMPLES, read, samples

SPLIT: Final = b"\0"
LABELS: Final = {"line": "coast", "region": "north"}


class Planted(Exception):
    """The mistake of the target that has one: a fuzzer that does not find it finds nothing."""


@dataclass(frozen=True, slots=True)
class Target:
    """`act` takes any bytes; whatever it raises is a finding. `seeds` are what it is begun with."""

    act: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


def _door(kind: str, body: bytes) -> None:
    try:
        read(kind, body)
    except CannotRead:
        return


def _record(body: bytes) -> None:
    """Read a record of Kafka: headers, each ended by a NUL, and its value."""
    *pairs, value = body.split(SPLIT)
    headers = [(one.partition(b"=")[0].decode("latin-1"), one.partition(b"=")[2]) for one in pairs]
    envelope.read(headers, value, allowed=DISRUPTIONS.records)


def _matchers(body: bytes) -> None:
    try:
        found = parse_matchers(body.decode())
    except ValueError:
        return
    covers(found, LABELS)
    assert parse_matchers("{" + ",".join(str(one) for one in found) + "}") == found


def _rows(form: rows.Format, body: bytes) -> None:
    try:
        content = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        return
    assert all(row.body or row.problems for row in rows.read(content, form, first=1))


def _policy(body: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "policy.yaml"
        path.write_bytes(body)
        try:
            read_policy(path)
        except WrongPolicy:
            return


def _planted(body: bytes) -> None:
    if body[:1] == b"f" and body[1:2] == b"u" and body[2:3] == b"z" and body[3:4] == b"z":
        raise Planted


def _records() -> tuple[bytes, ...]:
    found = []
    for path in sorted(SAMPLES.glob("interlock.*.json")):
        attributes = {
            "ce_specversion": "1.0", "ce_type": path.stem, "ce_id": "e-1", "ce_source": "/s",
            "content-type": "application/json",
        }  # fmt: skip
        headers = [f"{name}={value}".encode() for name, value in attributes.items()]
        found.append(SPLIT.join([*headers, path.read_bytes()]))
    return tuple(found)


_LINE = b'{"account": "social", "text": "Half price", "due_at": "2099-01-01T00:00:00Z"}'
_CSV = (
    b"account,text,due_at,label.line,thread.1\nsocial,Half price,2099-01-01T00:00:00Z,coast,more\n"
)
_MATCHERS = (b'{line="coast",region=~"north|east"}', b'line!="a",b!~"c.*"', b"{}")
_POLICIES = tuple(path.read_bytes() for path in sorted(DEFAULT.parent.glob("*.yaml")))
TARGETS: Final[dict[str, Target]] = {
    **{kind: Target(partial(_door, kind), tuple(samples(kind).values())) for kind in sorted(DOORS)},
    "kafka": Target(_record, _records()),
    "matchers": Target(_matchers, _MATCHERS),
    "csv": Target(partial(_rows, "csv"), (_CSV,)),
    "ndjson": Target(partial(_rows, "ndjson"), (_LINE,)),
    "policy": Target(_policy, _POLICIES),
    "planted": Target(_planted, (b"nothing",)),
}
