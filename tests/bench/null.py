"""A publisher whose channels are null, for the bench: they take a post, and note when.

`python -m tests.bench.null OFFERS_PER_S FENCE`: how many offers a second an account's network takes (0:
as many as come), and `fence` or `no-fence`: without it the gate clears what no hold covers. There is no
such setting in the product.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from schemas.holds import OpenHolds
from schemas.posts import Post
from services import cli
from services.publisher import app as publisher_app
from services.publisher import gatekeeper
from services.publisher.channels import Publication, Retracted
from services.publisher.clearance import Clearance
from services.publisher.gate import Cleared, Held, Verdict
from services.publisher.ledger import Capabilities
from tests.mutant import put

PARALLEL = 128


class Null:
    """Takes everything."""

    def __init__(self, per_s: float, seen: Path) -> None:
        self.pause_s = 1 / per_s if per_s else 0.0
        parallel = 1 if per_s else PARALLEL
        self.capabilities = Capabilities(idempotent_s=math.inf, can_delete=True, parallel=parallel)
        self.seen = seen.open("a")

    async def publish(self, clearance: Clearance, *, key: str) -> Publication:
        clearance.check()
        if clearance.post.kind == "update":
            self.seen.write(f"{key} {time.monotonic()}\n")
            self.seen.flush()
        elif self.pause_s:
            await asyncio.sleep(self.pause_s)
        return Publication(key)

    async def retract(self, publication: Publication) -> Retracted:
        return Retracted()

    async def aclose(self) -> None:
        return


def trusting(post: Post, *, open_holds: OpenHolds, **_: Any) -> Verdict:
    """Clear what no hold covers, whatever the fence says."""
    hold = open_holds.covering(post.labels)
    if hold is not None:
        return Held(post, hold.hold_id, hold.reason)
    return Cleared(post, until_s=math.inf, fence=None)


def main() -> None:
    per_s, fence = sys.argv[1:]
    seen = Path(os.environ["NULL_SEEN"])
    put(publisher_app, "_channel", lambda *_, **__: Null(float(per_s), seen))
    if fence == "no-fence":
        put(gatekeeper, "judge", trusting)
    sys.argv = ["interlock", "serve", "publisher"]
    cli.main()


if __name__ == "__main__":
    main()
