"""Runs a service with one mechanism of the promise switched off, so that its test is seen to fail.

`python -m tests.mutant NAME SERVICE`. Nothing of this is in the product: each mutation replaces one
function of the real code in its own process, and everything else is what runs in production.
"""

from __future__ import annotations

import math
import sys
import uuid
from typing import Any

from schemas.envelope import Unreadable
from schemas.holds import OpenHolds
from schemas.posts import Post
from services import cli
from services.detector import fold as detector_fold
from services.detector import store as detector_store
from services.detector import stream as detector_stream
from services.detector.state import State, Turn
from services.detector.store import Restored
from services.kit.cluster import Cluster
from services.publisher import gatekeeper
from services.publisher.channels import mastodon
from services.publisher.clearance import Clearance
from services.publisher.gate import Cleared, Held, Verdict, judge
from services.publisher.takeback import TakeBack


def put(owner: Any, name: str, mutant: Any) -> None:
    """Put a mutant in the place of a function that is really there."""
    assert callable(getattr(owner, name))
    setattr(owner, name, mutant)


def no_gate() -> None:
    """Silence off: every offer is cleared."""

    def always(post: Post, **_: Any) -> Verdict:
        return Cleared(post, until_s=math.inf, fence=None)

    put(gatekeeper, "judge", always)


def no_fence() -> None:
    """When in doubt: holds are looked at, and what no fence vouches for goes out all the same."""

    def trusting(post: Post, *, open_holds: OpenHolds, **_: Any) -> Verdict:
        hold = open_holds.covering(post.labels) if post.kind == "offer" else None
        return Held(post, hold.hold_id, hold.reason) if hold else Cleared(post, math.inf, None)

    put(gatekeeper, "judge", trusting)


def no_take_back() -> None:
    """Take-back off: what went out stays."""

    async def nothing(*_: Any) -> None:
        return

    put(TakeBack, "take_back", nothing)
    put(TakeBack, "take_back_one", nothing)


def updates_wait() -> None:
    """Voice off: an update is judged as an offer is."""

    def alike(post: Post, **known: Any) -> Verdict:
        return judge(post.model_copy(update={"kind": "offer"}), **known)

    put(gatekeeper, "judge", alike)


def fresh_keys() -> None:
    """Once off: every try carries a key of its own."""
    publish = mastodon.Mastodon.publish

    async def with_fresh_key(self: mastodon.Mastodon, clearance: Clearance, *, key: str) -> Any:
        return await publish(self, clearance, key=f"{key}.{uuid.uuid4().hex}")

    put(mastodon.Mastodon, "publish", with_fresh_key)


def unreadable_is_nothing() -> None:
    """When in doubt: what cannot be read holds nothing."""

    def passed_over(turn: Turn, body: Unreadable) -> None:
        return

    assert Unreadable in detector_fold._ON
    detector_fold._ON[Unreadable] = passed_over


def lost_is_nothing() -> None:
    """When in doubt: records that are gone unread hold nothing."""

    async def passed_over(*_: Any, **__: Any) -> None:
        return

    put(detector_stream.Stream, "_say_lost", passed_over)


def forgetful() -> None:
    """State off: a detector goes on where another was, and knows nothing of what was before."""
    read = detector_store.read_snapshots

    async def without_state(cluster: Cluster, partitions: set[int]) -> dict[int, Restored]:
        found = await read(cluster, partitions)
        return {p: Restored(State(policy=r.state.policy), r.offset) for p, r in found.items()}

    put(detector_stream, "read_snapshots", without_state)


MUTANTS = {
    f.__name__: f
    for f in (
        no_gate,
        no_fence,
        no_take_back,
        updates_wait,
        fresh_keys,
        unreadable_is_nothing,
        lost_is_nothing,
        forgetful,
    )
}

if __name__ == "__main__":
    name, service = sys.argv[1:]
    MUTANTS[name]()
    sys.argv = ["interlock", "serve", service]
    cli.main()
