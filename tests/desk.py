"""The real delivery and ledger with one channel account, behind a gate that lets all pass."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from schemas.holds import OpenHolds
from schemas.posts import Kind, Outcome, Post
from services.kit.telemetry import Clock
from services.publisher.channels import Channel
from services.publisher.delivery import Delivery
from services.publisher.gate import Passed, Verdict, judge
from services.publisher.job import Job
from services.publisher.paces import Paces
from services.publisher.store import Store
from services.publisher.takeback import TakeBack
from tests.builders import AT, a_hold, a_post, acknowledged


@dataclass
class Open:
    """A gate whose fence has just passed."""

    holds: OpenHolds = field(default_factory=OpenHolds)
    patience: int = 1_000_000
    now: datetime = AT

    def judge(self, post: Post) -> Verdict:
        now_s = Clock().monotonic_s()
        self.patience -= 1
        if self.patience == 0:
            self.holds.apply(a_hold("{}"))
        passed = Passed(number=1, begun_s=now_s, begun_at=Clock().now())
        return judge(
            post, open_holds=self.holds, passed=passed, now_s=now_s, now=self.now, lease_s=5
        )

    async def changed(self) -> None:
        raise AssertionError("nothing here waits")


@dataclass
class Desk:
    """A delivery with one account, of a name of its own, and what it said."""

    store: Store
    account: str
    channel: Channel
    gate: Open = field(default_factory=Open)
    said: list[Outcome] = field(default_factory=list)
    clock: Clock = field(default_factory=Clock)

    async def emit(self, outcome: Outcome, _: str) -> asyncio.Future[None]:
        self.said.append(outcome)
        return acknowledged()

    def delivery(self) -> Delivery:
        channels = {self.account: self.channel}
        shared: dict[str, Any] = {"clock": self.clock, "emit": self.emit}
        paces = Paces(self.store.engine, clock=Clock())
        take_back = TakeBack(self.store, channels, {}, paces, **shared)
        return Delivery(self.store, channels, self.gate, paces, take_back, **shared)

    def new_post(self, kind: Kind, **values: Any) -> Post:
        name = uuid.uuid4().hex
        known: dict[str, Any] = {
            "post_id": name,
            "text": f"A post of the tests, {name}: https://northlink.example/{name} has more.",
            "account": self.account,
            "due_at": Clock().now(),
            "latest_at": Clock().now() + timedelta(hours=1),
        }
        return a_post(kind=kind, **(known | values))

    async def send(self, post: Post) -> Outcome:
        await self.delivery().settle(Job(post, 1, lambda _: None))
        return self.said[-1]
