"""The registry of topics: key, partitions, how long kept, what records, who writes and who reads.

`interlock topics create | check | docs` and every service's start read nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from schemas.base import Record
from schemas.channels import ChannelAccount
from schemas.disruptions import (
    ApproveUpdate,
    Deadline,
    DeclareIncident,
    Disruption,
    Fence,
    HoldOffers,
    MergeIncidents,
    PolicyApplied,
    ReleaseHold,
    ResolveIncident,
    SourceRead,
    SplitIncident,
    UpdateIncident,
)
from schemas.holds import FencePassed, HoldOpened, HoldReleased
from schemas.incidents import Incident, StatusUpdate
from schemas.posts import DuePost, Outcome, RetractPost
from schemas.snapshots import Snapshot

FENCE_KEY = "fence/"  # So that a reader can pass over echoes of other publishers by their key.
SNAPSHOT_BYTES = 8 * 1_048_576
DAY_MS = 24 * 3600 * 1000
COMPACTION_LAG_MS = 3600 * 1000  # Far above the 10 s after which a fence is void: see DESIGN.


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic as it must be. `config` holds Kafka's own option names."""

    name: str
    key: str
    partitions: int
    records: tuple[type[Record], ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    config: dict[str, str] = field(default_factory=dict)


def _kept(days: int) -> dict[str, str]:
    return {"cleanup.policy": "delete", "retention.ms": str(days * DAY_MS)}


_COMPACTED = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(COMPACTION_LAG_MS)}

DISRUPTIONS = Topic(
    name="ops.disruptions",
    key="network; fences and deadlines go to a partition by number",
    partitions=4,
    records=(
        Disruption, SourceRead, HoldOffers, ReleaseHold, DeclareIncident, UpdateIncident,
        ApproveUpdate, ResolveIncident, MergeIncidents, SplitIncident, PolicyApplied, Deadline,
        Fence,
    ),
    writers=("operations systems", "detector", "publisher"),
    readers=("detector",),
    config=_kept(7) | {"message.timestamp.type": "LogAppendTime"},
)  # fmt: skip
HOLDS = Topic(
    name="ops.holds",
    key="opened/HOLD, released/HOLD, fence/PUBLISHER/PARTITION",
    partitions=1,
    records=(HoldOpened, HoldReleased, FencePassed),
    writers=("detector",),
    readers=("publisher", "scheduler", "detector", "people"),  # `interlock audit verify`.
    config=_COMPACTED,
)
INCIDENTS = Topic(
    name="ops.incidents",
    key="incident id",
    partitions=4,
    records=(Incident,),
    writers=("detector",),
    readers=("detector", "publisher"),
    config=_COMPACTED,
)
SNAPSHOTS = Topic(
    name="detector.snapshots",
    key="partition number",
    partitions=1,
    records=(Snapshot,),
    writers=("detector",),
    readers=("detector",),
    config={
        "cleanup.policy": "compact",
        # Small, since a restore reads all that is not yet compacted; no record may be larger.
        "segment.bytes": str(2 * SNAPSHOT_BYTES),
        "min.cleanable.dirty.ratio": "0.01",
        "max.message.bytes": str(SNAPSHOT_BYTES),
    },
)
UPDATES = Topic(
    name="status.updates",
    key="incident id",
    partitions=4,
    records=(StatusUpdate,),
    writers=("detector",),
    readers=("publisher",),
    config=_kept(7),
)
DUE = Topic(
    name="posts.due",
    key="channel account",
    partitions=12,
    records=(DuePost, RetractPost),
    writers=("scheduler",),
    readers=("publisher",),
    config=_kept(7),
)
OUTCOMES = Topic(
    name="posts.outcomes",
    key="post id",
    partitions=12,
    records=(Outcome,),
    writers=("publisher",),
    readers=("scheduler",),
    config=_kept(7),
)
ACCOUNTS = Topic(
    name="channels.accounts",
    key="channel account",
    partitions=1,
    records=(ChannelAccount,),
    writers=("publisher",),
    readers=("scheduler",),
    config=_COMPACTED,
)


def dead_letters_of(topic: Topic) -> str:
    """Return the name of a topic's dead-letter topic."""
    return f"{topic.name}.dlq"


def _dead_letter(topic: Topic, *, writer: str) -> Topic:
    return Topic(
        name=dead_letters_of(topic),
        key="as found",
        partitions=topic.partitions,
        records=(),
        writers=(writer,),
        readers=("people",),
        config=_kept(30),
    )


TOPICS: tuple[Topic, ...] = (
    DISRUPTIONS,
    HOLDS,
    INCIDENTS,
    SNAPSHOTS,
    UPDATES,
    DUE,
    OUTCOMES,
    ACCOUNTS,
    _dead_letter(DISRUPTIONS, writer="detector"),
    _dead_letter(UPDATES, writer="publisher"),
    _dead_letter(DUE, writer="publisher"),
    _dead_letter(OUTCOMES, writer="scheduler"),
)


def topic_named(name: str) -> Topic:
    """Return the topic; KeyError where there is none of this name."""
    return next(topic for topic in TOPICS if topic.name == name)


def key_of(record: Record) -> str | None:
    """Return the key a record is written under; None where it goes to a partition by number."""
    key = _KEYS.get(type(record))
    return None if key is None else key(record)


_KEYS: dict[type[Record], Callable[[Any], str]] = {
    Disruption: lambda r: r.network,
    SourceRead: lambda r: r.network,
    HoldOffers: lambda r: r.network,
    DeclareIncident: lambda r: r.network,
    HoldOpened: lambda r: f"opened/{r.hold_id}",
    HoldReleased: lambda r: f"released/{r.hold_id}",
    FencePassed: lambda r: f"{FENCE_KEY}{r.publisher}/{r.partition}",
    Incident: lambda r: r.incident_id,
    StatusUpdate: lambda r: r.incident_id,
    Snapshot: lambda r: str(r.partition),
    RetractPost: lambda r: r.account,
    DuePost: lambda r: r.post.account,
    Outcome: lambda r: r.post_id,
    ChannelAccount: lambda r: r.account,
}
