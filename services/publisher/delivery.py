"""One post's way through gate, ledger and channel, to an outcome; and the way back.

    find in the ledger → judge → intent → judge again → publish → sent → outcome

Whatever is certain is written down; whatever is not is decided by `ledger.after_unknown`. When the
database goes away the way begins anew from what the ledger says.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol, assert_never

import structlog
from sqlalchemy.exc import SQLAlchemyError

from schemas.holds import HoldOpened, OpenHolds
from schemas.posts import Outcome, Post, Result
from services.kit.telemetry import Clock
from services.publisher.channels import Channel, NotSent, Publication, Refused, Unknown
from services.publisher.gate import Cleared, Held, Stale, TooLate, Verdict, Waiting
from services.publisher.ledger import GiveUp, SendAgain, State, after_unknown
from services.publisher.store import Entry, Store

FIRST_RETRY_S: Final = 0.25
LAST_RETRY_S: Final = 30.0
UNKNOWN_TRIES: Final = 5  # An update on a channel that knows no keys is not said twenty times.
RETRACT_TRIES: Final = 10  # About two minutes; then a person is told.
UPDATE_PATIENCE_S: Final = 3600.0
DETAIL_CHARS: Final = 500
log = structlog.get_logger()

_SAID: dict[State, Result] = {
    "sent": "published",
    "failed": "failed",
    "uncertain": "uncertain",
    "retracting": "published",
    "retracted": "retracted",
    "retraction_failed": "retraction_failed",
}


class Gate(Protocol):
    """What the publisher knows of fences and holds, now and when it changes."""

    holds: OpenHolds

    def judge(self, post: Post) -> Verdict: ...

    async def changed(self) -> None: ...


@dataclass(slots=True, eq=False)
class Job:
    """One post to be settled. `dropped` when its partition went to another publisher."""

    post: Post
    attempt: int
    settled: Callable[[], None]
    traceparent: str = ""
    dropped: bool = False
    # What this run knows of the post's sends:
    recorded: bool = False
    maybe_sent: bool = False
    failures: int = 0
    begun_at: datetime | None = None
    last_failure: str = field(default="")


class Delivery:
    """Sees posts through, on all channel accounts."""

    def __init__(
        self,
        store: Store,
        channels: Mapping[str, Channel],
        gate: Gate,
        *,
        clock: Clock,
        emit: Callable[[Outcome, str], Awaitable[None]],
    ) -> None:
        self.store, self.channels, self.gate, self.clock, self.emit = (
            store,
            channels,
            gate,
            clock,
            emit,
        )

    async def settle(self, job: Job) -> None:
        """See one post through to its outcome."""
        while not job.dropped:
            try:
                await self._from_ledger(job)
            except (SQLAlchemyError, OSError) as error:
                log.error("the ledger does not answer", post=job.post.post_id, error=str(error))
                await self._wait(job)
            else:
                break
        if not job.dropped:
            job.settled()

    async def _from_ledger(self, job: Job) -> None:
        if job.post.account not in self.channels:
            await self._say(job, "failed", reason=f"there is no channel account {job.post.account}")
            return
        entry = await self.store.find(job.post.post_id)
        job.recorded = entry is not None and entry.state == "intent"
        if _is_settled(entry, job):
            assert entry is not None
            await self._say(job, _SAID[entry.state], entry=entry)  # The answer was lost.
            return
        if entry is not None and job.recorded:
            job.begun_at, job.maybe_sent = entry.intent_at, True
            await self.store.adopt_intent(job.post.post_id)
            if await self._gave_up(job, "a publisher ended in the middle of the send"):
                return
        await self._to_outcome(job)

    async def _to_outcome(self, job: Job) -> None:
        while not job.dropped:
            verdict = self.gate.judge(job.post)
            match verdict:
                case Cleared():
                    if await self._on_cleared(job, verdict):
                        return
                case Waiting():
                    await self.gate.changed()
                case Held(_, hold_id, reason):
                    await self._without_sending(job, "held", reason, hold_id=hold_id)
                    return
                case Stale():
                    await self._without_sending(
                        job, "expired", job.last_failure or "too late to be of use"
                    )
                    return
                case _:
                    assert_never(verdict)

    async def _on_cleared(self, job: Job, cleared: Cleared) -> bool:
        """Write the intent, or, once it is written and judged again, publish; True at the end."""
        if job.recorded:
            return await self._publish(job, cleared)
        if not await self._intend(job, cleared):
            await self._from_ledger(job)  # Somebody else was there before us.
            return True
        return False

    async def _intend(self, job: Job, cleared: Cleared) -> bool:
        job.begun_at = self.clock.now()
        job.recorded = await self.store.record_intent(
            job.post, attempt=job.attempt, fence=cleared.fence, at=job.begun_at
        )
        return job.recorded

    async def _without_sending(
        self, job: Job, result: Result, reason: str, *, hold_id: str | None = None
    ) -> None:
        if job.maybe_sent:
            await self._end(job, "uncertain", f"it may have gone out before: {reason}")
            return
        if job.recorded:
            await self.store.withdraw_intent(job.post.post_id)
        await self._say(job, result, reason=reason, hold_id=hold_id)

    async def _publish(self, job: Job, cleared: Cleared) -> bool:
        """Try once; say whether that was the end."""
        channel = self.channels[job.post.account]
        try:
            made = await channel.publish(cleared, key=job.post.post_id)
        except TooLate:
            return False  # Nothing was sent: a new fence decides.
        except NotSent as error:
            return await self._retry(job, str(error), after_s=error.retry_after_s)
        except Refused as error:
            await self._end(job, "failed", str(error))
            return True
        except Unknown as error:
            job.maybe_sent = True
            if await self._gave_up(job, str(error)):
                return True
            return await self._retry(job, str(error))
        await self._sent(job, made)
        return True

    async def _gave_up(self, job: Job, why: str) -> bool:
        assert job.begun_at is not None
        age_s = (self.clock.now() - job.begun_at).total_seconds()
        capabilities = self.channels[job.post.account].capabilities
        decision = after_unknown(job.post.kind, capabilities, age_s=age_s)
        match decision:
            case SendAgain():
                blind = capabilities.idempotent_s == 0 and job.failures >= UNKNOWN_TRIES
                if blind:
                    await self._end(job, "uncertain", why)
                return blind
            case GiveUp(reason):
                await self._end(job, "uncertain", f"{reason}: {why}")
                return True
            case _:
                assert_never(decision)

    async def _retry(self, job: Job, why: str, *, after_s: float = 0) -> bool:
        job.last_failure = why[:DETAIL_CHARS]
        assert job.begun_at is not None
        log.warning("not sent", post=job.post.post_id, account=job.post.account, why=why)
        age_s = (self.clock.now() - job.begun_at).total_seconds()
        if job.post.kind == "update" and age_s > UPDATE_PATIENCE_S:
            await self._end(job, "uncertain" if job.maybe_sent else "failed", why)
            return True
        await self._wait(job, after_s)
        return False

    async def _wait(self, job: Job, after_s: float = 0) -> None:
        job.failures += 1
        await asyncio.sleep(max(after_s, _backoff_s(job.failures)))

    async def _sent(self, job: Job, made: Publication) -> None:
        at = self.clock.now()
        recorded = await self.store.record(
            job.post.post_id, "sent", done_at=at, publication=made.id, url=made.url, detail=""
        )
        if not recorded:
            log.error("the ledger has no intent of a post that was sent", post=job.post.post_id)
        await self._say(job, "published", publication=made, at=at)
        if job.post.kind == "offer":
            hold = self.gate.holds.covering(job.post.labels)
            entry = await self.store.find(job.post.post_id) if hold is not None else None
            if hold is not None and entry is not None and _within(entry, hold):
                await self._take_back_one(entry, hold.hold_id)  # It was on its way.

    async def _end(self, job: Job, state: State, detail: str) -> None:
        await self.store.record(
            job.post.post_id, state, done_at=self.clock.now(), detail=detail[:DETAIL_CHARS]
        )
        log.warning("not published", post=job.post.post_id, state=state, why=detail)
        await self._say(job, _SAID[state], reason=detail[:DETAIL_CHARS])

    async def _say(
        self,
        job: Job,
        result: Result,
        *,
        reason: str = "",
        hold_id: str | None = None,
        publication: Publication | None = None,
        entry: Entry | None = None,
        at: datetime | None = None,
    ) -> None:
        if entry is not None:
            publication = Publication(entry.publication, entry.url) if entry.publication else None
            reason, at, hold_id = entry.detail, entry.done_at, entry.hold_id
        outcome = Outcome(
            post_id=job.post.post_id,
            kind=job.post.kind,
            account=job.post.account,
            attempt=job.attempt,
            result=result,
            at=at or self.clock.now(),
            reason=reason,
            hold_id=hold_id,
            incident_id=job.post.incident_id,
            publication=publication.id if publication else None,
            url=publication.url if publication else None,
        )
        await self.emit(outcome, job.traceparent)

    async def take_back(self, hold: HoldOpened) -> None:
        """Delete the offers this hold covers that went out within its window, newest first.

        Each account by itself: one that does not answer keeps no other waiting.
        """
        if hold.take_back_s == 0:
            return
        by_account: dict[str, list[Entry]] = {}
        for entry in await self.store.sent_since(_window_begin(hold)):
            if hold.covers(entry.labels):
                by_account.setdefault(entry.account, []).append(entry)
        await asyncio.gather(
            *(self._take_back_all(entries, hold.hold_id) for entries in by_account.values())
        )

    async def _take_back_all(self, entries: list[Entry], hold_id: str) -> None:
        for entry in entries:
            await self._take_back_one(entry, hold_id)

    async def resume_retractions(self, before_at: datetime) -> None:
        """End what a publisher began to take back and did not end."""
        for entry in await self.store.left_retracting(before_at):
            await self._retract(entry, entry.hold_id)

    async def _take_back_one(self, entry: Entry, hold_id: str) -> None:
        # Every publisher sees every hold: whoever moves the row first does it.
        if await self.store.record(entry.post_id, "retracting", hold_id=hold_id):
            await self._retract(entry, hold_id)

    async def _ask_to_retract(self, entry: Entry) -> str:
        """Ask until the channel has answered; returns why it is not done, empty when it is."""
        channel = self.channels.get(entry.account)
        if channel is None or not channel.capabilities.can_delete or entry.publication is None:
            return f"{entry.account} cannot delete: somebody has to do it by hand"
        why = ""
        for failures in range(1, RETRACT_TRIES + 1):
            try:
                await channel.retract(Publication(entry.publication, entry.url))
            except Refused as error:
                return str(error)[:DETAIL_CHARS]
            except (NotSent, Unknown) as error:  # To delete what is gone is harmless.
                why = str(error)[:DETAIL_CHARS]
                await asyncio.sleep(_backoff_s(failures))
            else:
                return ""
        return why

    async def _retract(self, entry: Entry, hold_id: str | None) -> None:
        state: State = "retracted"
        detail = await self._ask_to_retract(entry)
        if detail:
            state = "retraction_failed"
            log.error("not taken back", post=entry.post_id, account=entry.account, why=detail)
        await self.store.record(entry.post_id, state, detail=detail)
        outcome = Outcome(
            post_id=entry.post_id,
            kind=entry.kind,
            account=entry.account,
            attempt=entry.attempt,
            result=_SAID[state],
            at=self.clock.now(),
            reason=detail,
            hold_id=hold_id,
            publication=entry.publication,
            url=entry.url,
        )
        await self.emit(outcome, "")


def _backoff_s(failures: int) -> float:
    # Jitter, so that accounts of one server do not come back together.
    longest_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(failures, 20))
    return longest_s * (0.5 + random.random() / 2)  # noqa: S311  # No secret.


def _is_settled(entry: Entry | None, job: Job) -> bool:
    if entry is None or entry.state == "intent":
        return False
    return entry.state != "failed" or entry.attempt >= job.attempt


def _within(entry: Entry, hold: HoldOpened) -> bool:
    return entry.done_at is not None and entry.done_at >= _window_begin(hold)


def _window_begin(hold: HoldOpened) -> datetime:
    return hold.opened_at - timedelta(seconds=hold.take_back_s)
