"""How much the detector takes: the fold alone, through Kafka, and in an alert storm.

The events are a storm's: 1,000 trains on five lines, each reported again and again. Most say what is
known; of 1,000, 10 have news, 10 say the old again, 5 are over and 5 come back. The fold is measured
with five times as many changes as well; and what else is done in between, with a thousand and ten thousand incidents
open. Through Kafka: a backlog on
one partition, from the moment that its state was restored until the echo of a fence behind it, with
every hold and update of it acknowledged before; beside it, aiokafka reading the same backlog, in
batches and doing nothing, in the same run. The storm: 100,000 events in ten seconds, twice, with a
fence on their partition all the while, each begun when the one before it has passed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from ops.embedded.screen import resident_mb
from ops.embedded.system import System
from schemas import envelope
from schemas.base import Record
from schemas.disruptions import Disruption, Fence
from schemas.policies import Policy, Rule
from schemas.snapshots import Snapshot
from schemas.topics import DISRUPTIONS, FENCE_KEY, HOLDS
from services.detector.deadlines import Deadlines
from services.detector.fold import fold
from services.detector.state import Entry, State
from services.detector.store import Texts

SEED = 20261017
FOLDED, BACKLOG, STORM, STORM_S = 200_000, 60_000, 100_000, 10
BATCH, CHANGES, FEW = 500, 0.01, 20
TRAINS, LINES = 1_000, 5
PATIENCE_S = 120
AT = datetime(2026, 10, 17, 18, 2, tzinfo=UTC)
RULE = Rule(name="line", group_by=("network", "line"), quiet_s=60, update_gap_s=60, take_back_s=0)
WORDS = {"opened": "{{ title }}", "working": "{{ title }}", "resolved": "{{ title }} is over"}
POLICY = Policy.model_validate({"name": "bench", "rules": (RULE,), "messages": {"en": WORDS}})


def measure() -> list[dict[str, Any]]:
    """Run it; returns the rows of the table."""
    rows = [_fold_alone(CHANGES, aim_per_s=100_000), _fold_alone(5 * CHANGES)]
    rows += [row for size in (1_000, 10_000) for row in _open(size)]
    with tempfile.TemporaryDirectory() as folder, System(Path(folder), progress=_say) as system:
        with system.client("detector", "admin") as admin:
            answer = admin.put("/v1/policy", json=POLICY.model_dump(mode="json"))
            answer.raise_for_status()
        rows += _through_kafka(system)
        rows += _storm(system)
    return rows


def a_storm(network: str, *, changes: float = CHANGES) -> Iterator[Disruption]:
    """Yield a storm's events, without end; `changes`: of one event, the chance to be news."""
    chance = random.Random(SEED)
    for number in itertools.count():
        train, dice = number % TRAINS, chance.random()
        status = "opened" if number < TRAINS else "updated"
        has_news = dice < changes
        yield Disruption.model_validate(
            {
                "disruption_id": f"train-{train}",
                "network": network,
                "status": "resolved" if changes <= dice < 1.5 * changes else status,
                "title": f"Train {train} is late",
                "severity": "major",
                "detail": f"By {number // TRAINS} minutes." if has_news else "",
                "labels": {"line": f"line-{train % LINES}"},
                "values": {"delay_min": 17},
            }
        )


def _fold_alone(changes: float, *, aim_per_s: int | None = None) -> dict[str, Any]:
    events = enumerate(itertools.islice(a_storm("bench", changes=changes), FOLDED))
    state, said, changed, took_s = State(policy=POLICY), 0, 0, 0.0
    while batch := [_entry(n, event) for n, event in itertools.islice(events, BATCH)]:
        begun_s = time.perf_counter()  # As the stream has them: read a moment ago.
        for entry in batch:
            step = fold(state, entry)
            changed += step.state is not state
            state, said = step.state, said + len(step.outputs)
        took_s += time.perf_counter() - begun_s
    per_s = FOLDED / took_s
    assert len(state.stories) == LINES
    return {
        "what": f"fold alone, {FOLDED:,} events, {changed / FOLDED:.1%} of them news, {said:,} outputs",
        "aim": f"≥ {aim_per_s:,}/s" if aim_per_s else "",
        "measured": f"{per_s:,.0f}/s",
        "met": per_s >= aim_per_s if aim_per_s else None,
    }


def _entry(number: int, event: Disruption) -> Entry:
    at = AT + timedelta(milliseconds=number / 10)
    return Entry(
        partition=0, offset=number, at=at, body=event, event_id=str(number), source="/bench"
    )


def _open(size: int) -> list[dict[str, Any]]:
    """Measure what stands in the way of a disruption while so many incidents are open, and twenty change."""
    state, deadlines, texts = State(policy=POLICY), Deadlines(), Texts()
    snapshot = Snapshot(partition=0, offset=size, taken_at=AT, state={})
    looks: list[float] = []
    writes: list[float] = []
    for begin in (0, *range(size, size + 5 * FEW, FEW)):
        for number in range(begin, begin + (FEW if begin else size)):
            state = fold(state, _entry(number, _on_own_line(number % size, number))).state
        begun_s = time.perf_counter()
        deadlines.first(state)
        looks.append(time.perf_counter() - begun_s)
        begun_s = time.perf_counter()
        texts.of(snapshot, state)
        writes.append(time.perf_counter() - begun_s)
    assert len(state.stories) == size
    ways = {"a look at the deadlines": looks, "a snapshot written down": writes}
    return [_anew(size, what, took) for what, took in ways.items()]


def _on_own_line(line: int, number: int) -> Disruption:
    return Disruption.model_validate(
        {
            "disruption_id": f"train-{line}", "network": "bench", "status": "opened",
            "title": f"Train {line} is late", "detail": f"Told {number}", "labels": {"line": f"line-{line}"},
        }
    )  # fmt: skip


def _anew(size: int, what: str, took: list[float]) -> dict[str, Any]:
    first_ms, later_ms = took[0] * 1000, statistics.median(took[1:]) * 1000
    ratio = later_ms / first_ms
    return {
        "what": f"{what}, {size:,} incidents open, {FEW} of them changed; the first time, of all",
        "aim": "≤ 0.5 ×",
        "measured": f"{later_ms:.1f} ms; {first_ms:.1f} ms: {ratio:.2f} ×",
        "met": ratio <= 0.5,
    }


def _through_kafka(system: System) -> list[dict[str, Any]]:
    system.children["detector"].stop()
    system.stopping = True  # Nobody starts it again meanwhile.
    partition = uvloop.run(_produce_backlog(system.kafka))
    bare_s = uvloop.run(_read_bare(system.kafka, partition))
    log = system.data / "logs" / "detector.log"
    before = log.stat().st_size
    system.stopping = False
    system.replace("detector")
    began = _restored_at(log, before, partition)
    ended = uvloop.run(_echo_at(system.kafka, partition))
    per_s, bare_per_s = BACKLOG / (ended - began), BACKLOG / bare_s
    return [
        {
            "what": f"bare: aiokafka reads the same {BACKLOG:,} events in batches, and does nothing",
            "aim": "",
            "measured": f"{bare_per_s:,.0f}/s",
        },
        {
            "what": "one detector, from restored state to the echo behind them, all outputs acknowledged",
            "aim": "≥ 15,000/s",
            "measured": f"{per_s:,.0f}/s ({bare_per_s / per_s:.1f} × the time of bare)",
            "met": per_s >= 15_000,
        },
    ]


async def _produce_backlog(servers: str) -> int:
    producer = _producer(servers)
    await producer.start()
    partition = await _send(producer, a_storm("backlog"), BACKLOG)
    fence = Fence(publisher="bench-backlog", number=1)
    done = await producer.send_and_wait(
        DISRUPTIONS.name, envelope.write_value(fence), headers=_headers(fence, "f"),
        partition=partition,
    )  # fmt: skip
    await producer.stop()
    return int(done.partition)


def _producer(servers: str) -> Any:
    return AIOKafkaProducer(
        bootstrap_servers=servers, acks="all", enable_idempotence=True, linger_ms=5
    )


async def _send(producer: Any, events: Iterator[Disruption], count: int) -> int:
    sent: list[Any] = []
    for number, event in enumerate(itertools.islice(events, count)):
        value, headers = envelope.write_value(event), _headers(event, str(number))
        key = event.network.encode()
        sent.append(await producer.send(DISRUPTIONS.name, value, key=key, headers=headers))
    done = await asyncio.gather(*sent)
    return int(done[0].partition)


def _headers(record: Record, event_id: str) -> list[tuple[str, bytes]]:
    headers = envelope.write_headers(record, event_id=event_id, source="/bench")
    return [(name, text.encode()) for name, text in headers.items()]


async def _read_bare(servers: str, partition: int) -> float:
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest")
    await consumer.start()
    tp = TopicPartition(DISRUPTIONS.name, partition)
    consumer.assign([tp])
    end = (await consumer.end_offsets([tp]))[tp]
    consumer.seek(tp, end - BACKLOG - 1)
    begun_s, read = time.perf_counter(), 0
    while read < BACKLOG:
        found = await consumer.getmany(tp, timeout_ms=1_000, max_records=500)
        read += len(found.get(tp, ()))
    took_s = time.perf_counter() - begun_s
    await consumer.stop()
    return took_s


def _restored_at(log: Path, skip: int, partition: int) -> float:
    until_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < until_s:
        for line in log.read_bytes()[skip:].decode(errors="replace").splitlines():
            if '"event": "restored"' in line and json.loads(line)["partition"] == partition:
                return datetime.fromisoformat(json.loads(line)["timestamp"]).timestamp()
        time.sleep(0.05)
    raise TimeoutError("the detector has restored nothing")


async def _echo_at(servers: str, partition: int) -> float:
    """Return when the echo of the backlog's fence was written, by its producer's clock."""
    consumer = AIOKafkaConsumer(HOLDS.name, bootstrap_servers=servers, auto_offset_reset="earliest")
    await consumer.start()
    key = f"{FENCE_KEY}bench-backlog/{partition}".encode()
    try:
        async with asyncio.timeout(PATIENCE_S):
            async for record in consumer:
                if record.key == key:
                    return float(record.timestamp) / 1000
    finally:
        await consumer.stop()
    raise AssertionError


def _storm(system: System) -> list[dict[str, Any]]:
    pid = system.children["detector"].pid
    before_mb = resident_mb(pid)
    first = uvloop.run(_rain(system.kafka, pid))
    incidents = _incidents(system, "storm")
    second = uvloop.run(_rain(system.kafka, pid))
    fences_s = [*first.fences_s, *second.fences_s]
    return [
        {
            "what": f"storm: {STORM:,} events for {LINES} lines in {first.took_s:.1f} s: incidents",
            "aim": f"{LINES}",
            "measured": f"{incidents}",
            "met": incidents == LINES,
        },
        {
            "what": f"the slowest of {len(fences_s)} fences in two storms ({first.took_s:.1f} and {second.took_s:.1f} s)",
            "aim": "≤ 1 s",
            "measured": f"{max(fences_s):.3f} s, median {statistics.median(fences_s):.3f} s",
            "met": max(fences_s) <= 1.0,
        },
        {
            "what": f"memory of the detector: before {before_mb:.0f} MB, peak of the first storm {first.peak_mb:.0f} MB; of the second",
            "aim": "no growth beyond 5 %",
            "measured": f"{second.peak_mb:.0f} MB",
            "met": second.peak_mb <= 1.05 * first.peak_mb,
        },
    ]


@dataclass(slots=True)
class _Rain:
    took_s: float = 0.0
    peak_mb: float = 0.0
    fences_s: list[float] = field(default_factory=list)


async def _rain(servers: str, pid: int) -> _Rain:
    """Send a storm evenly over its seconds, with fences on its partition all the while."""
    producer, found = _producer(servers), _Rain()
    await producer.start()
    partition = await _send(producer, a_storm("storm"), 1)
    done = asyncio.Event()
    fences = asyncio.create_task(_fences(servers, partition, found, done))
    events, begun_s = a_storm("storm"), time.monotonic()
    slices = STORM_S * 20
    for number in range(slices):
        await _send(producer, events, STORM // slices)
        found.peak_mb = max(found.peak_mb, resident_mb(pid))
        await asyncio.sleep(max(0.0, begun_s + (number + 1) * STORM_S / slices - time.monotonic()))
    found.took_s = time.monotonic() - begun_s
    done.set()
    await fences
    await producer.stop()
    return found


async def _fences(servers: str, partition: int, found: _Rain, done: asyncio.Event) -> None:
    """Write a fence, wait for its echo, and again: as a publisher with offers does."""
    consumer = AIOKafkaConsumer(HOLDS.name, bootstrap_servers=servers)
    producer = _producer(servers)
    await consumer.start()
    await producer.start()
    await consumer.seek_to_end()
    me = f"bench-{uuid.uuid4().hex}"
    key = f"{FENCE_KEY}{me}/{partition}".encode()
    number = 0
    async with asyncio.timeout(PATIENCE_S):
        while not done.is_set():
            number += 1
            fence, begun_s = Fence(publisher=me, number=number), time.monotonic()
            value, headers = envelope.write_value(fence), _headers(fence, str(number))
            await producer.send_and_wait(
                DISRUPTIONS.name, value, headers=headers, partition=partition
            )
            async for record in consumer:
                if record.key == key:
                    break
            found.fences_s.append(time.monotonic() - begun_s)
    await producer.stop()
    await consumer.stop()


def _incidents(system: System, network: str) -> int:
    with system.client("detector", "viewer") as client:
        found = client.get("/v1/incidents").raise_for_status().json()
    return len({i["incident_id"] for i in found if i["network"] == network})


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
