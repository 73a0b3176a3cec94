"""What the publisher bears: offers a second with and without the fence, updates under a backlog.

- Offers: a backlog on `posts.due` for four accounts whose channels are null; from the first outcome to the
  last, through gate, ledger (PostgreSQL) and outcomes, in one process. Beside it the same with a gate that
  asks for no fence, in turns.
- Updates: from the acknowledged record of `status.updates` to the null channel, idle, and with a
  million offers waiting for a network that takes 20 a second; and while they are published as fast as
  may be.
- The archive, and the start of a publisher, each with a million records of before.
- Alertmanager: the same alert is pushed to a real Alertmanager (`group_wait: 0s`) and to Interlock's door
  for it, in turns; each calls a webhook of the same receiver.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop
import yaml
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from ops.embedded.system import System
from schemas import envelope
from schemas.holds import HoldOpened, HoldReleased
from schemas.incidents import StatusUpdate
from schemas.posts import DuePost, Post
from schemas.topics import DUE, HOLDS, OUTCOMES, UPDATES, key_of
from services.kit.telemetry import Clock
from services.publisher.archive import Archive
from services.publisher.store import SCHEMA
from tests.bench.alertmanager import VOICE, versus_alertmanager
from tests.bench.engines import new_patient_engine
from tests.builders import APART

ACCOUNTS = [f"null-{number}" for number in range(4)]
OFFERS, ROUNDS = 30_000, 5
BACKLOG, SLOW_PER_S = int(os.environ.get("BENCH_BACKLOG", "1000000")), 20
UPDATE_COUNT, UPDATE_GAP_S = 200, 0.05
RARE_COUNT, RARE_GAP_S = 50, 0.5
PATIENCE_S = 300.0
OLD_ROWS, HOLDS_BEHIND = int(os.environ.get("BENCH_ARCHIVE", "1000000")), 1_000_000
OLD = """
INSERT INTO ledger (post_id, kind, account, state, attempt, publisher, fence, labels, intent_at,
                    done_at, publication)
SELECT 'old-' || n, 'offer', 'null-0', 'sent', 1, 'bench', n, '{"line": "coast"}',
       now() - interval '30 days', now() - interval '30 days', n::text
FROM generate_series(1, $1) AS n
"""
FENCED, UNFENCED = ("0", "fence"), ("0", "no-fence")


def measure() -> list[dict[str, Any]]:
    """Run it; returns the rows of the table."""
    with (
        tempfile.TemporaryDirectory() as folder,
        System(Path(folder), progress=_say, copies={"publisher": 2}) as system,
    ):
        seen = Path(folder) / "seen"
        system.extra_env["NULL_SEEN"] = str(seen)
        known = {name: {"channel": "feed", "updates": "{}"} for name in ACCOUNTS}
        (system.data / "accounts.yaml").write_text(yaml.safe_dump({"accounts": known}))
        rows = _offers(system)
        rows += _updates(system, seen)
        rows += uvloop.run(_archive(system.database))
        rows += _start_behind(system)
    with tempfile.TemporaryDirectory() as folder:
        rows += versus_alertmanager(Path(folder), _say)
    return rows


def _offers(system: System) -> list[dict[str, Any]]:
    rates: dict[str, list[float]] = {"fence": [], "no-fence": []}
    system.stopping = True
    system.children[VOICE].stop()
    system.children["scheduler"].stop()  # It would read the outcomes, on the same two cores.
    for _ in range(ROUNDS):
        for mode in (FENCED, UNFENCED):
            _say(f"{OFFERS:,} offers, {mode[1]}")
            rates[mode[1]].append(_drain(system, mode))
    ours, bare = (statistics.median(rates[name]) for name in ("fence", "no-fence"))
    return [
        {
            "what": f"offers through gate, ledger and null channels, one process, n {ROUNDS} × {OFFERS:,}",
            "aim": "≥ 5,000/s",
            "measured": f"{ours:,.0f}/s ({', '.join(f'{r:,.0f}' for r in rates['fence'])})",
            "met": ours >= 5_000,
        },
        {
            "what": "what the fence costs of it, against a gate that asks for none",
            "aim": "< 10 %",
            "measured": f"{1 - ours / bare:.1%} (without: {bare:,.0f}/s)",
            "met": ours > 0.9 * bare,
        },
    ]


def _null(mode: tuple[str, str]) -> list[str]:
    return [sys.executable, "-m", "tests.bench.null", *mode]


def _drain(system: System, mode: tuple[str, str]) -> float:
    """Return offers a second, from the first outcome to the last."""
    system.children["publisher"].stop()
    ends = uvloop.run(_ends(system.kafka))
    uvloop.run(_produce(system.kafka, OFFERS))
    system.replace("publisher", _null(mode))
    return uvloop.run(_outcomes_per_s(system.kafka, ends, OFFERS))


async def _ends(servers: str) -> dict[int, int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=servers)
    await consumer.start()
    parts = [TopicPartition(OUTCOMES.name, p) for p in range(OUTCOMES.partitions)]
    found = await consumer.end_offsets(parts)
    await consumer.stop()
    return {tp.partition: offset for tp, offset in found.items()}


async def _outcomes_per_s(servers: str, ends: dict[int, int], count: int) -> float:
    """Read what became of the offers; broker times say when."""
    consumer = AIOKafkaConsumer(bootstrap_servers=servers)
    await consumer.start()
    consumer.assign([TopicPartition(OUTCOMES.name, p) for p in ends])
    for partition, offset in ends.items():
        consumer.seek(TopicPartition(OUTCOMES.name, partition), offset)
    times: list[int] = []
    until_s = time.monotonic() + PATIENCE_S
    while len(times) < count:
        assert time.monotonic() < until_s, f"{len(times)} of {count} outcomes"
        for records in (await consumer.getmany(timeout_ms=500)).values():
            times += [record.timestamp for record in records]
    await consumer.stop()
    return (count - 1) / ((max(times) - min(times)) / 1000)


def an_offer(number: int, now: datetime) -> DuePost:
    post = Post(
        post_id=f"bench-{uuid.uuid4().hex}",
        kind="offer",
        account=ACCOUNTS[number % len(ACCOUNTS)],
        text=f"Half price on the coast line, today only ({number}).",
        labels={"network": "northlink", "line": f"line-{number % 40}"},
        due_at=now,
        latest_at=now + timedelta(hours=6),
    )
    return DuePost(post=post, attempt=1)


async def _produce(servers: str, count: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all", linger_ms=20)
    await producer.start()
    now = datetime.now(UTC)
    for first in range(0, count, 2_000):
        sent = []
        for number in range(first, min(first + 2_000, count)):
            due = an_offer(number, now)
            headers = _headers(due, due.post.post_id)
            value, key = envelope.write_value(due), due.post.account.encode()
            sent.append(await producer.send(DUE.name, value, key=key, headers=headers))
        await asyncio.gather(*sent)
    await producer.stop()


def _headers(record: Any, event_id: str) -> list[tuple[str, bytes]]:
    headers = envelope.write_headers(record, event_id=event_id, source="/bench")
    return [(name, text.encode()) for name, text in headers.items()]


def _updates(system: System, seen: Path) -> list[dict[str, Any]]:
    system.replace("publisher", _null((str(SLOW_PER_S), "fence")))
    _say("updates, idle")
    idle = uvloop.run(_say_updates(system.kafka, seen))
    _say(f"{BACKLOG:,} offers into the backlog")
    uvloop.run(_produce(system.kafka, BACKLOG))
    _say("updates, behind the backlog")
    waiting = uvloop.run(_say_updates(system.kafka, seen))
    system.replace("publisher", _null(FENCED))
    _say("updates, while it is published as fast as may be")
    full = uvloop.run(_say_updates(system.kafka, seen))
    rare = uvloop.run(_say_updates(system.kafka, seen, count=RARE_COUNT, gap_s=RARE_GAP_S))
    _say("the same, with a publisher of their own for the updates")
    apart = _apart(system, seen)
    ratio = _centile(waiting, 99) / _centile(idle, 99)
    return [
        _row("update, acknowledged → at the channel, idle", idle),
        _row(
            f"the same, {BACKLOG:,} offers waiting for networks that take {SLOW_PER_S}/s each",
            waiting,
        ),
        {
            "what": "p99 under that backlog over p99 idle",
            "aim": "≤ 2 ×",
            "measured": f"{ratio:.2f} ×",
            "met": ratio <= 2,
        },
        _row("the same while the backlog is published as fast as may be (both cores busy)", full),
        _row(
            f"and of one incident {1 / RARE_GAP_S:.0f} a second, which do not wait for each other",
            rare,
        ),
        _row("and with a publisher of their own (INTERLOCK_CARRIES=updates)", apart),
    ]


def _apart(system: System, seen: Path) -> list[float]:
    """Measure with offers and updates in a process each; then there is one again."""
    system.env_of |= APART
    for name in APART:
        system.replace(name, _null(FENCED))
    found = uvloop.run(_say_updates(system.kafka, seen))
    system.children[VOICE].stop()
    system.env_of = {}
    system.replace("publisher", _null(FENCED))
    return found


async def _archive(database_url: str) -> list[dict[str, Any]]:
    """Move a million old rows out of the ledger."""
    _say(f"{OLD_ROWS:,} old rows in the ledger")
    engine = new_patient_engine(database_url, schema=SCHEMA)
    async with engine.begin() as connection:
        await connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        await connection.exec_driver_sql("ALTER TABLE ledger DISABLE TRIGGER ledger_guard")
        await connection.exec_driver_sql(OLD, (OLD_ROWS,))
        await connection.exec_driver_sql("ALTER TABLE ledger ENABLE TRIGGER ledger_guard")
    archive = Archive(engine, clock=Clock(), days=8)
    begun_s, moved = time.perf_counter(), 0
    while count := await archive.move():
        moved += count
    took_s = time.perf_counter() - begun_s
    async with engine.connect() as connection:
        left = (await connection.exec_driver_sql("SELECT count(*) FROM ledger")).scalar_one()
    alone = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with alone.connect() as connection:  # As autovacuum does, some time later.
        await connection.exec_driver_sql("SET statement_timeout = 0")
        await connection.exec_driver_sql("VACUUM ledger")
        size = "SELECT pg_total_relation_size('ledger') - pg_indexes_size('ledger')"
        megabytes = (await connection.exec_driver_sql(size)).scalar_one() / 1e6
    await engine.dispose()
    assert moved == OLD_ROWS
    per_s = moved / took_s
    return [
        {
            "what": f"archive: {moved:,} settled rows moved into their month; {left:,} newer ones stay"
            f", in a table of {megabytes:,.0f} MB when vacuumed",
            "aim": "faster than offers come",
            "measured": f"{per_s:,.0f} rows/s",
            "met": per_s > 5_000,
        }
    ]


def _start_behind(system: System) -> list[dict[str, Any]]:
    _say(f"{HOLDS_BEHIND:,} records on ops.holds")
    uvloop.run(_fill_holds(system.kafka))
    begun_s = time.perf_counter()
    system.replace("publisher", _null(FENCED))
    took_s = time.perf_counter() - begun_s
    return [
        {
            "what": f"start of a publisher, {HOLDS_BEHIND:,} records of holds behind: to a passed fence",
            "aim": "seconds",
            "measured": f"{took_s:.1f} s",
        }
    ]


async def _fill_holds(servers: str) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=servers, acks="all", linger_ms=20, max_batch_size=262_144
    )
    await producer.start()
    now = datetime.now(UTC)
    matchers = '{network="northlink",line="coast"}'
    opened = HoldOpened.model_validate(
        {"hold_id": "NAME", "network": "northlink", "matchers": matchers,
         "reason": "Trains are standing", "opened_at": now}
    )  # fmt: skip
    facts = [opened, HoldReleased(hold_id="NAME", released_at=now, reason="over")]
    known = [(key_of(f) or "", envelope.write_value(f), _headers(f, "bench")) for f in facts]
    for first in range(0, HOLDS_BEHIND // 2, 5_000):
        sent = []
        for number in range(first, first + 5_000):
            name = f"bench-{number}"
            for key, value, headers in known:
                body = value.replace(b"NAME", name.encode())
                key_ = key.replace("NAME", name).encode()
                sent.append(await producer.send(HOLDS.name, body, key=key_, headers=headers))
        await asyncio.gather(*sent)
    await producer.stop()


async def _say_updates(
    servers: str, seen: Path, *, count: int = UPDATE_COUNT, gap_s: float = UPDATE_GAP_S
) -> list[float]:
    producer = AIOKafkaProducer(bootstrap_servers=servers, acks="all")
    await producer.start()
    begun: dict[str, float] = {}
    for _ in range(count):
        name = uuid.uuid4().hex
        update = StatusUpdate(
            update_id=name, incident_id="i", network="northlink", number=1, moment="written",
            texts={"en": "Still working on it."}, written_at=datetime.now(UTC),
        )  # fmt: skip
        value, headers = envelope.write_value(update), _headers(update, name)
        await producer.send_and_wait(UPDATES.name, value, key=b"i", headers=headers)
        begun[name] = time.monotonic()
        await asyncio.sleep(gap_s)
    await producer.stop()
    until_s = time.monotonic() + PATIENCE_S
    found: dict[str, float] = {}
    while len(found) < count:
        assert time.monotonic() < until_s, f"{len(found)} of {count} updates"
        await asyncio.sleep(0.2)
        for name, at_s in _seen(seen):
            if name in begun:
                found.setdefault(name, at_s)  # The first of the accounts.
    return [(found[name] - at_s) * 1000 for name, at_s in begun.items()][count // 10 :]


def _seen(path: Path) -> Iterator[tuple[str, float]]:
    for line in path.read_text().splitlines():
        key, _, at_s = line.partition(" ")
        yield key.partition(".")[0], float(at_s)


def _centile(values: list[float], at: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[at - 1]


def _row(what: str, values: list[float]) -> dict[str, Any]:
    told = f"p50 {_centile(values, 50):.2f} ms, p99 {_centile(values, 99):.2f} ms, n {len(values)}"
    return {"what": what, "aim": "", "measured": told}


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
