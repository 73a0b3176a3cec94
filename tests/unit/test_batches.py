"""Calls made together: none waits for nobody, each has its own answer, a failure is everybody's."""

from __future__ import annotations

import asyncio

import pytest

from services.kit import batches
from services.kit.batches import Batches


class Acts:
    """What a batch does, when it is told to."""

    def __init__(self) -> None:
        self.taken: list[list[int]] = []
        self.goes_on = asyncio.Event()
        self.fails = False

    async def __call__(self, items: list[int]) -> list[int]:
        self.taken.append(items)
        await self.goes_on.wait()
        if self.fails:
            raise OSError
        return [item * 10 for item in items]


async def all_waiting(made: Batches[int, int], *items: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(made.add(item)) for item in items]
    await asyncio.wait(tasks, timeout=0)  # They begin,
    await asyncio.wait(tasks, timeout=0)  # and the batches that they begin.
    return tasks


@pytest.mark.parametrize("at_once", [1, 2])
async def test_those_who_wait_are_taken_together_and_each_has_its_answer(at_once: int) -> None:
    acts = Acts()
    made = Batches(acts, at_once=at_once)
    tasks = await all_waiting(made, 1, 2)
    tasks += await all_waiting(made, 3, 4)
    assert len(acts.taken) == at_once
    acts.goes_on.set()
    assert await asyncio.gather(*tasks) == [10, 20, 30, 40]
    assert acts.taken == [[1, 2], [3, 4]]


async def test_a_batch_has_its_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "MOST", 2)
    acts = Acts()
    tasks = await all_waiting(Batches(acts), 1, 2, 3)
    acts.goes_on.set()
    assert await asyncio.gather(*tasks) == [10, 20, 30]
    assert acts.taken == [[1, 2], [3]]


async def test_what_a_batch_raises_all_of_its_callers_raise_and_the_next_goes_on() -> None:
    acts = Acts()
    made = Batches(acts)
    acts.fails = True
    acts.goes_on.set()
    assert {
        type(one) for one in await asyncio.gather(made.add(1), made.add(2), return_exceptions=True)
    } == {OSError}
    acts.fails = False
    assert await made.add(3) == 30


async def test_who_adds_as_the_last_batch_ends_is_taken() -> None:
    async def act(items: list[int]) -> list[int]:
        return items

    made = Batches(act)
    for number in range(10):  # Each comes in another turn of the loop behind the batch before.
        first = asyncio.create_task(made.add(number))
        for _ in range(number):
            await asyncio.wait([first], timeout=0)
        async with asyncio.timeout(10):
            assert await made.add(number) == number
            assert await first == number
