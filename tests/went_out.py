"""Two accounts with a ledger of what went out on them, and the real take-back."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final

from ops.embedded.system import System
from schemas.posts import Outcome, Post
from services.kit import database
from services.kit.telemetry import Clock
from services.publisher.accounts import WebhookAccount
from services.publisher.channels import Channel
from services.publisher.ledger import Attempt
from services.publisher.paces import Paces
from services.publisher.store import SCHEMA, Sent, Store
from services.publisher.takeback import TakeBack
from tests.builders import a_hold, a_post, acknowledged
from tests.fakes import FakeChannel

SORRY: Final = "We have taken back an offer that came at the wrong moment."


class WentOut:
    """Two accounts, one that can delete and says sorry, and one that cannot."""

    def __init__(self, store: Store) -> None:
        self.store, self.line = store, uuid.uuid4().hex
        self.account = f"a{self.line[:10]}"
        self.can, self.cannot = FakeChannel(Clock()), FakeChannel(Clock(), can_delete=False)
        channels: dict[str, Channel] = {self.account: self.can, f"{self.account}x": self.cannot}
        known = {"channel": "webhook", "url": "http://a.example", "secret": "x" * 16}
        accounts: dict[str, Any] = {
            self.account: WebhookAccount.model_validate(known | {"apology": SORRY})
        }
        self.is_killed = False
        self.said: list[Post] = []
        self.outcomes: list[Outcome] = []
        self.paces = Paces(store.engine, clock=Clock())
        self.take_back = TakeBack(
            store, channels, accounts, self.paces, clock=Clock(), emit=self._emit, say=self._say
        )

    async def _emit(self, outcome: Outcome, _: str) -> asyncio.Future[None]:
        if self.is_killed:
            raise OSError("killed")
        if outcome.account.startswith(self.account):  # Others' offers, of no line, are covered too.
            self.outcomes.append(outcome)
        return acknowledged()

    def _say(self, post: Post) -> None:
        self.said.append(post)

    async def went_out(self, account: str, *, minutes_ago: int) -> str:
        at = Clock().now() - timedelta(minutes=minutes_ago)
        post = a_post(post_id=uuid.uuid4().hex, account=account, labels={"line": self.line})
        await self.store.record_intent(post, attempt=1, fence=1, at=at)
        attempt = Attempt(at=at, publisher="test", answer="published")
        sent = Sent(
            post_id=post.post_id, at=at, attempt=attempt, publication=post.post_id, url=None
        )
        assert await self.store.record_sent(sent)
        self.can.standing[post.post_id] = post
        return post.post_id

    def ours(self) -> list[Post]:
        return [post for post in self.said if post.account == self.account]

    def hold(self) -> Any:
        return a_hold(f'{{line="{self.line}"}}', take_back_s=3600, opened_at=Clock().now())


@asynccontextmanager
async def went_out_on(system: System) -> AsyncIterator[WentOut]:
    """Open two such accounts; what is being deleted on them is left at the end."""
    engine = database.new_engine(system.database, schema=SCHEMA)
    made = WentOut(Store(engine, publisher="take-back"))
    yield made
    await made.take_back.retractions.stop()
    await engine.dispose()
