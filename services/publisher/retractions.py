"""Deletions on the networks: an account's newest first, and none waits for one that does not get through.

What is here is `retracting` in the ledger (or was, and was made once more behind that), and a beat there says that somebody is at it: whoever ends in the middle leaves
it to another. A network that is away is asked again until it answers, for an hour by whoever is at it; then a person has to do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from schemas.posts import Outcome, Result
from services.kit.telemetry import Clock
from services.publisher.backoff import backoff_s
from services.publisher.channels import (
    Channel,
    NotSent,
    Publication,
    Refused,
    Unknown,
    as_documented,
)
from services.publisher.ledger import DETAIL_CHARS, Entry, State
from services.publisher.outbox import Emit
from services.publisher.paces import Paces
from services.publisher.store import Store

IN_LINE: Final = 20  # Of an account, begun and not ended: more wait as they are.
IN_A_ROW: Final = 3  # So many that fail one behind the other are the account's: all of it rests.
TRY_FOR_S: Final = 3_600.0  # Of one publisher: who takes it over begins anew.
TELL_AFTER_S: Final = 120.0
BEAT_S: Final = 2.0  # So often whoever is at a retraction says so in the ledger.
log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Retraction:
    """One offer that is to be deleted; `done` is whether it was, when the ledger has it. Times are monotonic."""

    entry: Entry
    hold_id: str | None
    begun_s: float
    done: asyncio.Future[bool]
    failures: int = 0
    next_s: float = 0.0
    why: str = ""


@dataclass(slots=True, eq=False)
class _Line:
    """An account's retractions. `came`: one more; `has_room`: for whoever waits to add one."""

    waiting: dict[str, Retraction] = field(default_factory=dict)
    failed_in_a_row: int = 0
    rests_until_s: float = 0.0
    came: asyncio.Event = field(default_factory=asyncio.Event)
    has_room: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def is_full(self) -> bool:
        untried = any(not one.failures for one in self.waiting.values())
        return untried or len(self.waiting) >= IN_LINE

    def next(self, now_s: float) -> tuple[Retraction | None, float]:
        """Return the newest whose time has come; or nothing, and how long it is until then."""
        due = [one for one in self.waiting.values() if one.next_s <= now_s]
        if due and self.rests_until_s <= now_s:
            return max(due, key=_sent_at), 0.0
        next_s = min((one.next_s for one in self.waiting.values()), default=math.inf)
        return None, max(next_s, self.rests_until_s) - now_s


class Retractions:
    """What is being deleted, on all channel accounts."""

    def __init__(
        self,
        store: Store,
        channels: Mapping[str, Channel],
        paces: Paces,
        *,
        clock: Clock,
        emit: Emit,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.store, self.channels, self.paces = store, channels, paces
        self.clock, self.emit, self.chance = clock, emit, chance
        self._lines: dict[str, _Line] = {}

    def may_delete(self, account: str) -> bool:
        """Say whether there is such a channel, and it can delete."""
        channel = self.channels.get(account)
        return channel is not None and channel.capabilities.can_delete

    def can_delete(self, entry: Entry) -> bool:
        """Say whether its channel can delete it: not one that cannot, and not what has no name there."""
        return self.may_delete(entry.account) and bool(entry.publication)

    async def room(self, account: str) -> None:
        """Wait until all that are begun have been tried: what is not begun, another may begin, if we are killed."""
        while (line := self._lines.get(account)) is not None and line.is_full:
            line.has_room.clear()
            await line.has_room.wait()

    def put(self, entry: Entry, hold_id: str | None) -> asyncio.Future[bool]:
        """Delete what is ours to delete; the future says whether it worked, when the ledger has it."""
        line = self._lines.get(entry.account)
        if line is None:
            line = self._lines[entry.account] = _Line()
            line.task = asyncio.create_task(self._work(entry.account, line))
        known = line.waiting.get(entry.post_id)
        if known is None:
            done = asyncio.get_running_loop().create_future()
            done.add_done_callback(_noted)
            known = Retraction(entry, hold_id, self.clock.monotonic_s(), done)
            line.waiting[entry.post_id] = known
            line.came.set()
        return known.done

    def late(self) -> dict[str, str]:
        """Say which posts' do not get through, and why."""
        until_s = self.clock.monotonic_s() - TELL_AFTER_S
        return {
            one.entry.post_id: f"{one.entry.account}: {one.why}"
            for line in self._lines.values()
            for one in line.waiting.values()
            if one.failures and one.begun_s < until_s
        }

    async def stop(self) -> None:
        """Leave what is not ended to others."""
        tasks = [line.task for line in self._lines.values() if line.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, account: str, line: _Line) -> None:
        while line.waiting:
            async with self._beating(line):
                await self._try_all(line)
        del self._lines[account]

    async def _try_all(self, line: _Line) -> None:
        while line.waiting:
            line.came.clear()
            one, rest_s = line.next(self.clock.monotonic_s())
            if one is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(line.came.wait(), rest_s)
                continue
            try:
                is_over = await self._try(line, one)
            except (
                Exception
            ) as error:  # The ledger's, or Kafka's: whoever waits tries again, or another.
                one.done.set_exception(error)
                is_over = True
            if is_over:
                del line.waiting[one.entry.post_id]
            line.has_room.set()

    async def _try(self, line: _Line, one: Retraction) -> bool:
        """Ask once; True at the end."""
        answer = await self._ask(one)
        now_s = self.clock.monotonic_s()
        if answer is not None:
            line.failed_in_a_row = 0
            one.done.set_result(await self._end(one, *answer))
            return True
        if now_s - one.begun_s > TRY_FOR_S:
            why = f"{one.entry.account} did not delete it, asked {one.failures} times: {one.why}"
            one.done.set_result(await self._end(one, "retraction_failed", why[:DETAIL_CHARS]))
            return True
        line.failed_in_a_row += 1
        if line.failed_in_a_row >= IN_A_ROW:
            rest_s = backoff_s(line.failed_in_a_row - IN_A_ROW, chance=self.chance())
            line.rests_until_s = now_s + rest_s
        return False

    async def _ask(self, one: Retraction) -> tuple[State, str] | None:
        """Return what the channel says; None where it did not answer, and says when to ask again."""
        account = one.entry.account
        if not self.can_delete(one.entry):
            return "retraction_failed", f"impossible: {account} cannot delete; do it by hand"
        channel, after_s = self.channels[account], 0.0
        await self._wait_for_rate(account, channel)
        try:
            with as_documented():
                done = await channel.retract(
                    Publication(one.entry.publication or "", one.entry.url)
                )
        except Refused as error:
            return "retraction_failed", f"refused by {account}: {error}"[:DETAIL_CHARS]
        except (NotSent, Unknown) as error:  # To delete what is gone is harmless.
            one.failures, one.why = one.failures + 1, str(error)[:DETAIL_CHARS]
            if isinstance(error, NotSent):
                await self.paces.hear(account, error.told)
                after_s = error.retry_after_s
            rest_s = max(after_s, backoff_s(one.failures, chance=self.chance()))
            one.next_s = self.clock.monotonic_s() + rest_s
            return None
        await self.paces.hear(account, done.told)
        return "retracted", done.remains

    async def _wait_for_rate(self, account: str, channel: Channel) -> None:
        can = channel.capabilities
        wait_s = 1.0
        while wait_s:
            wait_s = await self.paces.wait_s(
                account, "retraction", has_rate=can.has_rate, bucket=can.delete_bucket
            )
            await asyncio.sleep(wait_s)

    async def _end(self, one: Retraction, state: State, detail: str) -> bool:
        entry = one.entry
        if state == "retraction_failed":
            log.error("not taken back", post=entry.post_id, account=entry.account, why=detail)
        result: Result = "retracted" if state == "retracted" else "retraction_failed"
        outcome = Outcome(
            post_id=entry.post_id, kind=entry.kind, account=entry.account, attempt=entry.attempt,
            result=result, at=self.clock.now(), reason=detail, hold_id=one.hold_id,
            publication=entry.publication, url=entry.url,
        )  # fmt: skip
        said = await self.emit(outcome, "")
        await said  # Before it is written: nobody would say it later.
        await self.store.record(entry.post_id, state, detail=detail)
        return state == "retracted"

    @contextlib.asynccontextmanager
    async def _beating(self, line: _Line) -> AsyncIterator[None]:
        """Let the ledger see that somebody is at them, however long a channel takes."""
        beat = asyncio.create_task(self._beat(line))
        try:
            yield
        finally:
            beat.cancel()
            await asyncio.gather(beat, return_exceptions=True)

    async def _beat(self, line: _Line) -> None:
        while True:
            await asyncio.sleep(BEAT_S)
            try:
                await self.store.keep_retracting(list(line.waiting))
            except (SQLAlchemyError, OSError) as error:  # Done twice, it does no harm.
                log.warning("others may take them over", posts=len(line.waiting), error=str(error))


def _sent_at(one: Retraction) -> float:
    return one.entry.done_at.timestamp() if one.entry.done_at else 0.0


def _noted(done: asyncio.Future[bool]) -> None:
    """Take note of an error, where nobody waits for it: another takes the retraction over."""
    if not done.cancelled():
        done.exception()
