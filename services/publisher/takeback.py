"""The take-back: what a hold covers and went out just before is deleted, the newest first.

Each account by itself: one that does not answer keeps no other waiting. What cannot be deleted is
said, with who refused it, and is a person's task.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from schemas.holds import HoldOpened
from schemas.labels import Labels
from schemas.posts import Outcome, Post, Result, RetractPost
from services.kit.telemetry import Clock
from services.publisher.accounts import AnyAccount
from services.publisher.backoff import backoff_s
from services.publisher.channels import (
    Channel,
    NotSent,
    Publication,
    Refused,
    Unknown,
    as_documented,
)
from services.publisher.ledger import Entry, State
from services.publisher.outbox import Emit
from services.publisher.paces import Paces
from services.publisher.store import Store

TRIES: Final = 10  # About two minutes; then a person is told.
BEAT_S: Final = 2.0  # So often whoever is at a retraction says so in the ledger.
LEFT_S: Final = 10.0  # Of whom nothing was heard for so long is gone: another takes it over.
DETAIL_CHARS: Final = 500
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
        self.store, self.channels, self.accounts, self.paces = store, channels, accounts, paces
        self.clock, self.emit, self.say, self.chance = clock, emit, say, chance

    async def would_take(self, covers: Covers, *, since: datetime) -> Plan:
        """Return what would be taken back now: how many, and the newest of them."""
        until, found, deleted, impossible = self.clock.now(), list[Entry](), 0, 0
        for account, labels in (await self._covered(covers, since)).items():
            which: dict[str, Any] = {"account": account, "labels": labels}
            every, named = await self.store.count_between(since, until, **which)
            can = named if self._may_delete(account) else 0
            deleted, impossible = deleted + can, impossible + every - can
            found += await self.store.sent_between(since, until, **which, limit=PLAN_POSTS)
        newest = sorted(found, key=lambda entry: entry.done_at or until, reverse=True)[:PLAN_POSTS]
        return Plan(deleted, impossible, [(entry, self._can_delete(entry)) for entry in newest])

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
        since, is_any = window_begin(hold), False
        while entries := await self.store.sent_between(
            since, until, account=account, labels=labels, limit=PAGE_POSTS
        ):
            for entry in entries:  # Each is `sent` no longer behind it, whatever comes of it.
                is_any |= await self.take_back_one(entry, hold.hold_id)
        if is_any:
            await self._apologise(account, hold.hold_id, incident_id=hold.incident_id)

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

    async def take_back_one(self, entry: Entry, hold_id: str | None) -> bool:
        """Delete one; say whether we did. Every publisher sees every hold: the first does it."""
        if not await self.store.record(entry.post_id, "retracting", hold_id=hold_id):
            return False
        return await self._retract(entry, hold_id)

    async def resume(self, *, left_s: float = LEFT_S) -> None:
        """End what a publisher began to take back and has left for so long, apologies too."""
        left = defaultdict[str, list[Entry]](list)
        for entry in await self.store.left_retracting(left_s):
            left[entry.account].append(entry)
        await asyncio.gather(*(self._resume_all(entries, left_s) for entries in left.values()))
        if not any(account.apology for account in self.accounts.values()):
            return
        for account, hold_id in await self.store.taken_back(APOLOGY_USEFUL_S, left_s):
            await self._apologise(account, hold_id)

    async def _resume_all(self, entries: list[Entry], left_s: float) -> None:
        for entry in entries:
            if await self.store.keep_retracting(entry.post_id, left_s=left_s):
                await self._retract(entry, entry.hold_id)

    def _may_delete(self, account: str) -> bool:
        channel = self.channels.get(account)
        return channel is not None and channel.capabilities.can_delete

    def _can_delete(self, entry: Entry) -> bool:
        return self._may_delete(entry.account) and bool(entry.publication)

    async def _ask(self, entry: Entry) -> tuple[State, str]:
        """Ask until the channel has answered."""
        if not self._can_delete(entry):
            return "retraction_failed", f"impossible: {entry.account} cannot delete; do it by hand"
        channel, why = self.channels[entry.account], ""
        publication = Publication(entry.publication or "", entry.url)
        for failures in range(1, TRIES + 1):
            await self._wait_for_rate(entry.account, channel)
            try:
                with as_documented():
                    done = await channel.retract(publication)
            except Refused as error:
                return "retraction_failed", f"refused by {entry.account}: {error}"[:DETAIL_CHARS]
            except (NotSent, Unknown) as error:  # To delete what is gone is harmless.
                why = str(error)[:DETAIL_CHARS]
                after_s = 0.0
                if isinstance(error, NotSent):
                    await self.paces.hear(entry.account, error.told)
                    after_s = error.retry_after_s
                await asyncio.sleep(max(after_s, backoff_s(failures, chance=self.chance())))
            else:
                await self.paces.hear(entry.account, done.told)
                return "retracted", done.remains
        return "retraction_failed", f"{entry.account} did not answer {TRIES} times: {why}"

    async def _wait_for_rate(self, account: str, channel: Channel) -> None:
        can = channel.capabilities
        wait_s = 1.0
        while wait_s:
            wait_s = await self.paces.wait_s(
                account, "retraction", has_rate=can.has_rate, bucket=can.delete_bucket
            )
            await asyncio.sleep(wait_s)

    @contextlib.asynccontextmanager
    async def _at_it(self, post_id: str) -> AsyncIterator[None]:
        """Let the ledger see that somebody is at it, however long a channel takes."""
        beat = asyncio.create_task(self._beat(post_id))
        try:
            yield
        finally:
            beat.cancel()

    async def _beat(self, post_id: str) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self.store.keep_retracting(post_id)
            except (SQLAlchemyError, OSError) as error:  # Done twice, it does no harm.
                log.warning("another may take it over", post=post_id, error=str(error))

    async def _retract(self, entry: Entry, hold_id: str | None) -> bool:
        async with self._at_it(entry.post_id):
            return await self._retract_and_say(entry, hold_id)

    async def _retract_and_say(self, entry: Entry, hold_id: str | None) -> bool:
        state, detail = await self._ask(entry)
        if state == "retraction_failed":
            log.error("not taken back", post=entry.post_id, account=entry.account, why=detail)
        result: Result = "retracted" if state == "retracted" else "retraction_failed"
        outcome = Outcome(
            post_id=entry.post_id,
            kind=entry.kind,
            account=entry.account,
            attempt=entry.attempt,
            result=result,
            at=self.clock.now(),
            reason=detail,
            hold_id=hold_id,
            publication=entry.publication,
            url=entry.url,
        )
        said = await self.emit(outcome, "")
        await said  # Before it is written: nobody would say it later.
        await self.store.record(entry.post_id, state, detail=detail)
        return state == "retracted"


def window_begin(hold: HoldOpened) -> datetime:
    """Return since when what went out is taken back."""
    return hold.opened_at - timedelta(seconds=hold.take_back_s)


def is_within(entry: Entry, hold: HoldOpened) -> bool:
    """Say whether a send ended inside a hold's window."""
    return entry.done_at is not None and entry.done_at >= window_begin(hold)
