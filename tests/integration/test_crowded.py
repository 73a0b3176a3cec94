"""Two accounts on one partition of a real Kafka, one of them with more offers than a publisher takes in hand."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace

import pytest
from aiokafka import TopicPartition

from ops.embedded.system import System
from schemas.topics import DUE
from services.kit import broker as kafka
from services.kit.cluster import Cluster
from services.kit.topics import create_topics
from services.publisher import queues as module
from services.publisher.job import Job
from services.publisher.queues import Queues
from services.publisher.turns import SideBySide
from tests.builders import a_post

IN_HAND, RESUMES = 20, 10
LOG = ["slow"] * 200 + ["quick"] * 50 + ["slow"] * 100 + ["quick"] * 50


def crash(why: str, error: BaseException | None = None) -> None:
    raise AssertionError(why) from error


class Crowd:
    """The queues of both accounts; what the slow one is to send waits for `may`."""

    def __init__(self, topic: str) -> None:
        self.queues = Queues(replace(DUE, name=topic, partitions=1), group=topic, crash=crash)
        self.queues.passes_over = True
        self.queues.turns = SideBySide(self._settle, parallel=lambda _: 1, crash=crash)
        self.sent: dict[str, list[int]] = {"slow": [], "quick": []}
        self.may = asyncio.Event()

    async def _settle(self, job: Job) -> None:
        if job.post.account == "slow":
            await self.may.wait()
        self.sent[job.post.account].append(int(job.post.post_id))
        job.ends()

    async def handle(self, records: Sequence[kafka.Record]) -> None:
        for record in records:
            if self.queues.wants(record):
                assert record.key is not None
                assert record.value is not None
                post = a_post(post_id=record.value.decode(), account=record.key.decode())
                self.queues.take(record, [post], attempt=1, traceparent="")
            self.queues.went_by(record)

    async def until(self, *, slow: int, quick: int) -> None:
        async with asyncio.timeout(60):
            while (len(self.sent["slow"]), len(self.sent["quick"])) != (slow, quick):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_an_account_with_too_many_offers_keeps_no_other_of_its_partition_waiting(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its partition rested until it had room, and with it every other account that Kafka keeps there."""
    monkeypatch.setattr(module, "QUEUE_JOBS", IN_HAND)
    monkeypatch.setattr(module, "RESUME_JOBS", RESUMES)
    monkeypatch.setattr(module, "COMMIT_EVERY_S", 0.05)
    topic, cluster = f"crowded.{uuid.uuid4().hex}", Cluster(system.kafka)
    crowd = Crowd(topic)
    await asyncio.to_thread(create_topics, cluster, [crowd.queues.topic], replicas=1)
    broker = kafka.new_broker(cluster, client_id=topic)
    crowd.queues.read(broker, crowd.handle, instance="", at_once=True)
    async with kafka.connected(broker):
        for number, account in enumerate(LOG):
            ack = await kafka.emit(broker, topic, str(number).encode(), headers={}, key=account)
        await ack
        await broker.start()
        commits = asyncio.create_task(crowd.queues.keep_commits())
        await crowd.until(slow=0, quick=LOG.count("quick"))
        consumer, tp = crowd.queues.subscription.consumer, TopicPartition(topic, 0)
        await crowd.queues._commit()
        assert not await consumer.committed(tp), "the first of the slow ones is not settled"
        crowd.may.set()
        await crowd.until(slow=LOG.count("slow"), quick=LOG.count("quick"))
        await crowd.queues._commit()
        assert await consumer.committed(tp) == len(LOG)
        commits.cancel()
        await crowd.queues.stop()
    for account, sent in crowd.sent.items():
        assert sent == [number for number, name in enumerate(LOG) if name == account]
