"""The services of one schedule: started as `app.py` wires them, killed, and started again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import count
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pytest
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry
from sqlalchemy.exc import OperationalError

from services.detector import store as detector_store
from services.detector import stream as detector_stream
from services.detector.orphans import keep_ending
from services.detector.stream import Stream as DetectorStream
from services.detector.views import Views
from services.kit import broker as kafka
from services.kit.cluster import Cluster
from services.publisher import failures
from services.publisher import partitions as publisher_partitions
from services.publisher import queues as publisher_queues
from services.publisher.accounts import WebhookAccount
from services.publisher.brokers_clock import BrokersClock
from services.publisher.delivery import Delivery
from services.publisher.paces import Paces
from services.publisher.stream import Carries
from services.publisher.stream import Stream as PublisherStream
from services.publisher.takeback import TakeBack
from services.scheduler import again
from services.scheduler import desk as scheduler_desk
from services.scheduler import stream as scheduler_stream
from services.scheduler.lane_store import LaneStore
from services.scheduler.store import Store
from services.scheduler.stream import Stream as SchedulerStream
from tests.simulation.clients import Admin, Broker, SnapshotConsumer
from tests.simulation.ledger import MemoryStore, Rows
from tests.simulation.log import Log
from tests.simulation.loop import PROCESS, Process, SimClock

if TYPE_CHECKING:
    from tests.simulation.world import World

LEASE_S: Final = 0.25
SNAPSHOT_EVERY_S: Final = 0.5  # Often, so that a schedule sees what follows.
NAMES: Final = ("detector-1", "detector-2", "publisher-1", "publisher-2")
SCHEDULERS: Final = ("scheduler-1", "scheduler-2")
APART: Final[dict[str, Carries]] = {"publisher-1": "offers", "publisher-2": "updates"}
QUEUE_JOBS: Final = 2  # Where it is crowded, so that offers are passed over.
APART_EVERY: Final = 5  # In each fifth evening offers and updates have a publisher each.
LET_BY_S: Final = 5.0  # Shorter than in life, and longer than any stop.
STALE_S: Final = 3.0  # Shorter than in life, as well.
BEGUN_S: Final = 0.01
TICK_S: Final = 0.3  # Longer: each costs a dozen real round trips.


class Ended(BaseException):
    """A process ends itself: nothing of it runs behind this."""


class Plant:
    """The processes of the services, and what they share: the ledger's rows."""

    def __init__(self, world: World) -> None:
        self.database = world.database
        self.names = (*NAMES, *SCHEDULERS) if self.database else NAMES
        self.world, self.loop, self.log, self.chance = world, world.loop, world.log, world.chance
        self.processes: dict[str, Process] = {}
        self.streams: dict[str, Any] = {}
        self.views: dict[str, Views] = {}  # Of the detectors.
        self.rows, self.database_faults, self.lives = Rows(self.loop.wall), 0.0, 0
        self.accounts: Any = {
            name: WebhookAccount.model_validate(
                {"channel": "webhook", "url": "http://x", "secret": "s" * 16, "updates": "{}"}
            )
            for name in world.networks
        }

    def publishers(self) -> list[Any]:
        """Return the streams of the publishers as they run now."""
        return [s for name, s in sorted(self.streams.items()) if name.startswith("publisher")]

    def detectors(self) -> list[tuple[DetectorStream, Views]]:
        """Return the detectors as they run now, and what they show people."""
        return [(self.streams[name], views) for name, views in sorted(self.views.items())]

    def begin(self, name: str) -> None:
        """Start a service."""
        process = self.processes[name] = Process(name)
        self.lives += 1
        kinds = {
            "detector": self._detector, "publisher": self._publisher, "scheduler": self._scheduler,
        }  # fmt: skip
        main = kinds[name.partition("-")[0]]
        self.world.say(f"{name} starts")
        self.loop.spawn(process, self._run(process, main))

    async def _run(self, process: Process, main: Callable[[Process], Any]) -> None:
        try:
            await main(process)
        except (KafkaError, OperationalError) as error:  # A supervisor tries again.
            self.kill(process.name, f"could not start, or end: {error!r}")
        else:
            self.kill(process.name, "has ended, as it was asked to")

    def kill(self, name: str, why: str = "is killed") -> None:
        process = self.processes[name]
        if process.is_alive:
            self.world.say(f"{name} {why}")
            process.is_alive = False
            if self.database is not None:
                self.database.forget(process)
            self.loop.outside(self.chance.uniform(0.1, 2.5), lambda: self.begin(name))

    def _crash_of(self, process: Process) -> Callable[..., NoReturn]:
        def crash(why: str, error: BaseException | None = None) -> NoReturn:
            if self.world.is_over or not process.is_alive:
                raise Ended
            if self.processes[process.name] is process:
                self.kill(process.name, f"ends itself: {why} ({error!r})")
            if not isinstance(error, Exception) or not _is_allowed(error):
                self.world.fail(f"{process.name} ended itself: {why} ({error!r})")
            raise Ended

        return crash

    async def _detector(self, process: Process) -> None:
        broker: Any = Broker(self.log, process)
        crash = self._crash_of(process)
        stream = DetectorStream(
            broker, cluster=Cluster(""), instance=process.name, clock=SimClock(self.loop, process),
            registry=CollectorRegistry(), crash=crash,
        )  # fmt: skip
        views = Views(broker, registry=CollectorRegistry(), crash=crash)
        self.streams[process.name], self.views[process.name] = stream, views
        await broker.start()
        loops = (
            stream.keep_snapshots(), stream.keep_time(), views.read(), keep_ending(stream, views),
        )  # fmt: skip
        async with kafka.background(crash, *loops):
            await _asked(process)
        await stream.on_revoked(list(stream.partitions))

    async def _publisher(self, process: Process) -> None:
        broker: Any = Broker(self.log, process)
        crash, clock = self._crash_of(process), BrokersClock(SimClock(self.loop, process))
        publisher = f"{process.name}-{self.lives}"
        stream = PublisherStream(
            broker, cluster=Cluster(""), publisher=publisher, instance=process.name, accounts=self.accounts,
            lease_s=LEASE_S, clock=clock, registry=CollectorRegistry(), crash=crash,
            carries=APART[process.name] if self.world.seed % APART_EVERY == 0 else "all",
        )  # fmt: skip
        store = MemoryStore(self.rows, publisher=publisher, take_turn=self.take_turn)
        channels: Any = {
            name: network.channel(clock) for name, network in self.world.networks.items()
        }
        paces = Paces(store.engine, clock=clock)
        shared: Any = {
            "clock": clock,
            "emit": stream.outbox.emit_outcome,
            "chance": self.chance.random,
        }
        take_back = TakeBack(store, channels, self.accounts, paces, say=stream.say, **shared)
        stream.deliver_by(Delivery(store, channels, stream.gate, paces, take_back, **shared))
        self.streams[process.name] = stream
        await stream.start()
        loops = (
            stream.gate.fences.keep_on(), stream.keep_retractions(),
            *(queues.keep_commits() for queues in stream.carried),
        )  # fmt: skip
        async with kafka.background(crash, *loops):
            await _asked(process)
            await stream.end_sends()
        await stream.stop()

    async def _scheduler(self, process: Process) -> None:
        assert self.database is not None, "without a queue there is no scheduler"
        broker: Any = Broker(self.log, process)
        crash, engine = self._crash_of(process), self.database.engine(process)
        stream = SchedulerStream(
            broker, Store(engine), LaneStore(engine), instance=process.name,
            clock=SimClock(self.loop, process), registry=CollectorRegistry(), crash=crash,
        )  # fmt: skip
        self.streams[process.name] = stream
        await stream.start()
        loops = (
            stream.keep_claiming(), stream.keep_handing_over(), stream.keep_recording(),
            stream.keep_commits(),
        )  # fmt: skip  # Nothing is decided by counts.
        async with kafka.background(crash, *loops):
            await _asked(process)
        await stream.stop()

    @asynccontextmanager
    async def take_turn(self) -> AsyncIterator[None]:
        """Go to the database and back; a fault may come before the commit, or behind it."""
        await asyncio.sleep(self.log.delay_s() / 2)
        if self.chance.random() < self.database_faults:
            raise OperationalError("BEGIN", {}, Exception("no connection"))
        yield
        await asyncio.sleep(self.log.delay_s() / 2)
        if self.chance.random() < self.database_faults:
            raise OperationalError("COMMIT", {}, Exception("the answer was lost"))


async def _asked(process: Process) -> None:
    """Return when a process is asked to end; what it has just begun runs by then."""
    await asyncio.sleep(BEGUN_S)
    await process.asked.wait()


def _is_allowed(error: Exception) -> bool:
    """Say whether a service may end itself for this: what cannot be written is not passed over."""
    return "expired" in str(error)


@contextmanager
def in_place(log: Log, *, is_crowded: bool) -> Iterator[None]:
    """Let the two places that make clients of their own make ours, and be short and small what is long and large."""

    def consumer(**_: Any) -> SnapshotConsumer:
        process = PROCESS.get()
        assert process is not None
        return SnapshotConsumer(log, process)

    numbers = count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector_store, "AIOKafkaConsumer", consumer)
        patch.setattr(publisher_partitions, "AIOKafkaAdminClient", lambda **_: Admin(log))
        patch.setattr(detector_stream, "SNAPSHOT_EVERY_S", SNAPSHOT_EVERY_S)
        patch.setattr(again, "CLAIM_STALE_S", STALE_S)
        patch.setattr(failures, "LET_BY_S", LET_BY_S)
        patch.setattr(scheduler_stream, "TICK_S", TICK_S)
        if is_crowded:
            patch.setattr(publisher_queues, "QUEUE_JOBS", QUEUE_JOBS)
            patch.setattr(publisher_queues, "RESUME_JOBS", 1)
        patch.setattr(scheduler_desk, "new_id", lambda: f"offer-{next(numbers)}")
        yield
