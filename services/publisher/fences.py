"""Fences, begun whenever offers wait and now and then: at most one in flight, and all waiting offers share it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from schemas.disruptions import Fence as FenceRecord
from schemas.holds import FencePassed
from schemas.topics import DISRUPTIONS, FENCE_KEY
from services.kit import broker as kafka
from services.publisher.brokers_clock import BrokersClock
from services.publisher.fence import VOID_AFTER_S, Fence, begin
from services.publisher.gate import Passed
from services.publisher.outbox import Outbox
from services.publisher.partitions import Partitions

FENCE_GAP_S: Final = 0.02  # Not more often than this, however many offers wait.
PROBE_S: Final = 2.0  # An idle system measures its pause latency by a fence all the same.
FENCE_RETRY_S: Final = 0.5
UNWRITTEN_S: Final = 60.0
BUCKETS: Final = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
log = structlog.get_logger()


class Fences:
    """One publisher's fences. `ring` is called when one has passed."""

    def __init__(
        self,
        outbox: Outbox,
        counted: Partitions,
        *,
        publisher: str,
        ring: Callable[[], None],
        clock: BrokersClock,
        registry: CollectorRegistry,
        crash: kafka.Crash,
    ) -> None:
        self.outbox, self.counted, self.publisher = outbox, counted, publisher
        self._ring, self.clock, self.crash = ring, clock, crash
        self.passed: Passed | None = None
        self.own_echo = f"{FENCE_KEY}{publisher}/".encode()
        self._flying: Fence | None = None
        self._all_read = asyncio.Event()
        self._wanted = asyncio.Event()
        self._wanted.set()  # The first fence is begun at once: behind it we are ready.
        self._number, self._written_s = 0, clock.monotonic_s()
        self.seconds = Histogram(
            "interlock_fence_seconds", "Fence round trip.", buckets=BUCKETS, registry=registry
        )
        self.ends = Counter(
            "interlock_fences_total", "Fences by their end.", ["end"], registry=registry
        )
        age = Gauge(
            "interlock_fence_age_seconds", "Since the last passed fence.", registry=registry
        )
        age.set_function(self.age_s)

    def want(self) -> None:
        """Ask for a fence: somebody waits for one, or will soon."""
        self._wanted.set()

    def age_s(self) -> float:
        """Return seconds since the newest passed fence was begun; infinite where none has."""
        return self.clock.monotonic_s() - self.passed.begun_s if self.passed else float("inf")

    def on_echo(self, echo: FencePassed) -> None:
        """Take an echo of one of our own fences."""
        assert echo.number <= self._number, "an echo of a fence that we have not begun"
        if self._flying is not None:
            self._flying = self._flying.echo(echo.number, echo.partition)
            if self._flying.passed:
                self._all_read.set()

    async def keep_on(self) -> None:
        """Begin a fence whenever one is wanted, and now and then, for ever."""
        while True:
            try:
                async with asyncio.timeout(PROBE_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            begun_s, wall_at = self.clock.monotonic_s(), self.clock.host.now()
            try:
                await self._one(begun_s, wall_at)
            except Exception as error:  # Any of aiokafka's: without a fence offers wait.
                self.ends.labels("failed").inc()
                log.error("no fence", why=str(error) or type(error).__name__)
                if begun_s - self._written_s > UNWRITTEN_S:  # Our client may know no living broker.
                    self.crash(f"Kafka took no fence in {UNWRITTEN_S:.0f} s", error)
                await asyncio.sleep(FENCE_RETRY_S)
            await asyncio.sleep(max(0.0, begun_s + FENCE_GAP_S - self.clock.monotonic_s()))

    async def _one(self, begun_s: float, wall_at: datetime) -> None:
        self._number += 1
        self._all_read.clear()
        self._flying = begin(self._number, now_s=begun_s, partitions=DISRUPTIONS.partitions)
        # Behind its begin: is there a partition that no fence is written to?
        counted = asyncio.create_task(self.counted.must_be_as_declared())
        try:
            async with asyncio.timeout(VOID_AFTER_S):
                logged = await self._write()
                await counted
                await self._all_read.wait()
        finally:
            counted.cancel()
            fence, self._flying = self._flying, None
        now_s = self.clock.monotonic_s()
        assert fence is not None, "nobody else takes it away"
        if fence.void(now_s):
            raise TimeoutError(f"fence {fence.number} took {now_s - begun_s:.1f} s and is void")
        # A disruption of the same millisecond may stand behind it.
        begun_at = logged[0] - timedelta(milliseconds=1)
        self.clock.hear(logged[len(logged) // 2], at_s=begun_s)  # One broker may be wrong.
        self.passed = Passed(number=fence.number, begun_s=fence.begun_s, begun_at=begun_at, wall_at=wall_at)  # fmt: skip
        self.seconds.observe(now_s - fence.begun_s)
        self.ends.labels("passed").inc()
        self._ring()

    async def _write(self) -> list[datetime]:
        """Write a fence to every partition; return the brokers' times of it, the earliest first."""
        record = FenceRecord(publisher=self.publisher, number=self._number)
        event_id = f"{self.publisher}-{self._number}"
        acks = [
            await self.outbox.emit(DISRUPTIONS, record, event_id, partition=partition)
            for partition in range(DISRUPTIONS.partitions)
        ]
        done = await asyncio.gather(*acks)
        self._written_s = self.clock.monotonic_s()
        return sorted(datetime.fromtimestamp(one.timestamp / 1000, UTC) for one in done)
