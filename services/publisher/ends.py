"""How a post ends: what is written into the ledger, and what is said of it on `posts.outcomes`."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Final, Protocol

import structlog

from schemas.holds import OpenHolds
from schemas.posts import Outcome, Post, Result
from services.kit.telemetry import Clock
from services.publisher.channels import Publication
from services.publisher.gate import Cleared
from services.publisher.job import SAID, Job
from services.publisher.ledger import DETAIL_CHARS, Attempt, Entry, State
from services.publisher.outbox import Emit
from services.publisher.proof import LOST, PART
from services.publisher.store import Sent, Store
from services.publisher.takeback import TakeBack, is_within

SETTLED: Final = frozenset[State]({"sent", "retracting", "retracted", "retraction_failed"})
log = structlog.get_logger()


class Holds(Protocol):
    """Who knows the holds that are open now."""

    holds: OpenHolds


class Ends:
    """Writes down what became of posts, and says it; what went out under a hold is taken back at once."""

    def __init__(
        self,
        store: Store,
        gate: Holds,
        take_back: TakeBack,
        *,
        clock: Clock,
        emit: Emit,
    ) -> None:
        self.store, self.gate, self.take_back = store, gate, take_back
        self.clock, self.emit = clock, emit

    async def note(self, job: Job, cleared: Cleared, answer: str) -> None:
        """Keep what became of a try that was not the last."""
        await self.store.record_attempt(job.post.post_id, self.attempt(job, cleared, answer))

    def attempt(self, job: Job, cleared: Cleared | None, answer: str) -> Attempt:
        """Return a try as the ledger keeps it, with the fence it relied on."""
        return Attempt(
            at=job.tried_at or self.clock.now(),
            publisher=self.store.publisher,
            answer=answer[:DETAIL_CHARS],
            fence=cleared.fence if cleared else None,
            fence_begun_at=cleared.fence_begun_at if cleared else None,
        )

    async def give_up(self, job: Job, why: str) -> None:
        """End an update that did not get through in its time."""
        if job.so_far is not None and not job.maybe_sent:
            await self.end_in_part(job, why)
        else:
            await self.end(job, "uncertain" if job.maybe_sent else "failed", why)

    async def end_in_part(self, job: Job, why: str) -> None:
        """End a thread whose rest does not follow; what is out counts as sent, and is taken back so."""
        last = job.last_part or self.attempt(job, None, LOST)
        await self.sent(job, replace(last, answer=f"{PART}, and no more"), job.in_part(why))

    async def sent(self, job: Job, attempt: Attempt, made: Publication) -> None:
        """Write down a send that worked, first of all; it is taken back if a hold came meanwhile."""
        job.sent, at = (attempt, made), self.clock.now()
        sent = Sent(
            post_id=job.post.post_id,
            at=at,
            attempt=attempt,
            publication=made.id,
            url=made.url,
            detail=made.detail[:DETAIL_CHARS],
            kind=job.post.kind,
        )
        theirs = None if await self.store.record_sent(sent) else await self._doubt(job, sent)
        if theirs is not None:
            await self.tell(job, job.told_by(theirs))
            if theirs.kind == "offer" and theirs.state != "sent":  # Ours stands behind a take-back.
                await self.take_back.once_more(replace(theirs, publication=made.id, url=made.url))
        else:
            await self.say(
                job, "published", reason=made.detail, publication=made, at=at, fence=attempt.fence
            )
        await self.under_hold(job.post)

    async def under_hold(self, post: Post) -> None:
        """Take an offer back that was on its way when its hold came."""
        hold = self.gate.holds.covering(post.labels) if post.kind == "offer" else None
        entry = await self.store.find(post.post_id) if hold is not None else None
        if hold is not None and entry is not None and is_within(entry, hold):
            await self.take_back.take_back_one(entry, hold.hold_id)

    async def _doubt(self, job: Job, sent: Sent) -> Entry | None:
        """Look why a send could not be written: another wrote it (returned), or the database has forgotten its intent."""
        entry = await self.store.find(sent.post_id)
        if entry is not None and entry.state in SETTLED:
            return entry
        state = entry.state if entry else None
        log.error(
            "the ledger has no intent of a post that was sent", post=sent.post_id, state=state
        )
        if entry is None:  # A promoted replica lacks it: a take-back must find what is out.
            tried = sent.attempt
            await self.store.record_intent(
                job.post, attempt=job.attempt, fence=tried.fence, at=tried.at
            )
            await self.store.record_sent(sent)
        return None

    async def end(self, job: Job, state: State, detail: str) -> None:
        """Write down an end at which nothing more is tried."""
        await self.store.record(
            job.post.post_id, state, done_at=self.clock.now(), detail=detail[:DETAIL_CHARS]
        )
        log.warning("not published", post=job.post.post_id, state=state, why=detail)
        await self.say(job, SAID[state], reason=detail[:DETAIL_CHARS])

    async def say(
        self,
        job: Job,
        result: Result,
        *,
        reason: str = "",
        hold_id: str | None = None,
        publication: Publication | None = None,
        at: datetime | None = None,
        fence: int | None = None,
    ) -> None:
        """Say what became of a post; the next one need not wait until Kafka has acknowledged it."""
        made = publication or Publication("")
        outcome = job.outcome(
            result, at=at or self.clock.now(), reason=reason, hold_id=hold_id, fence=fence,
            publication=made.id or None, url=made.url,
        )  # fmt: skip
        await self.tell(job, outcome)

    async def tell(self, job: Job, outcome: Outcome) -> None:
        """Hand an outcome to Kafka; the job is not settled before it is acknowledged."""
        job.unsaid += 1
        job.is_out |= outcome.result == "published"
        on_its_way = await self.emit(outcome, job.traceparent)
        on_its_way.add_done_callback(partial(_on_told, job))


def _on_told(job: Job, told: asyncio.Future[Any]) -> None:
    if not told.cancelled() and told.exception() is None:  # Else the process ends.
        job.said()
