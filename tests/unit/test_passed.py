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


@pytest.mark.parametrize("seed", range(300))
def test_each_is_taken_once_in_its_order_and_nothing_is_committed_beyond_one_that_was_not(
    seed: int,
) -> None:
    luck, passed = random.Random(seed), Passed()
    log = luck.choices(NAMES, weights=[luck.random() + 0.05 for _ in NAMES], k=80)
    in_hand, taken, position = Counter[str](), list[int](), 0
    for _ in range(20_000):
        if len(taken) == len(log):
            break
        if position < len(log) and luck.random() < 0.7:
            name = log[position]
            if passed.admits(name, position, has_room=in_hand[name] < ROOM):
                taken.append(position)
                in_hand[name] += 1
            go_on = passed.went_by(position)
            position = position + 1 if go_on is None else go_on
        elif luck.random() < 0.5 and (name := luck.choice(NAMES)) and in_hand[name]:
            in_hand[name] -= 1
        elif (begin := passed.begin_again(lambda name: in_hand[name] < ROOM)) is not None:
            position = begin
        left = set(range(passed.seen)) - set(taken)
        assert not left or passed.floor <= min(left)
    assert sorted(taken) == list(range(len(log)))
    for name in NAMES:
        of_it = [offset for offset in taken if log[offset] == name]
        assert of_it == sorted(of_it)
