"""The witness: what Kafka and the sandbox network say, without asking the services.

It reads the topics with kafka-python and the sandbox's own record, both on this machine's monotonic
clock, for `judge.py` to decide. It shares the models with the services, and no code.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from kafka import KafkaConsumer

from ops.demo.judge import Arrival

POLL_MS = 100
_PART: Final = re.compile(r"(post-[0-9a-f]+)\.(\d+)")
TOPICS = ("ops.holds", "posts.due", "posts.outcomes", "status.updates")


@dataclass(frozen=True, slots=True)
class Told:
    """One record of a topic, and when the witness read it (CLOCK_MONOTONIC)."""

    topic: str
    type: str
    data: dict[str, Any]
    at_s: float


class Witness:
    """Reads the topics in a thread of its own."""

    def __init__(self, servers: str) -> None:
        self.told: list[Told] = []
        self._stop = threading.Event()
        self._consumer = KafkaConsumer(
            *TOPICS,
            bootstrap_servers=servers.split(","),
            group_id=None,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            fetch_max_wait_ms=POLL_MS,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while not self._stop.is_set():
            for records in self._consumer.poll(timeout_ms=POLL_MS).values():
                at_s = time.monotonic()
                for record in records:
                    headers = dict(record.headers)
                    kind = headers.get("ce_type", b"").decode()
                    with contextlib.suppress(ValueError):
                        data = json.loads(record.value)
                        self.told.append(Told(record.topic, kind, data, at_s))

    def of(self, kind: str) -> list[Told]:
        """Return what was told of one CloudEvents type."""
        return [told for told in list(self.told) if told.type == kind]

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()


def arrivals_of(
    record: Sequence[dict[str, Any]], *, slow_s: Callable[[float], float] = lambda _: 0.0
) -> list[Arrival]:
    """Return what was published by the sandbox's own record; `slow_s` says how slow it was at a time."""
    gone = {seen["id"]: seen["at_s"] for seen in reversed(record) if seen["what"] == "deleted"}
    return [
        replace(
            _named(one["key"], one["at_s"]),
            text=one["text"], slow_s=slow_s(one["at_s"]), gone_s=gone.get(one["id"], math.inf),
        )
        for one in record
        if one["what"] == "published"
    ]  # fmt: skip


def _named(key: str, at_s: float) -> Arrival:
    """Return an arrival by its key: an offer's id, and the number of its part where it is a thread."""
    part = _PART.fullmatch(key)
    return Arrival(at_s, part[1], part=int(part[2])) if part else Arrival(at_s, key)


def ends_of(states: dict[str, str], outcomes: Sequence[dict[str, Any]]) -> dict[str, str | None]:
    """Return what became of each offer, by the scheduler and `posts.outcomes`; None: they disagree."""
    last = {one["post_id"]: one["result"] for one in outcomes if one["kind"] == "offer"}
    return {post_id: _end(state, last.get(post_id)) for post_id, state in states.items()}


def _end(state: str, outcome: str | None) -> str | None:
    if outcome in ("published", "retracted", "failed", "uncertain", "retraction_failed"):
        return outcome if state == outcome else None
    if state in ("expired", "review", "cancelled"):
        return state
    return None
