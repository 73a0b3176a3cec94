"""One schedule: an evening in which everything goes wrong that its seed draws, and what must hold.

While faults last: whenever an offer begins to go out, no disruption that covers it was acknowledged a
lease ago and stands (Silence). When they have ended: what stands is held, by every publisher; what
went out just before is taken back; every update was said, unless a network never took it, and none
behind a later one of its incident; no offer stands twice; and when all is over every offer is accounted for, and no
hold is open.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from aiokafka.errors import KafkaError

from schemas import envelope
from schemas.base import Record
from schemas.disruptions import Disruption, PolicyApplied, ReleaseHold
from schemas.incidents import StatusUpdate
from schemas.posts import Outcome, Post
from schemas.topics import DISRUPTIONS, DUE, OUTCOMES, TOPICS, UPDATES, key_of
from services.detector.fold import LOST
from services.detector.orphans import known_in, orphans
from services.kit import broker as kafka
from services.publisher.ledger import Capabilities, Entry
from services.publisher.takeback import is_within
from tests.builders import a_policy, a_rule
from tests.simulation.clients import Broker
from tests.simulation.database import Database, Server
from tests.simulation.ledger import Network
from tests.simulation.log import Log, Stored
from tests.simulation.loop import EPOCH, Loop, Process, Stuck
from tests.simulation.misfortune import Misfortune
from tests.simulation.offers import LINES, NETWORKS, Direct, Offers, Queued
from tests.simulation.plant import LEASE_S, Plant, in_place
from tests.simulation.updates import Updates

FAULTS_S: Final = 6.0
SETTLE_S: Final = 240.0  # Made-up time: a rebalance, a void fence, retries, a circuit that opens twice for a minute.
LOOK_S: Final = 0.25
TAKE_BACK_S: Final = 120
CROWDED_EVERY: Final = 3  # In so many schedules queues are full with two posts in hand.


class World:
    """One schedule."""

    def __init__(
        self, seed: int, *, without: frozenset[int] = frozenset(), server: Server | None = None
    ) -> None:
        self.seed, self.chance, self.loop = seed, random.Random(seed), Loop()
        self.is_crowded = seed % CROWDED_EVERY == 0
        self.broken: list[str] = []
        self.is_over, self.written = False, 0
        self.story: list[str] = []
        self.loop.tell = self.say
        counts = {topic.name: topic.partitions for topic in TOPICS} | {
            DUE.name: 2,  # Both accounts are on the same one.
            OUTCOMES.name: 4,
        }
        self.log = Log(self.loop, self.chance, counts)
        self.log.on_append = self._see
        ever = Capabilities(
            idempotent_s=float("inf"), can_delete=True, reads_back="exact", threads=True
        )
        never = Capabilities(idempotent_s=0, can_delete=True, threads=True)
        self.networks = {
            "social": Network("social", ever, self.chance, self.loop),
            "plain": Network("plain", never, self.chance, self.loop),
        }
        self.updates = Updates(self)
        for network in self.networks.values():
            network.on_begin = self.check_silence
            network.refuses, network.on_made = self.updates.refuses, self.updates.on_made
        self.harness, self.is_queued = Process("world"), server is not None
        self.database = None if server is None else Database(server, self)
        self.offers: Offers = Queued(self, self.database) if self.database else Direct(self)
        self.plant = Plant(self)
        self.misfortune = Misfortune(self, without=without)
        # Scope to id to when acknowledged.
        self.stands: dict[tuple[str, str], dict[str, float]] = {}

    def say(self, text: str) -> None:
        self.story.append(f"{self.loop.now_s:8.4f}  {text}")

    def _see(self, record: Stored) -> None:
        if record.topic not in (OUTCOMES.name, UPDATES.name):
            return
        found = envelope.read(record.headers, record.value, allowed=(Outcome, StatusUpdate))
        assert isinstance(found, envelope.Envelope)
        if isinstance(found.record, StatusUpdate):
            self.updates.see(found.record, record.offset)
            return
        assert isinstance(found.record, Outcome)
        self.offers.on_outcome(found.record)

    def check_silence(self, post: Post) -> None:
        """Look, when an offer begins to go out, whether it may."""
        if post.kind == "update":
            return
        if why := self.offers.objection(post):
            self.fail(f"{post.post_id} goes out; {why}")
        scope = (post.labels["network"], post.labels["line"])
        for name, at_s in self.stands.get(scope, {}).items():
            if at_s + LEASE_S <= self.loop.now_s:
                self.fail(
                    f"{post.post_id} goes out; {name}, which covers it, was acknowledged "
                    f"{self.loop.now_s - at_s:.3f} s ago"
                )

    def fail(self, why: str) -> None:
        self.say(f"WRONG: {why}")
        self.broken.append(why)

    def spawn(self, act: Any) -> None:
        """Begin something that belongs to no service."""
        self.loop.spawn(self.harness, act)

    async def write(self, topic: str, record: Record, *, partition: int | None = None) -> Stored:
        self.written += 1
        headers = envelope.write_headers(
            record, event_id=f"event-{self.written}", source="/control-room",
            at=EPOCH + timedelta(seconds=self.loop.now_s),
        )  # fmt: skip
        while True:
            future: Any = await kafka.emit(
                self.outside, topic, envelope.write_value(record), headers=headers,
                key=key_of(record), partition=partition,
            )  # fmt: skip
            try:
                stored: Stored = await future
            except KafkaError:  # Whoever emits tries again.
                continue
            return stored

    async def report(self, network: str, line: str, name: str, *, is_over: bool) -> None:
        """Report a disruption, or its end; from the acknowledgement on it stands."""
        record = Disruption(
            disruption_id=name, network=network, status="resolved" if is_over else "opened",
            title=f"Trains are standing ({name})", labels={"line": line},
        )  # fmt: skip
        scope = self.stands.setdefault((network, line), {})
        if is_over:
            scope.pop(name, None)  # From here on it may end.
        await self.write(DISRUPTIONS.name, record)
        if not is_over:
            scope[name] = self.loop.now_s
        self.say(f"{name} on {network}/{line} is {'over' if is_over else 'acknowledged'}")

    async def evening(self) -> None:
        """Offers and disruptions at random times, while faults last."""
        names = 0
        while self.loop.now_s < FAULTS_S:
            await asyncio.sleep(self.chance.expovariate(4))
            if self.chance.random() < 0.6:
                self.spawn(self.offers.add())
                continue
            standing = [(s, n) for s, names_ in self.stands.items() for n in names_]
            if standing and self.chance.random() < 0.4:
                (network, line), name = self.chance.choice(sorted(standing))
                await self.report(network, line, name, is_over=True)
                continue
            names += 1
            where = self.chance.choice(NETWORKS), self.chance.choice(LINES)
            await self.report(*where, f"train-{names}", is_over=False)

    async def play(self) -> None:
        """Play the evening, and look at it."""
        self.outside: Any = Broker(self.log, self.harness)
        policy = PolicyApplied(policy=a_policy(a_rule(take_back_s=TAKE_BACK_S)), author="setup")
        for partition in range(DISRUPTIONS.partitions):
            await self.write(DISRUPTIONS.name, policy, partition=partition)
        await self.offers.begin()
        for name in self.plant.names:
            self.plant.begin(name)
        self.spawn(self.misfortune.draw())
        await self.evening()
        self.misfortune.end()
        self.say("faults end")
        await self._until("what stands is held by every publisher", self._is_held)
        await self._until("what covers it is taken back", self._is_taken_back)
        for (network, line), names in sorted(self.stands.items()):
            for name in sorted(names):
                await self.report(network, line, name, is_over=True)
        self.spawn(self._release_precautions())
        await self._until("every hold is released", self._is_released)
        await self._until("what nobody knows any more is over", self._unknown)
        await self._until("every offer is accounted for", self.offers.unsettled)
        await self._until("every update was said", self.updates.unsaid)
        self._stands_once()

    async def _release_precautions(self) -> None:
        """Release, as a person would, what is held since records were lost, and what lost its end.

        What lost its beginning, so that no detector knows it, ends by itself.
        """
        while self.misfortune.cuts:
            known = {
                name
                for stream, _ in self.plant.detectors()
                for ours in stream.partitions.values()
                for name in known_in(ours.state)
            }
            held = {
                hold.hold_id
                for stream in self.plant.publishers()
                for hold in stream.gate.holds
                if hold.reason == LOST or hold.hold_id in known
            }
            for hold_id in sorted(held):
                over = ReleaseHold(hold_id=hold_id, reason="all is over", author="maya")
                for partition in range(DISRUPTIONS.partitions):
                    await self.write(DISRUPTIONS.name, over, partition=partition)
            await asyncio.sleep(1)

    async def _until(self, what: str, look: Callable[[], Any]) -> None:
        until_s = self.loop.now_s + SETTLE_S
        while not self.broken and (missing := look()):
            if self.loop.now_s > until_s:
                self.fail(f"not within {SETTLE_S:.0f} s: {what}: {missing}")
            await asyncio.sleep(LOOK_S)

    def _is_held(self) -> list[str]:
        return [
            f"{network}/{line} at {stream.publisher}"
            for (network, line), names in sorted(self.stands.items())
            for stream in self.plant.publishers()
            if names and stream.gate.holds.covering({"network": network, "line": line}) is None
        ]

    def _is_taken_back(self) -> list[str]:
        known = [(s, n) for s, names in self.stands.items() for n in names]
        scopes = {scope for scope, _ in known}
        return [
            key
            for network in self.networks.values()
            for key, post in network.standing.items()
            if post.kind == "offer" and (post.labels["network"], post.labels["line"]) in scopes
            and self._can_be_taken_back(network, key, post)
        ]  # fmt: skip

    def _can_be_taken_back(self, network: Network, key: str, post: Post) -> bool:
        row, told = self.plant.rows.get(post.post_id), network.told.get(key)
        if row is None or row.state in ("retracted", "retraction_failed"):
            return False
        # Where one can look, or lives who was told, somebody knows; of a thread a part may stand alone.
        can_look = network.can.reads_back == "exact"
        is_known = (can_look or (told is not None and told.is_alive)) and not post.thread
        may = is_known or row.state in ("intent", "sent", "retracting")
        is_asked = not self.misfortune.cuts or row.done_at is None or self._is_asked_back(row)
        return may and is_asked

    def _is_asked_back(self, row: Entry) -> bool:
        """Say whether a hold takes it back: of what was deleted unread nobody knows what it covered before."""
        holds = (hold for stream in self.plant.publishers() for hold in stream.gate.holds)
        return any(hold.covers(row.labels) and is_within(row, hold) for hold in holds)

    def _is_released(self) -> list[str]:
        return [
            f"{hold.hold_id} at {stream.publisher}"
            for stream in self.plant.publishers()
            for hold in stream.gate.holds
        ]

    def _unknown(self) -> list[str]:
        """Return the holds and incidents that people are shown, and that no detector knows any more."""
        return [
            str(one)
            for stream, views in self.plant.detectors()
            for kind in orphans(views.holds, views.incidents.values(), stream.partitions)
            for one in kind
        ]

    def _stands_once(self) -> None:
        for network in self.networks.values():
            for key, count in network.made.items():
                if (
                    key.split(".")[0] in self.offers.results and count > 1
                ):  # A thread's parts have numbers.
                    self.fail(f"{key} was made {count} times on {network.name}")

    def run(self) -> World:
        """Play it on a loop of its own, in which real modules find our Kafka."""
        asyncio.set_event_loop(None)
        with in_place(self.log, is_crowded=self.is_crowded):
            main = self.loop.create_task(self.play())
            main.add_done_callback(lambda _: self.loop.stop())
            try:
                self.loop.run_forever()
                main.result()
            except Stuck:
                self.fail("nothing can happen any more")
            finally:
                self.is_over = True
                self.loop.end()
        return self
