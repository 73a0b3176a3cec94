"""The take-back: what a hold covers and went out just before is deleted, the newest first.

Each account by itself: one that does not answer keeps no other waiting (`retractions.py` asks them). What cannot be deleted is
said, with who refused it, and is a person's task.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog

from schemas.holds import HoldOpened
from schemas.labels import Labels
from schemas.posts import Outcome, Post, RetractPost
from services.kit.telemetry import Clock
from services.publisher.accounts import AnyAccount
from services.publisher.channels import (
    Channel,
)
from services.publisher.ledger import Entry
from services.publisher.outbox import Emit
from services.publisher.paces import Paces
from services.publisher.retractions import Retractions
from services.publisher.store import Store

PATIENCE_S: Final = 2.0  # Of who has sent it: the offers behind it have their turn.
LEFT_S: Final = 10.0  # Of whom nothing was heard for so long is gone: another takes it over.
PAGE_POSTS: Final = 500
PLAN_POSTS: Final = 1_000
APOLOGY_USEFUL_S: Final = 3_600
APOLOGY_LEFT_S: Final = 600  # So long after its intent nobody is at it any more.
Covers = Callable[[Labels], bool]
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be taken back: counts of all, and the newest with whether each can be deleted."""

    deleted: int
    impossible: int
    newest: list[tuple[Entry, bool]]


class TakeBack:
    """Takes back what went out, on all channel accounts."""

    def __init__(
        self,
        store: Store,
        channels: Mapping[str, Channel],
        accounts: Mapping[str, AnyAccount],
        paces: Paces,
        *,
        clock: Clock,
        emit: Emit,
        say: Callable[[Post], None] | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.store, self.accounts = store, accounts
        self.clock, self.emit, self.say = clock, emit, say
        self._resuming = set[str]()
        self.retractions = Retractions(
            store, channels, paces, clock=clock, emit=emit, chance=chance
        )

    async def would_take(self, covers: Covers, *, since: datetime) -> Plan:
        """Return what would be taken back now: how many, and the newest of them."""
        until, found, deleted, impossible = self.clock.now(), list[Entry](), 0, 0
        for account, labels in (await self._covered(covers, since)).items():
            which: dict[str, Any] = {"account": account, "labels": labels}
            every, named = await self.store.count_between(since, until, **which)
            can = named if self.retractions.may_delete(account) else 0
            deleted, impossible = deleted + can, impossible + every - can
            found += await self.store.sent_between(since, until, **which, limit=PLAN_POSTS)
        newest = sorted(found, key=lambda entry: entry.done_at or until, reverse=True)[:PLAN_POSTS]
        return Plan(
            deleted, impossible, [(entry, self.retractions.can_delete(entry)) for entry in newest]
        )

    async def _covered(self, covers: Covers, since: datetime) -> dict[str, list[Labels]]:
        """Return the labels that are covered, by account: a few, however many offers have them."""
        found: dict[str, list[Labels]] = {}
        for account, labels in await self.store.sent_labels(since):
            if covers(labels):
                found.setdefault(account, []).append(labels)
        return found

    async def take_back(self, hold: HoldOpened) -> None:
        """Delete the offers this hold covers that went out within its window, or under it: they were on their way."""
        until = self.clock.now()  # What goes out from here on is not this hold's to delete.
        covered = await self._covered(hold.covers, window_begin(hold))
        await asyncio.gather(
            *(self._take_back_all(name, labels, hold, until) for name, labels in covered.items())
        )

    async def _take_back_all(
        self, account: str, labels: list[Labels], hold: HoldOpened, until: datetime
    ) -> None:
        since, begun, is_sorry = window_begin(hold), set[asyncio.Future[bool]](), False
        while entries := await self.store.sent_between(
            since, until, account=account, labels=labels, limit=PAGE_POSTS
        ):
            for entry in entries:  # Each is `sent` no longer behind it, whatever comes of it.
                await self.retractions.room(account)
                if (done := await self._begin(entry, hold.hold_id)) is not None:
                    begun.add(done)
        while begun:
            over, begun = await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
            results = [done.result() for done in over]
            if any(results) and not is_sorry:
                is_sorry = True
                await self._apologise(account, hold.hold_id, incident_id=hold.incident_id)

    async def _begin(self, entry: Entry, hold_id: str | None) -> asyncio.Future[bool] | None:
        """Begin to delete one, if it is ours to: every publisher sees every hold, and the first does it."""
        if not await self.store.record(entry.post_id, "retracting", hold_id=hold_id):
            return None
        return self.retractions.put(entry, hold_id)

    async def _apologise(
        self, account: str, hold_id: str, *, incident_id: str | None = None
    ) -> None:
        """Say sorry where an account does, once for a hold: unless somebody has, or is at it."""
        known = self.accounts.get(account)
        if known is None or not known.apology or self.say is None:
            return
        now, post_id = self.clock.now(), f"{hold_id}.apology.{account}"
        entry = await self.store.find(post_id)
        left = now - timedelta(seconds=APOLOGY_LEFT_S)
        if entry is not None and (entry.state != "intent" or entry.intent_at > left):
            return
        useful = now + timedelta(seconds=APOLOGY_USEFUL_S)
        self.say(
            Post(
                post_id=post_id, kind="update", account=account, text=known.apology,
                due_at=now, latest_at=useful, incident_id=incident_id,
            )
        )  # fmt: skip

    async def on_request(self, asked: RetractPost) -> None:
        """Delete an offer that a person wants back; what cannot be done is an outcome as well."""
        log.info("asked back", post=asked.post_id, author=asked.author, reason=asked.reason)
        entry = await self.store.find(asked.post_id)
        if entry is not None:
            await self.take_back_one(entry, None)
            return
        outcome = Outcome(
            post_id=asked.post_id, kind="offer", account=asked.account, at=self.clock.now(),
            result="retraction_failed", reason="it is in the ledger no more; do it by hand",
        )  # fmt: skip
        await (await self.emit(outcome, ""))

    async def take_back_one(self, entry: Entry, hold_id: str | None) -> None:
        """Delete one. From here on it will be, by us or by another: a channel that is slow is not waited for."""
        if (done := await self._begin(entry, hold_id)) is not None:
            await asyncio.wait([done], timeout=PATIENCE_S)

    async def once_more(self, entry: Entry) -> None:
        """Delete what was made behind its take-back: a publisher sent it again that could not know.

        Where that had failed it begins anew; where it is under way or has worked the ledger stays as it is.
        """
        await self.store.record(entry.post_id, "retracting", hold_id=entry.hold_id)
        await asyncio.wait([self.retractions.put(entry, entry.hold_id)], timeout=PATIENCE_S)

    async def resume(self, *, left_s: float = LEFT_S) -> None:
        """End what a publisher began to take back and has left for so long, apologies too."""
        left = defaultdict[str, list[Entry]](list)
        for entry in await self.store.left_retracting(left_s):
            if entry.account not in self._resuming:
                left[entry.account].append(entry)
        await asyncio.gather(*(self._resume_all(name, left[name], left_s) for name in left))
        if not any(account.apology for account in self.accounts.values()):
            return
        for account, hold_id in await self.store.taken_back(APOLOGY_USEFUL_S, left_s):
            await self._apologise(account, hold_id)

    async def _resume_all(self, account: str, left: list[Entry], left_s: float) -> None:
        self._resuming.add(account)
        begun = list[asyncio.Future[bool]]()
        try:
            for entry in left:
                await self.retractions.room(account)
                if await self.store.adopt_retraction(entry.post_id, left_s=left_s):
                    begun.append(self.retractions.put(entry, entry.hold_id))
        finally:
            self._resuming.discard(account)
        if begun:
            await asyncio.wait(begun)


def window_begin(hold: HoldOpened) -> datetime:
    """Return since when what went out is taken back."""
    return hold.opened_at - timedelta(seconds=hold.take_back_s)


def is_within(entry: Entry, hold: HoldOpened) -> bool:
    """Say whether a send ended inside a hold's window."""
    return entry.done_at is not None and entry.done_at >= window_begin(hold)
