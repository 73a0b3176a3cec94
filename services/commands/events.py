"""`interlock events …`: send files of events into the log, and see what a source's format makes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from services.commands.ending import fail
from services.commands.reaching import LOCAL, Servers, cluster_at

events = typer.Typer(no_args_is_help=True, help="Send events from files, and look what they say.")

SEND_S = 30
Files = Annotated[list[Path], typer.Argument(help="files or folders; - is standard input")]
SourceName = Annotated[str, typer.Option("--source", help="a source of the file of sources")]
SourcesFile = Annotated[
    Path | None, typer.Option("--sources", envvar="INTERLOCK_SOURCES", help="the file of sources")
]
Format = Annotated[
    str, typer.Option("--format", help="a format, where no source is named; or cloudevents")
]
Network = Annotated[str, typer.Option(help="the network, where no source is named")]
Signing = Annotated[
    Path | None,
    typer.Option(
        "--signing-keys", envvar="INTERLOCK_SIGNING_KEYS", help="sign by the first key of this file"
    ),
]


@events.command("send")
def send(
    files: Files,
    source: SourceName = "",
    sources: SourcesFile = None,
    kind: Format = "",
    network: Network = "",
    kafka: Servers = LOCAL,
    signing_keys: Signing = None,
    dry_run: Annotated[bool, typer.Option(help="only say what would be sent")] = False,
) -> None:
    """Write what files say into the log; each event is acknowledged before the next file is read.

    Nothing of a file is sent when a part of it cannot be read. Exits 1 where that was so.
    """
    read, signing = _reader(source, sources, kind, network), _signing(signing_keys)
    wrong, producer = 0, None if dry_run else _producer(kafka)
    for name, body in _bodies(files):
        found, refused = read(body)
        for one in refused:
            print(f"{name}: {one}")
        wrong += len(refused)
        if refused:
            continue
        for record, event_id, address in found:
            where = "would be sent"
            if producer is not None:
                where = _send(producer, signing, record, event_id, address)
            print(f"{name}: {_in_words(record)}: {where}")
    if producer is not None:
        producer.close()
    if wrong:
        fail(f"{wrong} mistake{'s' if wrong > 1 else ''}: nothing of these files was sent")


@events.command("map")
def show_mapping(
    file: Annotated[Path, typer.Option("--file", help="a sample; - is standard input")],
    source: SourceName = "",
    sources: SourcesFile = None,
    kind: Format = "",
    network: Network = "",
) -> None:
    """Print the disruptions that a sample becomes, and why a part of it does not."""
    import yaml

    read = _reader(source, sources, kind, network)
    for name, body in _bodies([file]):
        found, refused = read(body)
        for record, _, _ in found:
            plain = record.model_dump(mode="json", exclude_defaults=True)
            print(yaml.safe_dump([plain], sort_keys=False, allow_unicode=True, width=100), end="")
        if refused:
            fail("\n".join(f"{name}: {one}" for one in refused))


def _reader(name: str, file: Path | None, kind: str, network: str) -> Any:
    """Return what reads a body: records with event id and source, and what was refused."""
    if kind == "cloudevents":
        return _read_cloud_events
    from pydantic import ValidationError

    from schemas.envelope import in_words
    from services.detector.doors import FORMATS, records_of
    from services.detector.ingest.reading import CannotRead
    from services.detector.sources import Source, Sources
    from services.kit.settings import read_file

    try:
        if name:
            known = read_file(file, Sources).sources
            if name not in known:
                fail(
                    f"--source {name}: {file or 'no file of sources'} has {', '.join(known) or 'none'}"
                )
            source = known[name]
        else:
            source = Source.model_validate({"format": kind, "network": network})
    except ValidationError as error:
        fail(f"--source NAME, or --format and --network: {in_words(error)}")
    except (ValueError, OSError) as error:
        fail(str(error))

    def read(body: bytes) -> tuple[list[Any], list[str]]:
        try:
            reading = FORMATS[source.format](body, source, datetime.now(UTC))
        except CannotRead as error:
            return [], [str(error)]
        refused = [f"{one.where}: {one.why}" for one in reading.refused]
        return records_of(reading, name or source.format, source), refused

    return read


def _read_cloud_events(body: bytes) -> tuple[list[Any], list[str]]:
    from services.detector.ingest.cloudevents import read_file

    found, refused = read_file(body)
    taken = [(one.record, one.event_id, one.source) for one in found]
    return taken, [f"{one.where}: {one.why}" for one in refused]


def _bodies(files: list[Path]) -> Iterator[tuple[str, bytes]]:
    for file in files:
        try:
            if str(file) == "-":
                yield "standard input", sys.stdin.buffer.read()
            elif file.is_dir():
                for inner in sorted(file.iterdir()):
                    if inner.is_file():
                        yield str(inner), inner.read_bytes()
            else:
                yield str(file), file.read_bytes()
        except OSError as error:
            fail(f"{file}: {error.strerror}")


def _producer(servers: str) -> Any:
    from kafka import KafkaProducer
    from kafka.errors import KafkaError

    try:
        return KafkaProducer(**cluster_at(servers).options(), acks="all")
    except KafkaError as error:
        fail(f"--kafka {servers}: {error}")


def _signing(file: Path | None) -> Any:
    from schemas.signing import SigningKeys
    from services.kit.settings import read_file

    try:
        return read_file(file, SigningKeys)
    except (ValueError, OSError) as error:
        fail(f"--signing-keys: {error}")


def _send(producer: Any, signing: Any, record: Any, event_id: str, address: str) -> str:
    from kafka.errors import KafkaError

    from schemas import envelope
    from schemas.topics import DISRUPTIONS, key_of

    now = datetime.now(UTC)
    headers = envelope.write_headers(record, event_id=event_id, source=address, at=now)
    value = envelope.write_value(record)
    headers |= signing.headers_of(record, value, event_id=event_id, source=address, at=now)
    key = key_of(record)
    assert key is not None, "what a source reports is keyed by its network"
    try:
        done = producer.send(
            DISRUPTIONS.name,
            value=value,
            key=key.encode(),
            headers=[(name, text.encode()) for name, text in headers.items()],
        ).get(timeout=SEND_S)
    except KafkaError as error:
        fail(f"not acknowledged: {error}. Send the file again: the same events are the same facts")
    return f"acknowledged at {done.partition}/{done.offset}"


def _in_words(record: Any) -> str:
    if hasattr(record, "disruption_ids"):
        return f"all of {record.source}: {len(record.disruption_ids)} stand"
    return f"{record.disruption_id} {record.status} {record.severity} {record.title!r}"
