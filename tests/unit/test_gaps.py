"""What a Kafka client passed over is read again, once; what was compacted, deleted or sought is no surprise."""

from __future__ import annotations

from aiokafka import TopicPartition

from services.kit.gaps import Gaps
from tests.unit.test_broker import a_record


class Consumer:
    def __init__(self) -> None:
        self.sought: list[tuple[int, int]] = []

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.sought.append((tp.partition, offset))


class Reading:
    """Records of partitions as they come from a client, and what is handed on."""

    def __init__(self, *, from_start: bool = False) -> None:
        self.consumer, self.gaps = Consumer(), Gaps(from_start=from_start)

    def hand_on(self, *places: tuple[int, int]) -> list[tuple[int, int]]:
        records = [a_record(*place) for place in places]
        return [(r.partition, r.offset) for r in self.gaps.see(self.consumer, records)]


def test_what_is_missing_is_read_before_what_is_behind_it_and_other_partitions_go_on() -> None:
    one = Reading()
    assert one.hand_on((0, 5), (1, 2)) == [(0, 5), (1, 2)]
    assert one.hand_on((0, 8), (1, 3), (0, 9)) == [(1, 3)]
    assert one.consumer.sought == [(0, 6)]
    assert one.hand_on((0, 6), (0, 7), (0, 8)) == [(0, 6), (0, 7), (0, 8)]


def test_what_is_not_there_the_second_time_either_is_passed() -> None:
    one = Reading()
    one.hand_on((0, 5))
    assert one.hand_on((0, 8)) == []
    assert one.hand_on((0, 8), (0, 9)) == [(0, 8), (0, 9)]
    assert one.hand_on((0, 12)) == [], "another gap"
    assert one.consumer.sought == [(0, 6), (0, 10)]


def test_what_was_sought_is_expected_and_after_a_rebalance_nothing_is() -> None:
    one = Reading()
    one.hand_on((0, 5))
    one.gaps.goes_on(0, 50)
    assert one.hand_on((0, 50)) == [(0, 50)]
    one.gaps.goes_on(0, 20)
    assert one.hand_on((0, 22)) == []
    assert one.consumer.sought == [(0, 20)]
    one.gaps.forget()
    assert one.hand_on((0, 70)) == [(0, 70)]


def test_a_batch_of_a_compacted_topic_is_read_twice_and_no_more() -> None:
    one = Reading(from_start=True)
    batch = [(0, 5), (0, 8), (0, 9), (0, 12)]
    assert one.hand_on(*batch) == []
    assert one.hand_on(*batch, (0, 13)) == [*batch, (0, 13)]
    assert one.consumer.sought == [(0, 0)]


def test_what_was_passed_over_in_what_was_there_before_is_found_among_what_was_compacted() -> None:
    """A release that was passed over so when a publisher started: it held offers until it was started again."""
    one = Reading(from_start=True)
    assert one.hand_on((0, 0), (0, 1), (0, 8), (0, 9), (0, 12)) == [(0, 0), (0, 1)]
    assert one.hand_on((0, 5), (0, 8), (0, 9), (0, 12)) == [(0, 5), (0, 8), (0, 9), (0, 12)]
    assert one.consumer.sought == [(0, 2)]


def test_what_is_missing_the_second_time_only_is_looked_for_as_well() -> None:
    one = Reading(from_start=True)
    assert one.hand_on((0, 2), (0, 3), (0, 7)) == []
    assert one.hand_on((0, 2), (0, 7)) == [(0, 2)]
    assert one.hand_on((0, 3), (0, 7)) == [(0, 3), (0, 7)]
    assert one.consumer.sought == [(0, 0), (0, 3)]
