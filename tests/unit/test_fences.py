"""A fence tells the brokers' time, whatever the host's clock says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry

from schemas.disruptions import Fence
from schemas.holds import FencePassed
from schemas.topics import DISRUPTIONS
from services.kit.telemetry import Clock
from services.publisher.brokers_clock import BrokersClock
from services.publisher.fences import Fences
from tests.builders import AT

MILLISECOND = timedelta(milliseconds=1)


@dataclass
class Behind(Clock):
    """A host whose wall clock is an hour behind; its steady clock stands until it is told to go on."""

    steady_s: float = 1_000.0

    def now(self) -> datetime:
        return AT - timedelta(hours=1)

    def monotonic_s(self) -> float:
        return self.steady_s


@dataclass
class Brokers:
    """Kafka as a fence sees it: it takes the records of a fence, and says when that was, by partition."""

    times: Sequence[datetime]
    echo: Any = None
    written: list[int] = field(default_factory=list)

    async def emit(self, _topic: Any, record: Fence, _id: str, *, partition: int) -> Any:
        self.written.append(partition)
        done = asyncio.get_running_loop().create_future()
        done.set_result(SimpleNamespace(timestamp=int(self.times[partition].timestamp() * 1000)))
        echo = FencePassed(publisher=record.publisher, number=record.number, partition=partition)
        asyncio.get_running_loop().call_soon(self.echo, echo)
        return done

    async def must_be_as_declared(self) -> None:
        return


async def passed_of(brokers: Brokers, clock: BrokersClock) -> Any:
    """Begin fences until one has passed, and return it."""
    rung, kafka = asyncio.Event(), SimpleNamespace(outbox=brokers)
    fences = Fences(
        kafka.outbox, kafka.outbox, publisher="p", ring=rung.set, clock=clock,
        registry=CollectorRegistry(), crash=lambda *_: None,
    )  # fmt: skip
    brokers.echo = fences.on_echo
    task = asyncio.create_task(fences.keep_on())
    await rung.wait()
    task.cancel()
    return fences.passed


async def test_a_passed_fence_tells_the_brokers_time_and_the_steady_clock_goes_on() -> None:
    host = Behind()
    clock = BrokersClock(host)
    assert clock.now() == host.now(), "nobody has told it yet"
    brokers = Brokers([AT] * DISRUPTIONS.partitions)
    passed = await passed_of(brokers, clock)
    assert sorted(brokers.written) == list(range(DISRUPTIONS.partitions))
    assert (passed.begun_s, passed.wall_at) == (host.steady_s, host.now())
    assert clock.now() == AT
    host.steady_s += 60
    assert clock.now() == AT + timedelta(minutes=1)


async def test_a_broker_whose_clock_is_wrong_does_not_set_ours_and_the_proof_takes_the_earliest() -> (
    None
):
    wrong = AT - timedelta(hours=1)
    times = [wrong if partition % 3 == 0 else AT for partition in range(DISRUPTIONS.partitions)]
    clock = BrokersClock(Behind())
    passed = await passed_of(Brokers(times), clock)
    assert clock.now() == AT
    assert passed.begun_at == wrong - MILLISECOND
