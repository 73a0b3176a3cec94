"""What goes wrong in a campaign. Each act does one thing, undoes it, and returns what it was, in words.

Two hands act at once: the end of one's cut is the end of the other's.
"""

from __future__ import annotations

import random
import signal
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import httpx
from kafka import TopicPartition
from kafka.errors import KafkaError

from ops.embedded.system import System
from schemas.topics import DISRUPTIONS, DUE, HOLDS, OUTCOMES
from services.kit.topics import new_admin
from tests.faults.host import Host

# Up to longer than the lease, the session and a fence's 10 s.
PAUSES_S: Final = (0.01, 0.1, 0.3, 1.0, 4.0, 12.0)
CUTS_S: Final = (0.3, 1.0, 4.0, 12.0)
FULL_S: Final = (1.0, 4.0)
JUMPS_S: Final = (-3_600, -30, 30, 3_600)
JUMPED_S: Final = 6.0
LOSS_PERCENT: Final = 20
LATE_S: Final = (0.005, 0.05, 0.15)  # At most twice as much.
SLOW_S: Final = 0.3
DELETE_MS: Final = 10_000
POISON: Final = b"\xff{ not a record"
LAG: Final = "min.compaction.lag.ms"
Act = Callable[[], str]


class Acts:
    """The acts on one system."""

    def __init__(
        self, system: System, host: Host, luck: random.Random, producer: Any, sandbox: httpx.Client
    ) -> None:
        self.system, self.host, self.luck = system, host, luck
        self.producer, self.sandbox = producer, sandbox
        self.slow_times: list[tuple[float, float]] = []  # When the sandbox took SLOW_S for each.
        self.unread: list[tuple[float, float]] = []  # When events were written that nobody read.

    def choose(self) -> Act:
        """Draw one of those that this host allows."""
        acts: list[Act] = [
            self._kill, self._kill, self._ask_to_end, self._stop, self._stop, self._stop, self._stop_all,
            self._stop_all, self._kill_broker, self._kill_postgres, self._stop_engine,
            self._stop_quorum, self._slow, self._lose, self._poison_queue, self._poison_events,
            self._change_setting, self._lose_events,
        ]  # fmt: skip
        if self.host.can_cut:
            acts += [self._cut_broker, self._cut_controller, self._cut_postgres, self._lossy]
        if self.host.can_delay:
            acts += [self._delay, self._delay]
        if self.host.can_fill:
            acts += [self._full_disk]
        if self.host.can_jump:
            acts += [self._jump]
        return self.luck.choice(acts)

    def _named(self, *kinds: str) -> list[str]:
        return sorted(n for n in self.system.children if n.startswith(kinds))

    def _service(self) -> str:
        return self.luck.choice(self._named("detector", "publisher", "scheduler"))

    def _kill(self) -> str:
        name = self._service()
        self.system.children[name].tell(signal.SIGKILL)
        return f"SIGKILL of a {_kind(name)}"

    def _ask_to_end(self) -> str:
        """Ask a service to end, as each deployment does; whoever supervises starts it again."""
        name = self._service()
        self.system.children[name].tell(signal.SIGTERM)
        return f"SIGTERM of a {_kind(name)}"

    def _pause(self, names: list[str], what: str) -> str:
        pause_s = self.luck.choice(PAUSES_S)
        children = [self.system.children[name] for name in names]
        for child in children:
            child.tell(signal.SIGSTOP)
        time.sleep(pause_s)
        for child in children:
            child.tell(signal.SIGCONT)
        return f"SIGSTOP of {what}, {pause_s:g} s"

    def _stop(self) -> str:
        name = self._service()
        return self._pause([name], f"a {_kind(name)}")

    def _stop_all(self) -> str:
        kind = self.luck.choice(["detector", "publisher", "scheduler"])
        return self._pause(self._named(kind), f"every {kind}")

    def _stop_engine(self) -> str:
        name = self.luck.choice([*self.system.brokers, "postgres"])
        return self._pause([name], "PostgreSQL" if name == "postgres" else "a broker")

    def _stop_quorum(self) -> str:
        names = self.luck.sample(self.system.brokers, len(self.system.brokers) // 2 + 1)
        return self._pause(names, f"{len(names)} of {len(self.system.brokers)} brokers")

    def _kill_broker(self) -> str:
        self.system.children[self.luck.choice(self.system.brokers)].tell(signal.SIGKILL)
        time.sleep(1)
        return "SIGKILL of a broker"

    def _kill_postgres(self) -> str:
        self.system.children["postgres"].tell(signal.SIGQUIT)  # With commits in doubt.
        time.sleep(1)
        return "PostgreSQL ended at once"

    # The host.

    def _cut(self, names: list[str], what: str, percent: int = 100) -> str:
        cut_s = self.luck.choice(CUTS_S)
        self.host.cut([self.system.ports[name] for name in names], percent=percent)
        try:
            time.sleep(cut_s)
        finally:
            self.host.mend()
        return f"{what}, {cut_s:g} s"

    def _cut_broker(self) -> str:
        broker = self.luck.choice(self.system.brokers)
        return self._cut([broker, controller_of(broker)], "a broker cut off")

    def _cut_controller(self) -> str:
        broker = self.luck.choice(self.system.brokers)
        return self._cut([controller_of(broker)], "a controller cut off from the others")

    def _cut_postgres(self) -> str:
        return self._cut(["postgres"], "PostgreSQL cut off")

    def _lossy(self) -> str:
        names = [*self.system.brokers, "postgres", "sandbox"]
        return self._cut(names, f"{LOSS_PERCENT} % of all packets lost", LOSS_PERCENT)

    def _delay(self) -> str:
        """Let packets come late, by up to twice as much as is said, and so out of their order."""
        broker = self.luck.choice(self.system.brokers)
        names, whose = self.luck.choice([
            ([broker, controller_of(broker)], "a broker"), (self.system.brokers, "every broker"),
            (["postgres"], "PostgreSQL"), (["sandbox"], "the network that is published to"),
        ])  # fmt: skip
        late_s = self.luck.choice(LATE_S)
        ports = [self.system.ports[name] for name in names]
        with self.host.delayed(ports, base_s=late_s, jitter_s=late_s):
            time.sleep(self.luck.choice(CUTS_S))
        return f"packets of {whose} late, {late_s:g} s"

    def _full_disk(self) -> str:
        name = self.luck.choice([*self.system.brokers, "postgres"])
        self.host.fill(name)
        try:
            time.sleep(self.luck.choice(FULL_S))
        finally:
            self.host.free(name)
        return f"disk full, of {'PostgreSQL' if name == 'postgres' else 'a broker'}"

    def _jump(self) -> str:
        name, ahead_s = self._service(), self.luck.choice(JUMPS_S)
        self.host.set_clock(name, ahead_s)
        time.sleep(JUMPED_S)
        self.host.set_clock(name, 0)
        return f"wall clock of a {_kind(name)} {ahead_s:+d} s"

    # Records, settings, the network that is published to.

    def _poison_queue(self) -> str:
        topic = self.luck.choice([DUE.name, OUTCOMES.name])
        headers = [("ce_specversion", b"1.0"), ("ce_type", b"interlock.nothing.v9")]
        for _ in range(5):
            self.producer.send(topic, POISON, key=uuid.uuid4().hex.encode(), headers=headers)
        return f"records that nobody can read in {topic}"

    def _poison_events(self) -> str:
        """Write what nobody can read among the events: all is held until a person has looked."""
        try:
            self.producer.send(DISRUPTIONS.name, POISON, key=b"poison").get(timeout=30)
        except KafkaError:
            return "an event that nobody can read, which Kafka did not take"
        time.sleep(self.luck.uniform(1, 3))
        return "an event that nobody can read"

    def _lose_events(self) -> str:
        """Let Kafka delete what no detector has read, as retention does behind one that was away for a week."""
        detectors = [self.system.children[name] for name in self._named("detector")]
        for child in detectors:
            child.tell(signal.SIGSTOP)
        begin_s = time.monotonic()
        try:
            time.sleep(self.luck.uniform(0.3, 3))
            is_done = self._delete_events()
        finally:
            # Before anybody can see that they are gone.
            self.unread.append((begin_s, time.monotonic()))
            for child in detectors:
                child.tell(signal.SIGCONT)
        what = "events deleted unread"
        return what if is_done else f"{what}, or some of them: Kafka did not answer"

    def _delete_events(self) -> bool:
        every = {TopicPartition(DISRUPTIONS.name, p): -1 for p in range(DISRUPTIONS.partitions)}
        try:
            admin = new_admin(self.system.cluster)
            try:
                admin.delete_records(every, timeout_ms=DELETE_MS)
            finally:
                admin.close()
        except KafkaError:
            return False
        return True

    def _change_setting(self) -> str:
        lag = HOLDS.config[LAG]
        if not self._set_lag("1000"):
            return "a topic's setting, which Kafka did not change"
        time.sleep(3)
        while not self._set_lag(lag):
            time.sleep(1)
        return f"{LAG} of {HOLDS.name} changed"

    def _set_lag(self, value: str) -> bool:
        from kafka.admin import ConfigResource, ConfigResourceType

        try:
            admin = new_admin(self.system.cluster)
            try:
                changed = ConfigResource(ConfigResourceType.TOPIC, HOLDS.name, {LAG: value})
                admin.alter_configs([changed])
            finally:
                admin.close()
        except KafkaError:
            return False
        return True

    def _sandbox_does(self, **faults: Any) -> None:
        self.sandbox.put("/sandbox/faults", json=faults).raise_for_status()

    def _slow(self) -> str:
        begin_s = time.monotonic()
        self._sandbox_does(slow_s=SLOW_S)
        time.sleep(self.luck.uniform(1, 5))
        self._sandbox_does()
        self.slow_times.append((begin_s, time.monotonic() + SLOW_S))
        return "a slow network"

    def _lose(self) -> str:
        self._sandbox_does(lose_next=2, fail_next=2)
        time.sleep(2)
        self._sandbox_does()
        return "lost answers"


def _kind(name: str) -> str:
    return name.partition("-")[0]


def controller_of(broker: str) -> str:
    return broker.replace("kafka", "controller")
