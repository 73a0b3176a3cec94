"""Records that a Kafka client passed over: they are read again, before what comes behind them is handed on.

aiokafka 0.14 was seen to do it, once, under faults; why was not found. Nobody else would notice: the records
are there, and were read by no one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, TypeAlias

import structlog
from aiokafka import ConsumerRecord, TopicPartition

Range: TypeAlias = tuple[int, int]
"""Offsets, from the first to before the second."""
log = structlog.get_logger()


class Gaps:
    """Where one consumer goes on, by partition; who reads `from_start` begins with the first offset there ever was.

    What is missing is looked for once more. In a topic that was compacted much is: so one looks for all
    that is missing of a batch at once, and reads it twice.
    """

    def __init__(self, *, from_start: bool) -> None:
        self._from_start = from_start
        self._next: dict[int, int] = {}
        self._missing: dict[int, list[Range]] = {}  # When a batch was read for the first time.

    def goes_on(self, partition: int, offset: int) -> None:
        """Expect this offset next, for it was sought."""
        self._next[partition] = offset

    def forget(self) -> None:
        """Expect nothing: other partitions were assigned."""
        self._next.clear()
        self._missing.clear()

    def see(
        self, consumer: Any, records: Sequence[ConsumerRecord[Any, Any]]
    ) -> list[ConsumerRecord[Any, Any]]:
        """Return the records that follow on what came before; seek where some are missing, and leave what is behind.

        What is not there the second time either was deleted, or is a mark of a transaction.
        """
        follow, again = list[ConsumerRecord[Any, Any]](), set[int]()
        for index, record in enumerate(records):
            partition, offset = record.partition, record.offset
            if partition in again:
                continue
            expected = self._next.get(partition, 0 if self._from_start else offset)
            if offset > expected and not self._was_missing(partition, (expected, offset)):
                log.info("read again", topic=record.topic, partition=partition, first=expected, until=offset)  # fmt: skip
                rest = [one.offset for one in records[index:] if one.partition == partition]
                self._missing[partition] = _missing_of(rest, expected)
                consumer.seek(TopicPartition(record.topic, partition), expected)
                again.add(partition)
            else:
                self._next[partition] = offset + 1
                follow.append(record)
        return follow

    def _was_missing(self, partition: int, now: Range) -> bool:
        before = self._missing.get(partition, [])
        place = bisect_right(before, now[0], key=itemgetter(0))
        return place > 0 and now[1] <= before[place - 1][1]


def _missing_of(offsets: Sequence[int], expected: int) -> list[Range]:
    missing = list[Range]()
    for offset in offsets:
        if offset > expected:
            missing.append((expected, offset))
        expected = offset + 1
    return missing
