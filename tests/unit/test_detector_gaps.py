"""Records of the log that are gone are said to be lost; a mark of a transaction is passed."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from prometheus_client import CollectorRegistry

from schemas import envelope
from schemas.disruptions import PolicyApplied
from schemas.holds import HoldOpened
from schemas.topics import DISRUPTIONS
from services.detector.outbox import Outbox
from services.detector.state import State
from services.detector.stream import Partition, Stream
from services.kit.cluster import Cluster
from services.kit.telemetry import Clock
from tests.builders import AT, a_disruption, a_policy
from tests.simulation.log import Stored

TP = TopicPartition(DISRUPTIONS.name, 0)


class Consumer:
    """A consumer of one partition, wherever it believes to be."""

    def __init__(self) -> None:
        self.place, self.start = 0, 0

    def assignment(self) -> set[TopicPartition]:
        return {TP}

    async def position(self, _: TopicPartition) -> int:
        return self.place

    async def beginning_offsets(self, _: Any) -> dict[TopicPartition, int]:
        return {TP: self.start}


def a_record(offset: int, body: Any) -> Any:
    headers = envelope.write_headers(body, event_id=str(offset), source="/test", at=AT)
    return Stored(
        topic=DISRUPTIONS.name, partition=0, offset=offset, timestamp=int(AT.timestamp() * 1000),
        key=None, value=envelope.write_value(body),
        headers=tuple((name, text.encode()) for name, text in headers.items()),
    )  # fmt: skip


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return what the detector says."""
    found: list[Any] = []

    async def emit(_: Any, output: Any, event_id: str, **__: Any) -> None:
        found.append(output)

    monkeypatch.setattr(Outbox, "emit", emit)
    return found


def a_stream(consumer: Consumer) -> Stream:
    broker: Any = SimpleNamespace(subscriber=lambda *_, **__: lambda _: None)
    made = Stream(
        broker, cluster=Cluster(""), instance="", clock=Clock(), registry=CollectorRegistry(),
        crash=lambda *_: None,
    )  # fmt: skip
    made.disruptions = SimpleNamespace(consumer=consumer)  # type: ignore[assignment]
    made.partitions[0] = Partition(state=State(), offset=1, saved_offset=0)
    return made


POLICY = PolicyApplied(policy=a_policy(), author="maya")
EVENT = a_disruption(status="opened")


async def test_what_is_not_there_and_was_not_deleted_is_a_mark(said: list[Any]) -> None:
    consumer = Consumer()
    stream, consumer.place = a_stream(consumer), 3
    await stream.on_disruptions([a_record(2, EVENT)])
    assert (stream.partitions[0].offset, stream.losses) == (3, 0)
    assert [one for one in said if isinstance(one, HoldOpened)], "it was folded"


async def test_a_hold_for_lost_records_is_as_old_as_what_comes_behind_them(said: list[Any]) -> None:
    """A detector whose wall clock was an hour behind opened it an hour ago, and all offers since were taken back."""
    consumer = Consumer()
    stream, consumer.place, consumer.start = a_stream(consumer), 6, 5
    stream.clock = SimpleNamespace(now=lambda: AT - timedelta(hours=1))  # type: ignore[assignment]
    await stream.on_disruptions([a_record(5, POLICY)])
    (hold,) = [one for one in said if isinstance(one, HoldOpened)]
    assert (hold.opened_at, hold.hold_id) == (AT, "hold-0-5-0")
    assert (stream.partitions[0].offset, stream.losses) == (6, 1)
