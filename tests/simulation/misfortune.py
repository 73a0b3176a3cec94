"""What goes wrong: drawn by a seed of its own, numbered, so that each can be left out."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from schemas.topics import DISRUPTIONS, HOLDS
from tests.simulation.log import SLOW
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from tests.simulation.world import World

COMPACTION_LAG_S: Final = 3_600.0
SELDOM: Final = 0.01  # How often a step takes long when faults have ended: a fence is many of them.
USUAL: Final = 0.08  # How often a network fails in each way when nothing is wrong.
BUSY_CLEANER: Final = 0.3  # In so many schedules the log cleaner runs all the time.
CUT_EVERY: Final = 5  # In so many schedules one loses records: then people have to release.
JUMPS_S: Final = (-3_600.0, -20.0, -0.3, 0.3, 20.0, 3_600.0)
CUTS: Final = 6  # Its weight among the other faults there.


class Misfortune:
    """The faults of one schedule, until they end."""

    def __init__(self, world: World, *, without: frozenset[int]) -> None:
        self.world, self.log, self.loop, self.plant = world, world.log, world.loop, world.plant
        self.luck, self.without, self.count = random.Random(f"faults of {world.seed}"), without, 0
        self.are_on, self.victim, self.while_s = True, "", 0.0

    @property
    def cuts(self) -> bool:
        """Say whether records are lost in this schedule."""
        return self.world.seed % CUT_EVERY == 0

    async def draw(self) -> None:
        """Draw faults until they end."""
        acts = [
            self._kill_one, self._kill_one, self._ask_one_to_end, self._stop_one, self._stop_one, self._cut_off_one,
            self._no_quorum, self._slow_network, self._bad_database, self._bad_channels,
            self._clean, self._bad_batches, self._jump,
        ]  # fmt: skip
        acts += [self._cut_log] * (CUTS if self.cuts else 0)
        for network in self.world.networks.values():
            network.faults = USUAL
        rate = self.luck.choice([0.3, 1.0, 3.0])
        if self.luck.random() < BUSY_CLEANER:
            self.world.spawn(self._clean_often())
        while True:
            await asyncio.sleep(self.luck.expovariate(rate))
            if not self.are_on:
                return
            act, self.count = self.luck.choice(acts), self.count + 1
            self.victim = self.luck.choice(sorted(self.plant.processes))
            self.while_s = self.luck.choice([0.05, 0.3, 0.6, 1.5, 3.0]) * self.luck.uniform(
                0.5, 1.5
            )
            if self.count not in self.without:
                act()

    def end(self) -> None:
        """Let no more go wrong; what was begun for a while comes to its end."""
        self.are_on, self.log.slow = False, SELDOM
        for network in self.world.networks.values():
            network.faults = 0.0

    def _some(self) -> Process:
        return self.plant.processes[self.victim]

    def _kill_one(self) -> None:
        self.plant.kill(self._some().name)

    def _ask_one_to_end(self) -> None:
        self.world.say(f"{self._some().name} is asked to end")
        self._some().asked.set()

    def _for_a_while(self, what: str, begin: Callable[[], None], end: Callable[[], None]) -> None:
        wait_s = self.while_s
        self.world.say(f"{what} for {wait_s:.2f} s")
        begin()
        self.loop.outside(wait_s, end)

    def _stop_one(self) -> None:
        process = self._some()
        if process.is_alive and not process.is_stopped:
            self._for_a_while(
                f"{process.name} is stopped",
                lambda: _stop(process),
                lambda: self.loop.go_on(process),
            )

    def _cut_off_one(self) -> None:
        process = self._some()
        self._for_a_while(
            f"{process.name} is cut off from Kafka",
            lambda: self.log.cut_off.add(process), lambda: self.log.cut_off.discard(process),
        )  # fmt: skip

    def _no_quorum(self) -> None:
        def up(is_up: bool) -> None:
            self.log.is_up = is_up

        self._for_a_while("Kafka does not answer", lambda: up(False), lambda: up(True))

    def _slow_network(self) -> None:
        def slow(how_often: float) -> None:
            self.log.slow = how_often

        self._for_a_while(
            "the network is slow",
            lambda: slow(0.4),
            lambda: slow(SLOW if self.are_on else SELDOM),
        )

    def _bad_database(self) -> None:
        def bad(how_often: float) -> None:
            self.plant.database_faults = how_often

        self._for_a_while("the database fails", lambda: bad(0.3), lambda: bad(0.0))

    def _bad_channels(self) -> None:
        def bad(how_often: float) -> None:
            for network in self.world.networks.values():
                network.faults = how_often

        self._for_a_while("the channels fail", lambda: bad(0.4), lambda: bad(USUAL * self.are_on))

    def _bad_batches(self) -> None:
        def bad(how_often: float) -> None:
            self.log.fails = how_often

        self._for_a_while("some batches cannot be written", lambda: bad(0.2), lambda: bad(0.0))

    def _jump(self) -> None:
        """Let a process's wall clock be wrong for a while; a new life of it has the right one."""
        process, by_s = self._some(), JUMPS_S[self.count % len(JUMPS_S)]

        def ahead(seconds: float) -> None:
            process.skew_s += seconds

        self._for_a_while(
            f"the wall clock of {process.name} is {by_s:+.0f} s off",
            lambda: ahead(by_s),
            lambda: ahead(-by_s),
        )

    def _cut_log(self) -> None:
        name, partition = DISRUPTIONS.name, self.count % DISRUPTIONS.partitions
        self.log.delete(name, partition, self.log.topics[name][partition].end)
        self.world.say(f"retention removes all of partition {partition}")

    async def _clean_often(self) -> None:
        while self.are_on:
            await asyncio.sleep(self.luck.uniform(0.02, 0.2))
            self.log.compact(HOLDS.name, older_than_s=COMPACTION_LAG_S)

    def _clean(self) -> None:
        gone = self.log.compact(HOLDS.name, older_than_s=COMPACTION_LAG_S)
        self.world.say(f"the cleaner removes {gone} records of {HOLDS.name}")


def _stop(process: Process) -> None:
    process.is_stopped = True
