"""How the queue bears ten million offers: holds, ticks, dispatch, lateness, requests.

- A hold that covers half of what is queued, until it is effective (committed), at each size, and beside
  the usual way, an UPDATE of the covered rows (rolled back).
- A tick that claims a hundred due offers, with and without a million past-due offers in held lanes.
- Dispatch: offers all due at one time, from the first to the last on posts.due; the publisher is stopped.
- Lateness: offers spread over a minute, from due time to a consumer of posts.due.
- The calendar of all of it; a file by the command, beside a bare COPY of its bytes.
- `POST` of one offer: by wrk, a process of its own on the same two cores; without wrk it is not measured.

`./run bench scheduler --quick`: a hundredth of the sizes.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from ops.embedded.system import System
from schemas import envelope
from schemas.holds import HoldOpened, HoldReleased
from schemas.labels import parse_matchers
from schemas.posts import DuePost
from schemas.topics import DUE
from services.kit import database
from services.scheduler import counts
from services.scheduler.app import VERSIONS
from services.scheduler.lane_store import LaneStore
from services.scheduler.store import SCHEMA, Store
from tests.bench.engines import new_patient_engine
from tests.bench.requests import import_file, post_requests

QUICK = bool(os.environ.get("BENCH_QUICK"))
SIZES = (1_000, 10_000, 100_000) if QUICK else (10_000, 1_000_000, 10_000_000)
PAST_DUE = SIZES[2] // 10
CAMPAIGNS, LANES = 20, 100  # So many lanes each: two thousand.
ROUNDS, TICKS, DUE_POSTS = 9, 25, 100
DISPATCHED, SPREAD_PER_S, SPREAD_S = (5_000, 300, 5) if QUICK else (50_000, 1_000, 60)
PATIENCE_S = 120.0
MS = 1_000
CAMPAIGN_ROWS = """
    INSERT INTO campaigns (campaign_id, name, labels, quiet_s, useful_s, author)
    SELECT 'bench-' || n, 'bench', '{}', 300, 3600, 'bench' FROM generate_series(1, $1::bigint) AS n
"""
LANE_ROWS = """
    INSERT INTO lanes (campaign_id, labels, lane_key, state, running)
    SELECT 'bench-' || c, jsonb_build_object('line', CASE WHEN n % 2 = 0 THEN 'coast' ELSE 'valley' END,
        'stop', n::text), 'lane-' || n, 'open', true
    FROM generate_series(1, $1::bigint) AS c, generate_series(1, $2::bigint) AS n
"""
POST_ROWS = """
    INSERT INTO posts (post_id, campaign_id, lane_id, account, text, due_at, latest_at, state, author)
    SELECT 'bench-' || $1::text || '-' || n, 'bench-' || ((l.lane_id - 1) / $5::bigint + 1), l.lane_id, 'social-en',
        'Half price to the sea, today only, and so on for a hundred characters or so. Number ' || n,
        now() + $4::interval + n * interval '1 ms', now() + $4::interval + n * interval '1 ms' + interval '30 days',
        'queued', 'bench'
    FROM generate_series($2::bigint, $3::bigint) AS n JOIN lanes l ON l.lane_id = n % (SELECT count(*) FROM lanes) + 1
"""


def measure() -> list[dict[str, Any]]:
    """Run it; returns the rows of the table."""
    with (
        tempfile.TemporaryDirectory() as folder,
        System(Path(folder), progress=_say, env={"INTERLOCK_REQUESTS_PER_MINUTE": "0"}) as system,
    ):
        system.stopping = True
        for name in ("scheduler", "publisher", "detector"):
            system.children[name].stop()
        rows = uvloop.run(_dispatch(system))
        rows += post_requests(system, Path(folder), _say, seconds=3 if QUICK else 8)
        rows += import_file(system, Path(folder), _say, rows=2_000 if QUICK else 50_000)
        system.children["scheduler"].stop()
        # Last: what ten million rows write keeps the disk busy for minutes.
        rows += uvloop.run(_holds_and_ticks(system.database))
    return rows


async def _holds_and_ticks(url: str) -> list[dict[str, Any]]:
    schema = "bench"
    engine = new_patient_engine(url, schema=schema)
    await database.migrate(engine, schema=schema, versions=VERSIONS)
    await _run(engine, CAMPAIGN_ROWS, CAMPAIGNS)
    await _run(engine, LANE_ROWS, CAMPAIGNS, LANES)
    times: dict[int, tuple[list[float], list[float]]] = {}
    there, update_s = 0, 0.0
    for size in SIZES:
        _say(f"{size:,} offers queued")
        await _fill(engine, "queue", there, size, timedelta(days=30))
        await _run(engine, "CHECKPOINT")  # What was filled in is not written while we measure.
        if not times:
            await _hold_ms(LaneStore(engine))  # Connections and plans are new.
        there = size
        times[size] = await _hold_ms(LaneStore(engine))
        if size == SIZES[1]:
            _say("the usual way: UPDATE")
            update_s = await _update_s(engine)
    rows = _hold_rows(times, update_s)
    rows += await _calendar(engine)
    rows += await _ticks(engine)
    await _run(engine, f"DROP SCHEMA {schema} CASCADE")
    await engine.dispose()
    return rows


async def _fill(engine: AsyncEngine, name: str, first: int, last: int, due: timedelta) -> None:
    for begin in range(first, last, 500_000):
        end = min(begin + 500_000, last)
        await _run(engine, POST_ROWS, name, begin + 1, end, due, LANES)
    await _run(engine, "ANALYZE posts")


async def _hold_ms(lanes: LaneStore) -> tuple[list[float], list[float]]:
    """Return milliseconds until a hold over every second lane counted, and until its lanes were written."""
    counted, written = [], []
    for _ in range(ROUNDS):
        hold = HoldOpened(
            hold_id=f"hold-{uuid.uuid4().hex}", network="bench", reason="bench",
            matchers=parse_matchers('{line="coast"}'), opened_at=datetime.now(UTC),
        )  # fmt: skip
        begun_s = time.perf_counter()
        assert await lanes.write_opened(hold)
        counted.append((time.perf_counter() - begun_s) * MS)
        assert await lanes.apply_opened(hold) == CAMPAIGNS * LANES // 2
        written.append((time.perf_counter() - begun_s) * MS)
        over = HoldReleased(hold_id=hold.hold_id, released_at=datetime.now(UTC), reason="bench")
        await lanes.record_released(over)
        await _run(lanes.engine, "UPDATE lanes SET state = 'open', stopped_at = NULL")
    return counted, written


async def _update_s(engine: AsyncEngine) -> float:
    async with engine.connect() as connection:
        await connection.exec_driver_sql("SET statement_timeout = 0")
        begun_s = time.perf_counter()
        await connection.exec_driver_sql(
            "UPDATE posts SET state = 'review' WHERE lane_id IN"
            " (SELECT lane_id FROM lanes WHERE labels ->> 'line' = 'coast')"
        )
        took_s = time.perf_counter() - begun_s
        await connection.rollback()
    return took_s


def _hold_rows(
    times: dict[int, tuple[list[float], list[float]]], update_s: float
) -> list[dict[str, Any]]:
    medians = {size: statistics.median(counted) for size, (counted, _) in times.items()}
    behind = ", ".join(
        f"{size:,}: {statistics.median(written):.1f} ms" for size, (_, written) in times.items()
    )
    spread = max(medians.values()) / min(medians.values())
    ratio = update_s * MS / medians[SIZES[1]]
    told = ", ".join(f"{size:,}: {ms:.1f} ms" for size, ms in medians.items())
    return [
        {
            "what": "a hold that covers half of the queue, until no claim takes what it covers,"
            f" n {ROUNDS} each",
            "aim": "flat within 1.5 ×",
            "measured": f"{told}; {spread:.2f} ×",
            "met": spread <= 1.5,
        },
        {
            "what": f"and until its {CAMPAIGNS * LANES // 2:,} lanes are written behind that",
            "aim": "",
            "measured": behind,
        },
        {
            "what": f"an UPDATE of the half of {SIZES[1]:,} rows instead",
            "aim": "≥ 1,000 × as long",
            "measured": f"{update_s:.1f} s, {ratio:,.0f} ×",
            "met": ratio >= 1_000,
        },
    ]


async def _calendar(engine: AsyncEngine) -> list[dict[str, Any]]:
    """Count offers by campaign, day and state of the month in which all of them are due."""
    await counts.sum_up(engine)
    await _run(engine, "VACUUM ANALYZE post_counts")
    begin, found = datetime.now(UTC).date(), []
    async with engine.connect() as connection:
        for _ in range(ROUNDS):
            begun_s = time.perf_counter()
            days = await counts.by_day(
                connection, begin=begin, end=begin + timedelta(days=62), campaign_id=None
            )
            found.append((time.perf_counter() - begun_s) * MS)
    assert sum(day["offers"] for day in days) == SIZES[2]
    took_ms = statistics.median(found)
    return [
        {
            "what": f"the calendar of two months: {SIZES[2]:,} offers by campaign, day and state",
            "aim": "≤ 50 ms",
            "measured": f"{took_ms:.1f} ms",
            "met": took_ms <= 50,
        }
    ]


async def _ticks(engine: AsyncEngine) -> list[dict[str, Any]]:
    bare = await _tick_ms(engine, "bare")
    _say(f"{PAST_DUE:,} past-due offers in held lanes")
    await _run(
        engine,
        "UPDATE lanes SET state = 'held', stopped_at = now(), next_due_at = now() - interval '1 hour'"
        " WHERE labels ->> 'line' = 'coast'",
    )
    await _run(
        engine,
        "UPDATE posts SET due_at = now() - interval '1 minute' WHERE post_id IN (SELECT post_id FROM"
        " posts WHERE lane_id % 2 = (SELECT min(lane_id) % 2 FROM lanes WHERE state = 'held')"
        " AND state = 'queued' LIMIT $1::bigint)",
        PAST_DUE,
    )
    await _run(engine, "ANALYZE posts")
    held = await _tick_ms(engine, "held")
    ratio = statistics.median(held) / statistics.median(bare)
    told = f"{statistics.median(bare):.2f} ms → {statistics.median(held):.2f} ms, {ratio:.2f} ×"
    return [
        {
            "what": f"a tick that claims {DUE_POSTS} due offers, {SIZES[2]:,} queued; with {PAST_DUE:,}"
            f" past due and held, n {TICKS}",
            "aim": "≤ 1.5 ×",
            "measured": told,
            "met": ratio <= 1.5,
        }
    ]


async def _tick_ms(engine: AsyncEngine, name: str) -> list[float]:
    store, lanes, found = Store(engine), LaneStore(engine), []
    statement = text("SELECT lane_id FROM lanes WHERE labels ->> 'line' = 'valley' LIMIT 20")
    async with engine.connect() as connection:
        open_lanes = [row.lane_id for row in await connection.execute(statement)]
    for number in range(TICKS):
        await _run(
            engine,
            "INSERT INTO posts (post_id, campaign_id, lane_id, account, text, due_at, latest_at, state,"
            " author) SELECT $1::text || n, 'bench-1', ($2::bigint[])[n % 20 + 1], 'social-en', 'To the sea',"
            " now(), now() + interval '1 day', 'queued', 'bench' FROM generate_series(1, $3::bigint) n",
            f"{name}-{number}-", open_lanes, DUE_POSTS,
        )  # fmt: skip
        await lanes.expect(dict.fromkeys(open_lanes, datetime.now(UTC)))
        await store.look()
        begun_s = time.perf_counter()
        claimed = await store.claim_due(datetime(2020, 1, 1, tzinfo=UTC))
        found.append((time.perf_counter() - begun_s) * MS)
        assert claimed is not None
        assert len(claimed.posts) == DUE_POSTS
    return found[5:]


async def _dispatch(system: System) -> list[dict[str, Any]]:
    engine = new_patient_engine(system.database, schema=SCHEMA)
    await _run(engine, CAMPAIGN_ROWS, CAMPAIGNS)
    await _run(engine, LANE_ROWS, CAMPAIGNS, LANES)
    _say(f"{DISPATCHED:,} offers due at once")
    seen = asyncio.create_task(_due_records(system, DISPATCHED))
    await _due_then(engine, "once", DISPATCHED, timedelta(seconds=15), timedelta(0))
    _start(system, "scheduler")
    records = await seen
    times = [arrived_s for arrived_s, _ in records]
    rate = (DISPATCHED - 1) / (max(times) - min(times))
    count = SPREAD_PER_S * SPREAD_S
    _say(f"{SPREAD_PER_S:,} offers a second for {SPREAD_S} s")
    seen = asyncio.create_task(_due_records(system, count))
    gap = timedelta(seconds=1 / SPREAD_PER_S)
    await _due_then(engine, "spread", count, timedelta(seconds=10), gap)
    await _run(
        engine, "UPDATE lanes l SET next_due_at = (SELECT min(due_at) FROM posts p WHERE"
        " p.lane_id = l.lane_id AND p.state = 'queued')",
    )  # fmt: skip
    late = sorted((at_s - due.post.due_at.timestamp()) * MS for at_s, due in await seen)
    await engine.dispose()
    p99 = late[int(len(late) * 0.99)]
    return [
        {
            "what": f"dispatch by one process: {DISPATCHED:,} offers due at once, first to last on posts.due",
            "aim": "≥ 5,000/s",
            "measured": f"{rate:,.0f}/s",
            "met": rate >= 5_000,
        },
        {
            "what": f"lateness at {SPREAD_PER_S:,} offers/s for {SPREAD_S} s, due → read from posts.due",
            "aim": "p99 ≤ 100 ms",
            "measured": f"p50 {late[len(late) // 2]:.1f} ms, p99 {p99:.1f} ms, earliest {late[0]:.1f} ms",
            "met": p99 <= 100,
        },
    ]


async def _due_then(
    engine: AsyncEngine, name: str, count: int, begin: timedelta, gap: timedelta
) -> None:
    await _run(
        engine,
        "INSERT INTO posts (post_id, campaign_id, lane_id, account, text, due_at, latest_at, state, author)"
        " SELECT $1::text || n, l.campaign_id, l.lane_id, 'social-en', 'To the sea', at, at + interval '1 day',"
        " 'queued', 'bench' FROM (SELECT n, now() + $3::interval + n * $4::interval AS at"
        " FROM generate_series(1, $2::bigint) n) p JOIN lanes l ON l.lane_id = n % 40 + 1",
        f"{name}-", count, begin, gap,
    )  # fmt: skip


async def _due_records(system: System, count: int) -> list[tuple[float, DuePost]]:
    """Read so many records of posts.due from now on, each with the wall clock at its arrival."""
    consumer = AIOKafkaConsumer(bootstrap_servers=system.kafka)
    await consumer.start()
    consumer.assign([TopicPartition(DUE.name, p) for p in range(DUE.partitions)])
    await consumer.seek_to_end()
    found: list[tuple[float, Any]] = []
    until_s = time.monotonic() + PATIENCE_S
    while len(found) < count:
        assert time.monotonic() < until_s, f"{len(found)} of {count} due records"
        for records in (await consumer.getmany(timeout_ms=200)).values():
            at_s = time.time()
            found += [(at_s, record) for record in records]
    await consumer.stop()
    read = []
    for at_s, record in found:
        one = envelope.read(record.headers, record.value, allowed=(DuePost,))
        assert isinstance(one, envelope.Envelope)
        assert isinstance(one.record, DuePost)
        read.append((at_s, one.record))
    return read


def _start(system: System, name: str) -> None:
    system.replace(name)


async def _run(engine: AsyncEngine, statement: str, *values: Any) -> None:
    alone = engine.execution_options(isolation_level="AUTOCOMMIT")
    async with alone.connect() as connection:
        await connection.exec_driver_sql("SET statement_timeout = 0")
        await connection.exec_driver_sql(statement, values or None)


def _say(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr, flush=True)
