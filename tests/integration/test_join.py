"""A publisher that joins its group while Kafka does not answer: it tries again, and carries on with the rest."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError

from ops.embedded.system import System
from schemas.topics import DUE
from services.kit import broker as kafka
from services.kit.cluster import Cluster
from services.kit.topics import create_topics
from services.publisher import queues as module
from services.publisher.job import Job
from services.publisher.queues import Queues
from services.publisher.turns import InOrder

SILENCES = 2


def crash(why: str, error: BaseException | None = None) -> None:
    raise AssertionError(why) from error


async def nobody(_: Job) -> None:
    raise AssertionError("nothing is to be settled")


async def test_kafka_that_does_not_answer_is_asked_again(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ended by it, updates in hand and all."""
    topic, cluster = f"join.{uuid.uuid4().hex}", Cluster(system.kafka)
    queues, seen = Queues(replace(DUE, name=topic), group=topic, crash=crash), asyncio.Event()
    queues.turns = InOrder(nobody, crash=crash)
    await asyncio.to_thread(create_topics, cluster, [queues.topic], replicas=1)
    broker = kafka.new_broker(cluster, client_id=topic)

    async def handle(records: Sequence[kafka.Record]) -> None:
        assert [record.value for record in records] == [b"1"]
        seen.set()

    queues.read(broker, handle, instance="", at_once=False)
    async with kafka.connected(broker):
        await broker.start()
        await (await kafka.emit(broker, topic, b"1", headers={}))
        tries = _silence(monkeypatch)
        await queues.join()
        async with asyncio.timeout(60):
            await seen.wait()
        await queues.stop()
    assert len(tries) == SILENCES + 1


def _silence(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    tries: list[Any] = []
    bootstrap: Any = AIOKafkaClient.bootstrap
    monkeypatch.setattr(module, "JOIN_AGAIN_S", 0.0)

    async def silent_at_first(self: Any) -> None:
        tries.append(self)
        if len(tries) <= SILENCES:
            raise KafkaConnectionError("Unable to bootstrap")
        await bootstrap(self)

    monkeypatch.setattr(AIOKafkaClient, "bootstrap", silent_at_first)
    return tries
