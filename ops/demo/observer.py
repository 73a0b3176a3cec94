"""The witness: what Kafka and the sandbox network say, without asking the services.

It reads the topics with kafka-python and the sandbox's own record, both on this machine's monotonic
clock, and decides whether the promise held. It shares the models with the services, and no code.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaConsumer

POLL_MS = 100
TOPICS = ("ops.holds", "posts.due", "posts.outcomes", "status.updates")


@dataclass(frozen=True, slots=True)
class Told:
    """One record of a topic, and when the witness read it (CLOCK_MONOTONIC)."""

    topic: str
    type: str
    data: dict[str, Any]
    at_s: float


@dataclass(frozen=True, slots=True)
class Covering:
    """A disruption on a line: from its acknowledgement until we began to say that it is over."""

    line: str
    acknowledged_s: float
    until_s: float


@dataclass(slots=True)
class Verdict:
    """What the evening came to."""

    counts: Counter[str] = field(default_factory=Counter)
    late: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    unaccounted: list[str] = field(default_factory=list)
    left_standing: list[str] = field(default_factory=list)

    @property
    def held(self) -> bool:
        """Say whether the promise held."""
        return not (self.late or self.doubled or self.unaccounted or self.left_standing)


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


def judge_evening(
    *,
    queued: dict[str, dict[str, str]],
    states: dict[str, str],
    outcomes: list[dict[str, Any]],
    record: list[dict[str, Any]],
    coverings: list[Covering],
    lease_s: float,
) -> Verdict:
    """Judge an evening.

    `queued`: post id to labels, as marketing wrote them. `states`: post id to the scheduler's
    word. `outcomes`: `posts.outcomes` in order. `record`: the sandbox's own.
    """
    verdict = Verdict()
    last: dict[str, str] = {o["post_id"]: o["result"] for o in outcomes if o["kind"] == "offer"}
    published = [seen for seen in record if seen["what"] == "published"]
    standing = {s["id"] for s in published} - {s["id"] for s in record if s["what"] == "deleted"}
    times = Counter(seen["key"] for seen in published)
    verdict.doubled = [key for key, count in times.items() if count > 1]
    for seen in published:
        about = queued.get(seen["key"])
        if about is not None and any(
            _covers(c, about) and c.acknowledged_s + lease_s < seen["at_s"] < c.until_s
            for c in coverings
        ):
            verdict.late.append(seen["key"])
    on_network = {seen["key"]: seen["id"] for seen in published}
    for post_id, labels in queued.items():
        fate = _fate(states.get(post_id), last.get(post_id))
        if fate is None or (fate == "published") != (on_network.get(post_id) in standing):
            verdict.unaccounted.append(post_id)
        verdict.counts[fate or "unaccounted"] += 1
        if fate == "retracted" and on_network.get(post_id) in standing:
            verdict.left_standing.append(post_id)
        if fate in ("expired", "review") and any(_covers(c, labels) for c in coverings):
            verdict.counts["held"] += 1
    verdict.counts["updates"] = sum(1 for seen in published if seen["key"] not in queued)
    return verdict


def _covers(covering: Covering, labels: dict[str, str]) -> bool:
    return labels.get("line", covering.line) == covering.line


def _fate(state: str | None, outcome: str | None) -> str | None:
    """Return what became of an offer; None where the scheduler and the topic do not agree."""
    if outcome in ("published", "retracted", "failed", "uncertain", "retraction_failed"):
        return outcome if state == outcome else None
    if state in ("expired", "review", "cancelled"):
        return state
    return None
