"""What the gate knows: the holds that are open, and the fence that vouches for them; and who waits for a change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog
from prometheus_client import CollectorRegistry, Gauge, Histogram

from schemas import envelope
from schemas.base import Record
from schemas.holds import FencePassed, HoldOpened, HoldReleased, OpenHolds
from schemas.posts import Post
from schemas.topics import FENCE_KEY, HOLDS
from services.kit import broker as kafka
from services.kit.telemetry import trace_id
from services.publisher.brokers_clock import BrokersClock
from services.publisher.fences import BUCKETS, PROBE_S, Fences
from services.publisher.gate import Cleared, Passed, Verdict, Waiting, judge
from services.publisher.history import History
from services.publisher.outbox import Outbox
from services.publisher.partitions import Partitions

log = structlog.get_logger()


class Gatekeeper:
    """One publisher's view of `ops.holds`, and the judge of its posts."""

    def __init__(
        self,
        outbox: Outbox,
        counted: Partitions,
        *,
        publisher: str,
        lease_s: float,
        on_opened: Callable[[HoldOpened], None],
        clock: BrokersClock,
        registry: CollectorRegistry,
        crash: kafka.Crash,
    ) -> None:
        self.lease_s, self.clock, self._on_opened = lease_s, clock, on_opened
        self.holds = OpenHolds()
        self.waiting_count = 0
        self._history: History | None = History()  # Until our first echo is read.
        self._bell = asyncio.Event()
        self._alarm: asyncio.TimerHandle | None = None
        self.fences = Fences(
            outbox, counted, publisher=publisher, ring=self._ring, clock=clock, registry=registry,
            crash=crash,
        )  # fmt: skip
        self.hold_seconds = Histogram(
            "interlock_hold_seconds",
            "From a disruption's broker time to its hold in force here.",
            buckets=BUCKETS,
            registry=registry,
        )
        gauges: dict[str, tuple[str, Callable[[], float]]] = {
            "interlock_waiting_offers": ("Offers at the gate.", lambda: self.waiting_count),
            "interlock_open_holds": ("Holds now open.", lambda: len(self.holds)),
        }
        for name, (text, value) in gauges.items():
            Gauge(name, text, registry=registry).set_function(value)

    @property
    def passed(self) -> Passed | None:
        """Return the newest fence that has passed; before the first one all holds are history."""
        return self.fences.passed

    def judge(self, post: Post) -> Verdict:
        """Judge a post by what is known now; one that waits asks for a fence."""
        verdict = judge(
            post,
            open_holds=self.holds,
            passed=self.passed,
            now_s=self.clock.monotonic_s(),
            now=self.clock.now(),
            lease_s=self.lease_s,
            wall=self.clock.host.now(),
        )
        if isinstance(verdict, Waiting) or self._is_half_spent(verdict):
            self.fences.want()
        return verdict

    def _is_half_spent(self, verdict: Verdict) -> bool:
        # While offers flow the next fence is begun before this one is too old: none has to wait.
        return (
            isinstance(verdict, Cleared)
            and verdict.post.kind == "offer"
            and self.fences.age_s() > self.lease_s / 2
        )

    async def changed(self) -> None:
        """Wait until a fence has passed or a hold has opened or ended; or a while, for all who wait."""
        if self._alarm is None:  # A latest useful time passes without a bell.
            self._alarm = asyncio.get_running_loop().call_later(PROBE_S, self._ring)
        self.waiting_count += 1
        try:
            await self._bell.wait()
        finally:
            self.waiting_count -= 1

    async def knows(self) -> None:
        """Wait until a first fence has passed: until then a hold that we read may have ended since."""
        while self.passed is None:
            await self._bell.wait()

    def _ring(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None
        self._bell.set()
        self._bell = asyncio.Event()

    async def on_holds(self, records: Sequence[kafka.Record]) -> None:
        """Take records of `ops.holds`, in their order."""
        for record in records:
            key = record.key or b""
            if key.startswith(FENCE_KEY.encode()) and not key.startswith(self.fences.own_echo):
                continue
            if self._history is not None:
                if self._history.take(key, record.headers, record.value):
                    continue
                self._end_history(self._history)  # Our own echo: all before it was seen.
            found = _fact_of(record.headers, record.value, where=f"offset {record.offset}")
            self._on_fact(found.record, trace=trace_id(found.traceparent))

    def _end_history(self, history: History) -> None:
        """Read what is still open of all there was before our first echo."""
        self.holds.released_before(history.released)
        for hold_id, (headers, value) in history.still_open().items():
            found = _fact_of(headers, value, where=hold_id)
            assert isinstance(found.record, HoldOpened), "a key says what its record is"
            assert found.record.hold_id == hold_id, "a key says which hold its record is of"
            self._on_fact(found.record, trace=trace_id(found.traceparent))
        log.info("holds read", released=len(history.released), open=len(self.holds))
        self._history = None

    def _on_fact(self, fact: Record, *, trace: str) -> None:
        if isinstance(fact, FencePassed):
            self.fences.on_echo(fact)
            return
        assert isinstance(fact, HoldOpened | HoldReleased)
        if not self.holds.apply(fact):
            return
        log.info("hold", fact=type(fact).__name__, hold=fact.hold_id, trace=trace)
        self._ring()
        if isinstance(fact, HoldOpened):
            if self.passed is not None:  # Before that it is history that we read.
                since_s = (self.clock.now() - fact.opened_at).total_seconds()
                self.hold_seconds.observe(max(0.0, since_s))
            self._on_opened(fact)


def _fact_of(
    headers: Sequence[tuple[str, bytes]], value: bytes | None, *, where: str
) -> envelope.Envelope:
    found = envelope.read(headers, value, allowed=HOLDS.records)
    if isinstance(found, envelope.Unreadable):
        raise TypeError(f"{HOLDS.name}, {where}: {found.error}")
    return found
