"""From an acknowledged event to the hold in force at the publisher, beside two bare Kafka hops.

Both are measured in one run, in turns, by the same emitter on one broker: event by event, each
acknowledged by the broker before the clock starts. The product: the publisher's own log line, which
it writes when the hold is in force. Bare: aiokafka → process → aiokafka → process, no work between.
The rule says nothing there: at 20 events a second on two cores the updates' own work would be what
is measured. A second part has them on, at ten events a second over HTTP, and measures both.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import uvloop
from aiokafka import AIOKafkaProducer
from kafka import KafkaAdminClient

from ops.embedded.system import System
from schemas import envelope
from schemas.disruptions import Disruption
from schemas.policies import Policy, Rule
from schemas.topics import DISRUPTIONS
from tests.bench.bare import FIRST, SECOND

ROUNDS, PER_ROUND, WARM = 10, 100, 100
UPDATES = 200
PATIENCE_S = 30.0
SEED = 20261017
WORDS = {
    "opened": "{{ title }} is disrupted",
    "working": "{{ title }} goes on",
    "resolved": "{{ title }} is over",
}


def measure() -> list[dict[str, Any]]:
    """Run it; returns the rows of the table."""
    with tempfile.TemporaryDirectory() as folder, System(Path(folder), progress=_say) as system:
        _say("measuring")
        _prepare(system)
        _apply(system, say=False)
        bare, pause = uvloop.run(_play(system, Path(folder)))
        _apply(system, say=True)
        both, update = _updates(system)
    return [
        _row("bare two hops, aiokafka", bare),
        _row("acknowledged event → hold in force at the publisher", pause),
        _ratio("p50 of it over bare", 50, pause, bare, 1.5),
        _ratio("p99 of it over bare", 99, pause, bare, 2.0),
        _row("with updates on, 10 events/s: → hold in force", both),
        _row("with updates on, 10 events/s: → update at a webhook", update),
    ]


def _row(what: str, values: list[float]) -> dict[str, Any]:
    told = f"p50 {_centile(values, 50):.2f} ms, p99 {_centile(values, 99):.2f} ms, n {len(values)}"
    return {"what": what, "aim": "", "measured": told}


def _ratio(what: str, at: int, ours: list[float], bare: list[float], aim: float) -> dict[str, Any]:
    ratio = _centile(ours, at) / _centile(bare, at)
    return {"what": what, "aim": f"≤ {aim} ×", "measured": f"{ratio:.2f} ×", "met": ratio <= aim}


def _centile(values: list[float], at: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[at - 1]


def _apply(system: System, *, say: bool) -> None:
    # Incidents close after a second, so that the state is as small as on a bad day, not a bad year.
    rule = Rule(name="all", quiet_s=0, update_gap_s=0, close_after_s=1, take_back_s=0, say=say)
    policy = Policy(name="bench", rules=(rule,), messages={"en": WORDS})
    with system.client("detector", "admin") as admin:
        admin.put("/v1/policy", json=policy.model_dump(mode="json")).raise_for_status()


def _prepare(system: System) -> None:
    kafka: Any = KafkaAdminClient(bootstrap_servers=system.kafka)
    one = {"num_partitions": 1, "replication_factor": 1}
    kafka.create_topics({FIRST: one, SECOND: one}, wait_for_metadata=True)
    kafka.close()


async def _play(system: System, folder: Path) -> tuple[list[float], list[float]]:
    count = WARM + ROUNDS * PER_ROUND
    out = folder / "bare.json"
    run = [sys.executable, "-m", "tests.bench.bare"]
    forwarder = subprocess.Popen([*run, "forward", system.kafka])  # noqa: ASYNC220  # It stays.
    reader = subprocess.Popen([*run, "read", system.kafka, str(out), str(count)])  # noqa: ASYNC220
    producer = AIOKafkaProducer(bootstrap_servers=system.kafka, acks="all", enable_idempotence=True)
    await producer.start()
    bare: dict[str, float] = {}
    holds: dict[str, float] = {}
    chance = random.Random(SEED)
    try:
        for size in (WARM, *[PER_ROUND] * ROUNDS):
            for _ in range(size):
                name = str(len(bare))
                await producer.send_and_wait(FIRST, name.encode())
                bare[name] = time.time()
                await _pause(chance)
            for _ in range(size):
                await _one_event(producer, holds, chance)
        reader.wait(30)
    finally:
        await producer.stop()
        for process in (forwarder, reader):
            process.kill()
            process.wait()
    seen = json.loads(out.read_text())
    in_force = _in_force(system.data / "logs" / "publisher.log", set(holds))
    apart_bare = [(seen[name] - at) * 1000 for name, at in list(bare.items())[WARM:]]
    apart = [(in_force[name] - at) * 1000 for name, at in list(holds.items())[WARM:]]
    return apart_bare, apart


async def _one_event(producer: Any, holds: dict[str, float], chance: random.Random) -> None:
    disruption = f"bench-{len(holds)}"
    opened = await _emit(producer, disruption, "opened")
    holds[f"{opened.partition}-{opened.offset}"] = time.time()
    await _pause(chance)
    await _emit(producer, disruption, "resolved")
    await _pause(chance)


async def _emit(producer: Any, disruption: str, status: str) -> Any:
    event = Disruption.model_validate(_data(disruption, status))
    headers = envelope.write_headers(event, event_id=f"{disruption}-{status}", source="/bench")
    return await producer.send_and_wait(
        DISRUPTIONS.name,
        envelope.write_value(event),
        key=b"bench",
        headers=[(k, v.encode()) for k, v in headers.items()],
    )


async def _pause(chance: random.Random) -> None:
    await asyncio.sleep(chance.uniform(0.015, 0.035))


def _in_force(log: Path, events: set[str]) -> dict[str, float]:
    """Return when each hold was in force, by partition and offset of its event."""
    until_s = time.monotonic() + PATIENCE_S
    while events - (found := _holds_in(log)).keys():
        assert time.monotonic() < until_s, f"no hold for {sorted(events - found.keys())[:5]}"
        time.sleep(0.2)
    return found


def _holds_in(log: Path) -> dict[str, float]:
    found = {}
    for line in log.read_text().splitlines():
        if '"fact": "HoldOpened"' in line:
            told = json.loads(line)
            _, partition, offset, *_ = told["hold"].split("-")
            found[f"{partition}-{offset}"] = datetime.fromisoformat(told["timestamp"]).timestamp()
    return found


def _updates(system: System) -> tuple[list[float], list[float]]:
    """Emit events over HTTP, and look at the holds and at the webhook's record for their updates."""
    acknowledged, holds = {}, {}
    with system.client("detector", "emitter") as emitter:
        for number in range(UPDATES):
            name = f"spoken-{number}"
            data = _data(name, "opened")
            headers = {
                "ce-specversion": "1.0",
                "ce-id": name,
                "ce-source": "/b",
                "ce-type": Disruption.TYPE,
            }
            (told,) = (
                emitter.post("/v1/events", json=data, headers=headers).raise_for_status().json()
            )
            acknowledged[f"{name} is disrupted"] = time.monotonic()
            holds[f"{told['partition']}-{told['offset']}"] = time.time()
            time.sleep(0.1)
    in_force = _in_force(system.data / "logs" / "publisher.log", set(holds))
    seen = _heard(system, set(acknowledged))
    return (
        [(in_force[name] - at) * 1000 for name, at in holds.items()],
        [(seen[text] - at_s) * 1000 for text, at_s in acknowledged.items()],
    )


def _heard(system: System, texts: set[str]) -> dict[str, float]:
    """Return when the webhook took each text, by the sandbox's own record."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        record = httpx.get(f"{system.address('sandbox')}/sandbox/record", timeout=60).json()
        hooks = [seen for seen in record if seen["what"] == "hook"]
        heard = {json.loads(seen["text"])["data"]["text"]: seen["at_s"] for seen in hooks}
        if texts <= heard.keys():
            return heard
        assert time.monotonic() < until_s, f"not heard: {sorted(texts - heard.keys())[:5]}"
        time.sleep(0.2)


def _data(name: str, status: str) -> dict[str, Any]:
    return {
        "disruption_id": name,
        "network": "bench",
        "status": status,
        "title": name,
        "labels": {"line": name},
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
