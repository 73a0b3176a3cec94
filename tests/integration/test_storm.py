"""Four detectors in an alert storm, of which one is killed and one stopped: nothing is lost or said anew.

What must have been said is known: the log is folded once more, here, in one piece.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from kafka import KafkaProducer

from ops.embedded.system import System
from schemas import envelope
from schemas.base import Record
from schemas.disruptions import Fence
from schemas.holds import FencePassed, HoldOpened, HoldReleased
from schemas.incidents import Incident, StatusUpdate
from schemas.topics import DISRUPTIONS, HOLDS, INCIDENTS, UPDATES
from services.detector.fold import fold
from services.detector.state import Entry, State
from tests.bench.detector import POLICY, TRAINS, a_storm
from tests.builders import a_disruption
from tests.journey import Journey, wait_for

EVENTS, NETWORKS = 4_000, 8
KILL_AT, STOP_AT, BACK_AT = 1_000, 2_000, 3_000
PATIENCE_S = 90
DETECTORS = ("detector", "detector-2", "detector-3", "detector-4")


@pytest.fixture
def four(new_system: Callable[..., System], request: pytest.FixtureRequest) -> Iterator[System]:
    """Return a system with four detectors; with a mutant of them, see tests/mutant.py, if one is named."""
    made = new_system(copies={"detector": 4}, sandbox=False)
    if mutant := getattr(request, "param", None):
        command = [sys.executable, "-m", "tests.mutant", mutant, "detector"]
        made.launch |= dict.fromkeys(DETECTORS, command)
    with made as running:
        yield running


def test_a_rebalance_in_a_storm_loses_and_repeats_nothing_visible(four: System) -> None:
    rain(four)
    assert_nothing_is_lost(four)


@pytest.mark.skipif(
    "INTERLOCK_LONG" not in os.environ, reason="another storm: with INTERLOCK_LONG=1"
)
@pytest.mark.parametrize("four", ["forgetful"], indirect=True)
def test_detectors_that_forget_their_state_are_found_out(four: System) -> None:
    rain(four)
    with pytest.raises(AssertionError, match="was lost"):
        assert_nothing_is_lost(four)


def rain(four: System) -> None:
    """Let a storm come down, in which one detector is killed, one is stopped, and one comes back."""
    with four.client("detector", "admin") as admin:
        rules = [POLICY.rules[0].model_copy(update={"quiet_s": 0, "update_gap_s": 1})]
        policy = POLICY.model_copy(update={"rules": tuple(rules)}).model_dump(mode="json")
        admin.put("/v1/policy", json=policy).raise_for_status()
    producer: Any = KafkaProducer(bootstrap_servers=four.kafka, acks="all", linger_ms=5)
    events = itertools.islice(a_storm("storm", changes=0.05), EVENTS)
    for number, event in enumerate(events):
        network = f"storm-{number % NETWORKS}"
        put(producer, event.model_copy(update={"network": network}), str(number), key=network)
        if number == KILL_AT:
            four.children["detector-2"].stop(signal.SIGKILL)
        if number == STOP_AT:
            four.children["detector-3"].stop(signal.SIGTERM)
        if number == BACK_AT:
            four.replace("detector-2", four.launch.get("detector-2"))
    for train in (t for t in range(TRAINS) if t % NETWORKS < NETWORKS // 2):
        network = f"storm-{train % NETWORKS}"
        over = a_disruption(disruption_id=f"train-{train}", network=network, status="resolved")
        put(producer, over, f"over-{train}", key=network)
    for partition in range(DISRUPTIONS.partitions):
        put(producer, Fence(publisher="storm", number=1), f"f{partition}", partition=partition)
    producer.close()


def put(
    producer: Any, record: Record, event_id: str, *, key: str = "", partition: Any = None
) -> None:
    headers = envelope.write_headers(record, event_id=event_id, source="/storm")
    producer.send(
        DISRUPTIONS.name,
        value=envelope.write_value(record),
        key=key.encode() or None,
        partition=partition,
        headers=[(name, text.encode()) for name, text in headers.items()],
    )


def assert_nothing_is_lost(system: System) -> None:
    reader = Journey(system)
    wait_for(
        "the echo of each partition", lambda: echoes(reader) == set(range(4)), patience_s=PATIENCE_S
    )
    ends = {p: echo_offset(reader, p) for p in range(DISRUPTIONS.partitions)}
    wanted = said_by_the_log(reader, ends)
    found = [
        record
        for topic in (HOLDS, UPDATES, INCIDENTS)
        for record in read(reader, topic.name)
        if not isinstance(record, FencePassed)
    ]
    for kind, name in (
        (HoldOpened, "hold_id"),
        (HoldReleased, "hold_id"),
        (StatusUpdate, "update_id"),
    ):
        must = {getattr(r, name): r for r in wanted if isinstance(r, kind)}
        have: dict[str, list[Record]] = {}
        for record in found:
            if isinstance(record, kind):
                have.setdefault(getattr(record, name), []).append(record)
        assert must, f"no {kind.__name__} was to be said: the test is about nothing"
        assert must.keys() <= have.keys(), f"{kind.__name__} was lost"
        for one, record in must.items():
            others = [again for again in have[one] if again != record]
            assert others == [], f"{one} was said in two ways: {record!r}"
    last = {r.incident_id: r for r in wanted if isinstance(r, Incident)}
    assert len(last) == NETWORKS * 5
    shown = {(r.incident_id, r.model_dump_json()) for r in found if isinstance(r, Incident)}
    assert {(i, r.model_dump_json()) for i, r in last.items()} <= shown


def read(reader: Journey, topic: str) -> Iterator[Record]:
    for record in reader.read_all(topic):
        found = envelope.read(record.headers, record.value, allowed=tuple(envelope.TYPES.values()))
        assert isinstance(found, envelope.Envelope)
        yield found.record


def echoes(reader: Journey) -> set[int]:
    found = (r for r in read(reader, HOLDS.name) if isinstance(r, FencePassed))
    return {echo.partition for echo in found if echo.publisher == "storm"}


def echo_offset(reader: Journey, partition: int) -> int:
    """Return the offset of our fence on a partition: what was said before it has been said."""
    for record in reader.read_all(DISRUPTIONS.name):
        if record.partition == partition and b'"publisher":"storm"' in (record.value or b""):
            return int(record.offset)
    raise AssertionError("the fence is not there")


def said_by_the_log(reader: Journey, ends: dict[int, int]) -> list[Record]:
    """Fold each partition from its beginning to our fence, in one piece."""
    said: list[Record] = []
    states = dict.fromkeys(ends, State())
    for record in reader.read_all(DISRUPTIONS.name):
        if record.offset >= ends[record.partition]:
            continue
        headers = [(name, value) for name, value in record.headers]
        found = envelope.read(headers, record.value, allowed=DISRUPTIONS.records)
        assert isinstance(found, envelope.Envelope)
        entry = Entry(
            partition=record.partition,
            offset=record.offset,
            at=datetime.fromtimestamp(record.timestamp / 1000, UTC),
            body=found.record,
            event_id=found.event_id,
            source=found.source,
        )
        step = fold(states[record.partition], entry)
        states[record.partition] = step.state
        said += step.outputs
    return said
