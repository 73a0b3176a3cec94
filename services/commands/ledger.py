"""`interlock ledger …`: what a database that was restored has forgotten, from what Kafka keeps for a week."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from services.commands.ending import fail
from services.commands.reaching import LOCAL, Servers, cluster_at, period

if TYPE_CHECKING:
    from schemas.base import Record
    from schemas.posts import Outcome, Post
    from schemas.topics import Topic
    from services.kit.cluster import Cluster
    from services.publisher.ledger import State
    from services.publisher.store import Store

ledger = typer.Typer(no_args_is_help=True, help="Mend a ledger that has forgotten sends.")

READ_MS: Final = 2_000
CHUNK: Final = 1_000
DUE_BEFORE: Final = timedelta(days=1)  # So long, at most, an offer is in hand.
# How much is known by a row, and by an outcome.
KNOWS: Final = {"uncertain": 1, "sent": 2, "retracting": 3, "retracted": 4, "retraction_failed": 4}
TELLS: Final = {"uncertain": 1, "published": 2, "retracted": 4, "retraction_failed": 4}


@dataclass
class Forgotten:
    """Outcomes that the ledger does not know of, by post, in their order."""

    told: int = 0
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    posts: dict[str, Post] = field(default_factory=dict)


@ledger.command("recover")
def recover(
    since: Annotated[str, typer.Option(help="how far back: 30m, 24h, 7d")] = "24h",
    write: Annotated[bool, typer.Option("--write", help="write it; else only say it")] = False,
    kafka: Servers = LOCAL,
    database: Annotated[
        str, typer.Option("--database", envvar="INTERLOCK_DATABASE", help="the publisher's")
    ] = "",
) -> None:
    """Find sends in posts.outcomes that the ledger does not know of, and write them down.

    For a database that was restored from a copy, or whose replica was promoted without the last
    transactions: before schedulers and publishers start, which would send again what it has forgotten.
    """
    if not database:
        fail("--database or INTERLOCK_DATABASE: an address such as postgresql://user@host/name")
    begin = datetime.now(UTC) - period(since)
    found = asyncio.run(mend(database, cluster_at(kafka), begin, write=write))
    counts = Counter(o.result for outcomes in found.outcomes.values() for o in outcomes)
    named = ", ".join(f"{count:,} {result}" for result, count in sorted(counts.items())) or "none"
    print(
        f"since {begin:%Y-%m-%d %H:%M} UTC: {found.told:,} outcomes, not in the ledger: {named}",
        *(["; written"] if write and counts else []),
        sep="",
    )
    if counts and not write:
        print("nothing was written: --write does it")


async def mend(database: str, cluster: Cluster, begin: datetime, *, write: bool) -> Forgotten:
    """Find what is forgotten since then, and write it down if that is wanted."""
    from services.kit.database import new_engine
    from services.publisher.store import SCHEMA, Store

    engine = new_engine(database, schema=SCHEMA)
    store = Store(engine, publisher="recovered")
    try:
        found = await _forgotten(store, cluster, begin)
        if write and found.outcomes:
            _add_posts(found, cluster, begin)
            for post_id, outcomes in found.outcomes.items():
                for outcome in outcomes:
                    await _write(store, outcome, found.posts.get(post_id))
    finally:
        await engine.dispose()
    return found


async def _forgotten(store: Store, cluster: Cluster, begin: datetime) -> Forgotten:
    from schemas.posts import Outcome
    from schemas.topics import OUTCOMES

    found, chunk = Forgotten(), list[Outcome]()

    async def look() -> None:
        entries = await asyncio.gather(*(store.find(one.post_id) for one in chunk))
        for outcome, entry in zip(chunk, entries, strict=True):
            if (KNOWS.get(entry.state, 0) if entry else 0) < TELLS[outcome.result]:
                found.outcomes.setdefault(outcome.post_id, []).append(outcome)
        chunk.clear()

    for record in _read(cluster, OUTCOMES, begin):
        if isinstance(record, Outcome) and record.result in TELLS:
            found.told += 1
            chunk.append(record)
        if len(chunk) >= CHUNK:
            await look()
    await look()
    return found


def _add_posts(found: Forgotten, cluster: Cluster, begin: datetime) -> None:
    """Add the offers themselves: by their labels a take-back finds them."""
    from schemas.posts import DuePost
    from schemas.topics import DUE

    for record in _read(cluster, DUE, begin - DUE_BEFORE):
        if isinstance(record, DuePost) and record.post.post_id in found.outcomes:
            found.posts[record.post.post_id] = record.post


def _read(cluster: Cluster, topic: Topic, begin: datetime) -> Iterator[Record]:
    from kafka import KafkaConsumer, TopicPartition

    from schemas import envelope

    consumer: Any = KafkaConsumer(**cluster.options(), enable_auto_commit=False)
    places = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
    consumer.assign(places)
    ends = consumer.end_offsets(places)
    begins = consumer.offsets_for_times(dict.fromkeys(places, int(begin.timestamp() * 1000)))
    for place in places:
        consumer.seek(place, begins[place].offset if begins.get(place) else ends[place])
    try:
        while any(consumer.position(place) < ends[place] for place in places):
            for records in consumer.poll(timeout_ms=READ_MS).values():
                for record in records:
                    read = envelope.read(record.headers, record.value, allowed=topic.records)
                    if isinstance(read, envelope.Envelope):  # What is not is a dead letter.
                        yield read.record
    finally:
        consumer.close()


async def _write(store: Store, outcome: Outcome, post: Post | None) -> None:
    """Write down what one outcome tells; a row that knows more stays as it is."""
    from schemas.posts import Post
    from services.publisher.ledger import Attempt
    from services.publisher.proof import LOST
    from services.publisher.store import Sent

    at = outcome.at
    known = post or Post(
        post_id=outcome.post_id, kind=outcome.kind, account=outcome.account, text="(forgotten)",
        labels={}, due_at=at, latest_at=at, incident_id=outcome.incident_id,
    )  # fmt: skip
    await store.record_intent(known, attempt=outcome.attempt, fence=outcome.fence, at=at)
    if outcome.result == "uncertain":
        await store.record(outcome.post_id, "uncertain", done_at=at, detail=outcome.reason)
        return
    tried = Attempt(at=at, publisher=store.publisher, answer=LOST)
    await store.record_sent(
        Sent(
            post_id=outcome.post_id, at=at, attempt=tried, publication=outcome.publication or "",
            url=outcome.url, kind=outcome.kind,
        )
    )  # fmt: skip
    if outcome.result != "published":
        state: State = "retracted" if outcome.result == "retracted" else "retraction_failed"
        await store.record(outcome.post_id, "retracting", hold_id=outcome.hold_id)
        await store.record(outcome.post_id, state, detail=outcome.reason)
