"""One post's way through gate, ledger and channel, to an outcome.

    judge → its turn → intent → judge again → publish → sent → outcome

Whatever is certain is written down; whatever is not is in doubt (`doubts.py`). When the
database goes away the way begins anew from what the ledger says. Offers wait for their turn, which
the account's circuit and the network's rate give; an update is tried whatever the circuit says.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Protocol, assert_never

import structlog
from sqlalchemy.exc import DataError, SQLAlchemyError

from schemas.holds import OpenHolds
from schemas.posts import Post, Result
from services.kit.telemetry import Clock
from services.publisher.channels import (
    Channel,
    Duplicate,
    NotSent,
    Partly,
    Publication,
    Refused,
    Uncertain,
    Unknown,
    as_documented,
)
from services.publisher.channels.threads import Threads
from services.publisher.clearance import Clearance
from services.publisher.doubts import Doubts
from services.publisher.ends import Ends
from services.publisher.failures import Failures
from services.publisher.gate import Cleared, Held, Stale, TooLate, Verdict, Waiting
from services.publisher.job import Job
from services.publisher.ledger import DETAIL_CHARS, refusal
from services.publisher.outbox import Emit
from services.publisher.paces import Paces
from services.publisher.proof import PART
from services.publisher.store import Store, Unsent
from services.publisher.takeback import TakeBack

RENEW_S: Final = 1.0  # So long a connection stands and waits for a fence.
LONGEST_REST_S: Final = 2.0  # Then the gate is asked again: a hold may have opened.
log = structlog.get_logger()


class Gate(Protocol):
    """What the publisher knows of fences and holds, now and when it changes."""

    holds: OpenHolds

    def judge(self, post: Post) -> Verdict: ...

    async def changed(self) -> None: ...


class Delivery:
    """Sees posts through, on all channel accounts."""

    def __init__(
        self,
        store: Store,
        channels: Mapping[str, Channel],
        gate: Gate,
        paces: Paces,
        take_back: TakeBack,
        *,
        clock: Clock,
        emit: Emit,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.store, self.channels, self.gate, self.paces = store, channels, gate, paces
        self.take_back, self.clock, self.chance = take_back, clock, chance
        self.ends = Ends(store, gate, take_back, clock=clock, emit=emit)
        self.doubts = Doubts(channels, self.ends, clock=clock, rest=self._wait)
        self.failures = Failures(
            store, paces, self.ends, self.doubts, clock=clock, rest=self._wait, chance=chance
        )

    def parallel(self, account: str) -> int:
        """Return how many of an account's offers may be under way at once."""
        channel = self.channels.get(account)
        return channel.capabilities.parallel if channel else 1

    def late(self) -> dict[str, dict[str, str]]:
        """Say which updates and which take-backs do not get through, and why, each by its post."""
        return {"update": self.failures.late, "take-back": self.take_back.retractions.late()}

    def remarks(self) -> dict[str, str]:
        """Say the same in one."""
        return {
            f"{what} {post_id}": why
            for what, posts in self.late().items()
            for post_id, why in posts.items()
        }

    async def settle(self, job: Job) -> None:
        """See one post through to its outcome; or to its next try (`again_s`); or until it is another publisher's."""
        job.again_s = 0
        while job.goes_on:
            try:
                is_over = await self._to_outcome(job)
            except (SQLAlchemyError, OSError) as error:  # What the job knows, it goes on knowing.
                log.error("the ledger does not answer", post=job.post.post_id, error=str(error))
                job.recorded = False
                self.failures.give_back(job)
                await self._wait(job)
            else:
                if is_over and not job.again_s:
                    job.ends()
                break
        self.failures.give_back(job)
        if not job.again_s or job.dropped:
            self.failures.late.pop(job.post.post_id, None)
        job.rests()
        if job.dropped and not job.is_over:  # It may have become ours in that very moment.
            await self.leave(job)

    async def leave(self, job: Job) -> None:
        """Say in the ledger of what is left to others that nothing was sent, where that is so."""
        if not job.recorded or job.under_way or job.maybe_sent or job.sent is not None:
            return
        try:
            await self.store.leave_intent(job.post.post_id)
        except (SQLAlchemyError, OSError) as error:  # Then it is in doubt.
            log.warning("not left", post=job.post.post_id, error=str(error))

    async def _to_outcome(self, job: Job) -> bool:
        never = self._refusal(job)
        try:
            while job.goes_on:
                if await self._step(job, never):
                    return True
        except DataError as error:  # Not the next time either, and others wait behind it.
            why = f"the ledger refuses it: {error.orig}"
            if job.begun_at is not None:
                await self.ends.end(job, "uncertain", why)
                return True
            log.error("not written", post=job.post.post_id, why=why)
            await self.ends.say(job, "failed", reason=why[:DETAIL_CHARS])
            return True
        return False

    async def _step(self, job: Job, never: str) -> bool:
        """Do what comes next; True at the end."""
        if job.sent is not None:  # The ledger did not answer then.
            await self.ends.sent(job, *job.sent)
            return True
        if never:
            return await self._without_sending(job, "failed", never)
        if job.overtaken:
            before = "" if job.maybe_sent or not job.last_failure else f"{job.last_failure}: "
            why = f"{before}a later update of its incident is out"
            return await self._without_sending(job, "failed", why)
        return await self._follow(job, self.gate.judge(job.post))

    def _refusal(self, job: Job) -> str:
        """Say why the account can never take the post, as it is set up now; empty: it may."""
        channel = self.channels.get(job.post.account)
        return refusal(job.post, channel.capabilities if channel else None)

    async def _follow(self, job: Job, verdict: Verdict) -> bool:
        """Do what the gate says; True at the end."""
        match verdict:
            case Cleared():
                return await self._on_cleared(job, verdict)
            case Waiting():
                await self.gate.changed()
                return False
            case Held(_, hold_id, reason):
                return await self._without_sending(job, "held", reason, hold_id=hold_id)
            case Stale():
                why = job.last_failure or "too late to be of use"
                return await self._without_sending(job, "expired", why)
            case _:
                assert_never(verdict)

    async def _on_cleared(self, job: Job, cleared: Cleared) -> bool:
        """Take one step: a turn, the intent, or the send behind both; True at the end."""
        if not job.has_turn:
            job.has_turn = await self._take_turn(job)
            if not job.has_turn or not job.goes_on:
                return False
        if job.recorded:
            return await self._publish(job, cleared)
        at, job.under_way = self.clock.now(), True
        job.asked_at.append(at)
        job.recorded = await self.store.record_intent(
            job.post, attempt=job.attempt, fence=cleared.fence, at=at
        )
        if job.recorded:
            job.begun_at = at
            return False
        return await self._was_settled(job)  # There is a row already.

    async def _take_turn(self, job: Job) -> bool:
        can = self.channels[job.post.account].capabilities
        wait_s = await self.paces.wait_s(job.post.account, job.post.kind, has_rate=can.has_rate)
        if wait_s:
            await asyncio.sleep(min(wait_s, LONGEST_REST_S))
        return not wait_s

    async def _was_settled(self, job: Job) -> bool:
        """Look into the ledger; an intent that somebody left becomes ours, and may have been sent."""
        entry = await self.store.find(job.post.post_id)
        if entry is not None and job.is_settled_by(entry):
            await self.ends.tell(job, job.told_by(entry))  # The answer was lost.
            await self.ends.under_hold(job.post)  # Whoever sent it may have ended before.
            return True
        if entry is not None and job.is_behind(entry):
            return True  # The later one is answered.
        if job.dropped:  # Whoever has its partition goes on with it, and answers.
            job.rests()
        if job.dropped or entry is None or entry.state != "intent":
            return False
        if job.is_mine(entry, self.store.publisher):
            job.recorded, job.begun_at = True, entry.intent_at
            return job.maybe_sent and await self.doubts.decide(job, job.last_failure)
        if not await self.store.adopt_intent(job.post.post_id, of=entry.publisher):
            return False
        job.adopt(entry)
        why = "a publisher ended in the middle of the send"
        return job.maybe_sent and await self.doubts.decide(job, why)

    async def _without_sending(
        self, job: Job, result: Result, reason: str, *, hold_id: str | None = None
    ) -> bool:
        """End a post that must not be sent (any more); True at the end, False to look once more."""
        if job.maybe_sent:
            before = job.last_failure or "it may have gone out before"
            return await self.doubts.decide(job, f"{before}: {reason}", may_send=False)
        if job.so_far is not None:
            await self.ends.end_in_part(job, reason)
        elif await self.store.record_unsent(
            Unsent(
                post=job.post, attempt=job.attempt, at=self.clock.now(), hold_id=hold_id,
                state="failed" if result == "failed" else "withdrawn",
                why=reason[:DETAIL_CHARS], is_ours=job.recorded,
            )
        ):  # fmt: skip
            await self.ends.say(job, result, reason=reason, hold_id=hold_id)
        else:  # Another publisher may have adopted what we had written down, and lost the partition since.
            job.recorded = False
            return await self._was_settled(job)
        return True

    async def _publish(self, job: Job, cleared: Cleared) -> bool:
        """Try once; say whether that was the end."""
        account, begun_at, job.under_way = job.post.account, self.clock.now(), True
        clearance = Clearance(cleared, self.clock.monotonic_s, renew=partial(self._renew, job))
        try:
            made = await self._send(job, clearance)
        except TooLate:
            return False  # Nothing was sent: a new fence decides.
        except (Partly, NotSent, Duplicate, Refused, Unknown, Uncertain) as error:
            job.keep(error)
            await self._note_earlier(job, clearance)
            job.tried_at = clearance.looked_at or begun_at
            return await self.failures.meet(job, clearance.relied_on, error)
        job.tried_at = clearance.looked_at or begun_at
        job.has_turn = False
        self.paces.worked(account)
        sent = self.ends.attempt(job, clearance.relied_on, "published")
        await self.ends.sent(job, sent, made)  # First of all: the rest may fail.
        await self._note_earlier(job, clearance)
        await self.paces.hear(account, made.told)
        return True

    async def _send(self, job: Job, clearance: Clearance) -> Publication:
        channel, key = self.channels[job.post.account], job.post.post_id
        with as_documented():
            if job.so_far is not None and isinstance(channel, Threads):
                return await channel.go_on(clearance, key=key, so_far=job.so_far)
            return await channel.publish(clearance, key=key)

    async def _note_earlier(self, job: Job, clearance: Clearance) -> None:
        """Keep what the first parts of a thread, or the first mails, relied on where it was renewed since."""
        for cleared, looked_at in clearance.earlier:
            job.tried_at = looked_at
            await self.ends.note(job, cleared, f"{PART}: what went before it")

    async def _renew(self, job: Job) -> Cleared:
        """Judge a post anew while its connection stands; raises TooLate where it may not go out."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RENEW_S):
                while job.goes_on:
                    match self.gate.judge(job.post):
                        case Cleared() as cleared:
                            return cleared
                        case Waiting():
                            await self.gate.changed()
                        case _:
                            break
        raise TooLate("the clearance ran out before the first byte, and there was no other")

    async def _wait(self, job: Job, after_s: float = 0) -> None:
        job.rests()
        await asyncio.sleep(job.next_rest_s(after_s, chance=self.chance()))
