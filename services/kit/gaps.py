"""Records that a Kafka client passed over: they are read again, before what comes behind them is handed on.

aiokafka 0.14 was seen to do it, once, under faults; why was not found. Nobody else would notice: the records
are there, and were read by no one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import structlog
from aiokafka import ConsumerRecord, TopicPartition

log = structlog.get_logger()


class Gaps:
    """Where one consumer goes on, by partition.

    In a compacted topic gaps are no surprise in what was there before: one looks for them from the first time on that
    a partition has been read to its end.
    """

    def __init__(self, *, compacted: bool) -> None:
        self._compacted = compacted
        self._next: dict[int, int] = {}
        self._sought: dict[int, int] = {}
        self._read_up = set[int]()

    def goes_on(self, partition: int, offset: int) -> None:
        """Expect this offset next, for it was sought."""
        self._next[partition] = offset

    def forget(self) -> None:
        """Expect nothing: other partitions were assigned."""
        self._next.clear()

    def see(
        self, consumer: Any, records: Sequence[ConsumerRecord[Any, Any]]
    ) -> list[ConsumerRecord[Any, Any]]:
        """Return the records that follow on what came before; seek where some are missing, and leave what is behind.

        What is not there the second time either was deleted, or is a mark of a transaction.
        """
        follow, again = list[ConsumerRecord[Any, Any]](), set[int]()
        for record in records:
            partition, offset = record.partition, record.offset
            expected = self._next.get(partition, offset)
            if partition in again:
                continue
            if offset > expected != self._sought.get(partition) and self._looks(partition):
                log.warning("read again", topic=record.topic, partition=partition, first=expected, until=offset)  # fmt: skip
                self._sought[partition] = expected
                consumer.seek(TopicPartition(record.topic, partition), expected)
                again.add(partition)
            else:
                self._next[partition] = offset + 1
                follow.append(record)
        if self._compacted:
            self._note_ends(consumer, follow)
        return follow

    def _looks(self, partition: int) -> bool:
        return not self._compacted or partition in self._read_up

    def _note_ends(self, consumer: Any, records: Sequence[ConsumerRecord[Any, Any]]) -> None:
        for topic, partition in {(r.topic, r.partition) for r in records}:
            end = consumer.highwater(TopicPartition(topic, partition))
            if end is not None and self._next[partition] >= end:
                self._read_up.add(partition)
