"""`interlock audit …`: what the ledger and the log of holds prove of the promise, from outside."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer

from services.commands.ending import fail
from services.commands.reaching import LOCAL, Servers, cluster_at, period

if TYPE_CHECKING:
    from services.kit.cluster import Cluster
    from services.publisher.proof import Rule, Span, Verdict

audit = typer.Typer(no_args_is_help=True, help="Prove the promise from what was written down.")

READ_MS: Final = 2_000
SHOWN: Final = 20


@audit.command("verify")
def verify(
    since: Annotated[str, typer.Option(help="how far back: 30m, 24h, 7d")] = "24h",
    kafka: Servers = LOCAL,
    database: Annotated[
        str, typer.Option("--database", envvar="INTERLOCK_DATABASE", help="the publisher's")
    ] = "",
    lease_ms: Annotated[int, typer.Option(help="how long a fence was relied on")] = 250,
    skew_ms: Annotated[int, typer.Option(help="how far the brokers' clocks differ")] = 0,
) -> None:
    """Check each offer that went out against its fence and against every hold there ever was.

    Reads PostgreSQL and ops.holds, asks no service. Exits 1 when a send is not as it was promised.
    """
    from services.publisher.proof import BROKEN, Rule

    if not database:
        fail("--database or INTERLOCK_DATABASE: an address such as postgresql://user@host/name")
    rule = Rule(lease=timedelta(milliseconds=lease_ms), skew=timedelta(milliseconds=skew_ms))
    begin = datetime.now(UTC) - period(since)
    spans = read_holds(cluster_at(kafka))
    counts, wrong = asyncio.run(check(database, begin, datetime.now(UTC), spans, rule))
    show(counts, wrong, begin=begin, holds=len(spans))
    if any(counts[verdict] for verdict in BROKEN):
        fail("the promise did not hold, or the ledger cannot prove that it did: see above")


def read_holds(cluster: Cluster) -> list[Span]:
    """Return every hold of the log, opened and released."""
    from kafka import KafkaConsumer, TopicPartition

    from schemas.holds import HoldOpened, HoldReleased
    from schemas.topics import HOLDS

    consumer = KafkaConsumer(**cluster.options(), auto_offset_reset="earliest")
    where = TopicPartition(HOLDS.name, 0)
    consumer.assign([where])
    end = consumer.end_offsets([where])[where]
    opened: dict[str, HoldOpened] = {}
    released: dict[str, datetime] = {}
    while consumer.position(where) < end:
        for records in consumer.poll(timeout_ms=READ_MS).values():
            for record in records:
                fact = _fact(record.key or b"", record.headers, record.value)
                if isinstance(fact, HoldOpened):
                    opened.setdefault(fact.hold_id, fact)
                elif isinstance(fact, HoldReleased):
                    released.setdefault(fact.hold_id, fact.released_at)
    consumer.close()
    return [_span(hold, released.get(hold_id)) for hold_id, hold in opened.items()]


def _fact(key: bytes, headers: list[tuple[str, bytes]], value: bytes | None) -> object:
    from schemas import envelope
    from schemas.holds import HoldOpened, HoldReleased
    from schemas.topics import FENCE_KEY

    if key.startswith(FENCE_KEY.encode()):
        return None
    found = envelope.read(headers, value, allowed=(HoldOpened, HoldReleased))
    if isinstance(found, envelope.Unreadable):
        fail(f"ops.holds, {key.decode(errors='replace')}: {found.error}")
    return found.record


def _span(hold: object, released_at: datetime | None) -> Span:
    from schemas.holds import HoldOpened
    from services.publisher.proof import Span

    assert isinstance(hold, HoldOpened)
    return Span(
        hold_id=hold.hold_id,
        matchers=hold.matchers,
        opened_at=hold.opened_at,
        released_at=released_at,
        take_back_s=hold.take_back_s,
    )


async def check(
    database: str, begin: datetime, now: datetime, spans: list[Span], rule: Rule
) -> tuple[Counter[Verdict], list[tuple[str, str, Verdict, str]]]:
    """Count the verdicts on what was sent, and name the first that are broken."""
    from services.kit.database import new_engine
    from services.publisher.audit import labels_of, read_sends
    from services.publisher.proof import BROKEN, covering, prove
    from services.publisher.store import SCHEMA

    engine = new_engine(database, schema=SCHEMA)
    counts: Counter[Verdict] = Counter()
    wrong: list[tuple[str, str, Verdict, str]] = []
    of_labels: dict[str, list[Span]] = {}
    try:
        async for send, labels in read_sends(engine, since=begin, until=now):
            if labels not in of_labels:
                of_labels[labels] = covering(labels_of(labels), spans)
            verdict, why = prove(send, of_labels[labels], rule, now=now)
            counts[verdict] += 1
            if verdict in BROKEN and len(wrong) < SHOWN:
                wrong.append((send.post_id, send.account, verdict, why))
    finally:
        await engine.dispose()
    return counts, wrong


def show(
    counts: Counter[Verdict],
    wrong: list[tuple[str, str, Verdict, str]],
    *,
    begin: datetime,
    holds: int,
) -> None:
    """Print the verdicts."""
    from rich.console import Console
    from rich.table import Table

    table = Table("what the ledger says of offers that went out", "count")
    meanings: dict[Verdict, str] = {
        "proven": "proven: a fence younger than the lease, and no hold before it",
        "unknown": "unknown: a publisher ended in the middle, or clocks are too near",
        "no fence": "BROKEN: no fence is named",
        "fence too old": "BROKEN: the fence was too old at the send",
        "covered by a hold": "BROKEN: a hold that covers it was open before its fence",
        "left": "BROKEN: a hold was to take it back, and nothing says that it did",
    }
    for verdict, meaning in meanings.items():
        table.add_row(meaning, f"{counts[verdict]:,}")
    console = Console()
    console.print(
        f"since {begin:%Y-%m-%d %H:%M} UTC, {holds:,} holds, {sum(counts.values()):,} sends"
    )
    console.print(table)
    for post_id, account, verdict, why in wrong:
        console.print(f"{post_id} on {account}: {verdict}: {why}")
