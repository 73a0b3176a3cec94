"""What is passed over where a queue is full: taken once, in its order, and nothing is committed beyond it."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from services.publisher.passed import Passed

ROOM = 3  # Of each queue.
NAMES = "abc"


def test_others_go_on_where_a_queue_is_full() -> None:
    passed = Passed()
    log = ["a", "a", "b", "a", "b"]
    taken = [
        offset
        for offset, name in enumerate(log)
        if look(passed, name, offset, has_room=name != "a" or offset < 1)
    ]
    assert (taken, passed.floor) == ([0, 2, 4], 1)
    assert passed.begin_again(lambda _: False) is None
    assert passed.begin_again(lambda _: True) == 1
    assert [look(passed, log[o], o, has_room=True) for o in (1, 2, 3, 4)] == [
        True,
        False,
        True,
        False,
    ]
    assert passed.floors == {}


def test_a_reading_ends_where_all_are_full_again_and_goes_on_where_it_was() -> None:
    passed = Passed()
    for offset in range(10):
        look(passed, "a", offset, has_room=offset < 2)
    assert passed.begin_again(lambda _: True) == 2
    assert look(passed, "a", 2, has_room=True)
    assert not passed.admits("a", 3, has_room=False)
    assert passed.went_by(3) == 10
    assert passed.floor == 3


def test_what_is_to_be_read_again_and_is_deleted_keeps_nothing_behind_it() -> None:
    passed = Passed()
    for offset in range(3):
        look(passed, "a", offset, has_room=False)
    assert passed.begin_again(lambda _: True) == 0
    assert look(passed, "a", 7, has_room=True)
    assert passed.floors == {}


def look(passed: Passed, name: str, offset: int, *, has_room: bool) -> bool:
    taken = passed.admits(name, offset, has_room=has_room)
    assert passed.went_by(offset) is None
    return taken


class Reading:
    """A partition that is read at random, into queues that are emptied at random."""

    def __init__(self, seed: int) -> None:
        self.luck, self.passed = random.Random(seed), Passed()
        weights = [self.luck.random() + 0.05 for _ in NAMES]
        self.log = self.luck.choices(NAMES, weights=weights, k=80)
        self.in_hand, self.taken, self.position = Counter[str](), list[int](), 0

    def step(self) -> None:
        """Read a record, empty a queue a little, or look for room."""
        if self.position < len(self.log) and self.luck.random() < 0.7:
            self._read()
        elif self.luck.random() < 0.5:
            name = self.luck.choice(NAMES)
            self.in_hand[name] -= self.in_hand[name] > 0
        elif (begin := self.passed.begin_again(lambda name: self.in_hand[name] < ROOM)) is not None:
            self.position = begin

    def _read(self) -> None:
        position, name = self.position, self.log[self.position]
        if self.passed.admits(name, position, has_room=self.in_hand[name] < ROOM):
            self.taken.append(position)
            self.in_hand[name] += 1
        go_on = self.passed.went_by(position)
        if go_on is not None:
            self._read_rest_of_batch(go_on)
        self.position = position + 1 if go_on is None else go_on

    def _read_rest_of_batch(self, go_on: int) -> None:
        """Look at what was fetched with the record at which a reading ended: it comes all the same."""
        for offset in range(self.position + 1, self.luck.randint(self.position + 1, go_on)):
            is_free = self.luck.random() < 0.5
            assert not self.passed.admits(self.log[offset], offset, has_room=is_free)
            assert self.passed.went_by(offset) is None


@pytest.mark.parametrize("seed", range(300))
def test_each_is_taken_once_in_its_order_and_nothing_is_committed_beyond_one_that_was_not(
    seed: int,
) -> None:
    reading = Reading(seed)
    log, taken = reading.log, reading.taken
    for _ in range(20_000):
        reading.step()
        left = set(range(reading.passed.seen)) - set(taken)
        assert not left or reading.passed.floor <= min(left)
        if len(taken) == len(log):
            break
    assert sorted(taken) == list(range(len(log)))
    for name in NAMES:
        of_it = [offset for offset in taken if log[offset] == name]
        assert of_it == sorted(of_it)
