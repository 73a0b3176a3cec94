"""Whose turn it is: what does not get through keeps few others waiting, and an incident's updates their order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from services.publisher.job import Job
from services.publisher.turns import UPDATES_AT_ONCE, InOrder
from tests.builders import AT, a_post

REST_S = 0.05


def never(why: str, error: BaseException | None = None) -> None:
    raise AssertionError(why) from error


class Network:
    """Takes what it bears, in no time; keeps in which order it was asked."""

    def __init__(self) -> None:
        self.asked, self.taken, self.overtaken = list[str](), list[str](), list[str]()
        self.bears: Callable[[str], bool] = lambda _: True
        self.hangs: set[str] = set()
        self.lets_by: set[str] = set()
        self.turns = InOrder(self._settle, crash=never)

    async def _settle(self, job: Job) -> None:
        name = job.post.post_id
        self.asked.append(name)
        if name in self.hangs:
            await asyncio.Event().wait()
        if self.bears(name):
            self.taken.append(name)
            job.again_s, job.is_out = 0, True
        elif job.overtaken:
            self.overtaken.append(name)
            job.again_s = 0
        else:
            job.again_s, job.lets_by = REST_S, name in self.lets_by
            job.failures += 1

    def put(self, *names: str) -> list[Job]:
        """Give it updates, named `incident-number`."""
        jobs = [
            Job(
                a_post(post_id=name, kind="update", incident_id=incident, due_at=at),
                1, lambda _: None, steps_aside=True,
            )
            for name in names
            for incident, number in [name.split("-")]
            for at in [AT + timedelta(seconds=int(number))]
        ]  # fmt: skip
        for job in jobs:
            self.turns.put(job)
        return jobs

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not what():  # noqa: ASYNC110  # Tasks of the turns'.
                await asyncio.sleep(0.02)


async def test_an_update_that_hangs_stops_its_own_incident_and_not_all() -> None:
    network = Network()
    network.hangs = {f"stuck{n}-0" for n in range(UPDATES_AT_ONCE - 1)}
    others = [f"other{n}-0" for n in range(9)]
    network.put(*network.hangs, *(f"stuck{n}-1" for n in range(UPDATES_AT_ONCE - 1)), *others)
    await network.until(lambda: set(network.taken) == set(others))
    assert set(network.asked) == {*network.hangs, *others}
    await network.turns.stop()


async def test_an_incidents_updates_wait_for_its_first_and_no_other_incident_does() -> None:
    network = Network()
    network.bears = lambda name: name != "a-0"
    network.put("a-0", "a-1", "b-0", "b-1")
    await network.until(lambda: network.asked.count("a-0") > 2)
    assert network.taken == ["b-0", "b-1"]
    network.bears = lambda _: True
    await network.until(lambda: network.taken == ["b-0", "b-1", "a-0", "a-1"])
    assert not network.turns._lines
    await network.turns.stop()


async def test_one_that_is_tried_for_long_lets_the_next_ones_by() -> None:
    """A text that a network answered with 500 kept its incident's `resolved` waiting for a day."""
    network = Network()
    network.bears, network.lets_by = lambda name: name != "a-0", {"a-0"}
    network.put("a-0", "a-1", "a-2")
    await network.until(lambda: network.taken == ["a-1", "a-2"])
    assert network.asked == ["a-0", "a-1", "a-0", "a-2"], "it ends when a later one is out"
    assert network.overtaken == ["a-0"]
    await network.turns.stop()


async def test_an_earlier_one_that_comes_again_overtakes_nobody() -> None:
    """A detector that begins again says again what it has said, and it stands behind what was said since."""
    network = Network()
    network.bears, network.lets_by = lambda name: name != "a-1", {"a-1"}
    network.put("a-1", "a-0")
    await network.until(lambda: network.asked.count("a-1") > 2)
    assert (network.taken, network.overtaken) == (["a-0"], [])
    await network.turns.stop()


async def test_one_that_comes_again_behind_a_later_one_is_overtaken_too() -> None:
    network = Network()
    network.bears, network.lets_by = lambda _: False, {"a-0", "a-1"}
    network.put("a-0", "a-1", "a-0")
    await network.until(lambda: network.asked[:3] == ["a-0", "a-1", "a-0"])
    network.bears = lambda name: name == "a-1"
    await network.until(lambda: network.overtaken == ["a-0", "a-0"])
    assert network.taken == ["a-1"]
    await network.turns.stop()


async def test_what_has_not_failed_is_said_wherever_it_stands() -> None:
    """A detector that was killed had written the later one alone."""
    network = Network()
    network.put("a-1", "a-0")
    await network.until(lambda: network.taken == ["a-1", "a-0"])
    await network.turns.stop()


async def test_one_that_comes_behind_those_that_let_it_by_is_tried_at_once_and_behind_them() -> (
    None
):
    network = Network()
    network.bears, network.lets_by = lambda name: name == "a-2", {"a-0", "a-1"}
    network.put("a-0", "a-1")
    await network.until(lambda: network.asked[-2:] == ["a-0", "a-1"])
    network.put("a-2")
    await network.until(lambda: network.taken == ["a-2"])
    before = network.asked.index("a-2")
    assert network.asked[before - 2 : before] == ["a-0", "a-1"]
    await network.until(lambda: network.overtaken == ["a-0", "a-1"])
    await network.turns.stop()


async def test_behind_an_outage_all_go_out_in_their_order() -> None:
    network = Network()
    given = [f"a-{n}" for n in range(5)]
    network.bears, network.lets_by = lambda _: False, set(given[:2])
    network.put(*given)
    await network.until(lambda: network.asked.count("a-0") > 2)
    rounds = " ".join(network.asked).split("a-0")
    assert set(rounds[1:-1]) == {" a-1 a-2 "}, "up to the first that lets nobody by"
    network.bears = lambda _: True
    await network.until(lambda: sorted(network.taken) == given)
    assert network.taken == given
    assert network.asked[-5:] == network.taken
    await network.turns.stop()


async def test_what_went_to_another_publisher_stops_nobody() -> None:
    network = Network()
    network.bears = lambda _: False
    (left,) = network.put("a-0")
    await network.until(lambda: network.asked == ["a-0"])
    left.dropped, network.bears = True, lambda _: True
    network.put("a-1")
    await network.until(lambda: network.taken == ["a-1"])
    assert network.asked == ["a-0", "a-1"]
    await network.turns.stop()
