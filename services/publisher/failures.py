"""What follows a try that failed: another one later, a look at what is in doubt, or an end.

Offers are tried until their latest useful time, and updates for a day. An update that is not taken for a minute lets the
later ones of its incident by (`turns.py`), and ends when one of them is out: customers do not read what was, behind
what is. Ten minutes are a person's matter.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final, Protocol

import structlog

from services.kit.telemetry import Clock
from services.publisher.channels import (
    Duplicate,
    NotSent,
    Partly,
    Publication,
    Refused,
    Uncertain,
    Unknown,
)
from services.publisher.doubts import Doubts
from services.publisher.ends import Ends
from services.publisher.gate import Cleared
from services.publisher.job import Job
from services.publisher.ledger import DETAIL_CHARS
from services.publisher.paces import Paces
from services.publisher.proof import PART
from services.publisher.store import Store

LET_BY_S: Final = 60.0  # Short outages change no order.
TELL_AFTER_S: Final = 600.0  # An update that did not get through so long is a person's matter.
log = structlog.get_logger()


class Rest(Protocol):
    async def __call__(self, job: Job, after_s: float = 0, /) -> None: ...


class Failures:
    """Says what follows, on all channel accounts; `rest` waits before the next try of a job that steps not aside."""

    def __init__(
        self,
        store: Store,
        paces: Paces,
        ends: Ends,
        doubts: Doubts,
        *,
        clock: Clock,
        rest: Rest,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.store, self.paces, self.ends, self.doubts = store, paces, ends, doubts
        self.clock, self.rest, self.chance = clock, rest, chance
        self.late: dict[str, str] = {}  # Updates that do not get through, and why.

    def give_back(self, job: Job) -> None:
        """Let the next offer try an account that fails: this one had its turn, and no news came of it."""
        if job.has_turn and job.post.kind == "offer":
            self.paces.unused(job.post.account)
        job.has_turn = False

    async def meet(
        self,
        job: Job,
        cleared: Cleared,
        error: Partly | NotSent | Duplicate | Refused | Unknown | Uncertain,
    ) -> bool:
        """Do what a failed try asks for; True at the end, or where the job steps aside for its next try."""
        account, why, after_s, is_end = job.post.account, str(error), 0.0, False
        job.last_failure = why[:DETAIL_CHARS]
        match error:
            case Partly():
                await self._on_part(job, cleared, error)
                if error.because is None:
                    return False  # The clearance ran out, not the channel.
                return await self.meet(job, cleared, error.because)
            case NotSent():
                await self.ends.note(job, cleared, f"not sent: {why}")
                await self.paces.hear(account, error.told)
                if error.told is None:  # What is told gives the next turn, to all publishers.
                    self._count(job, why)
                    after_s = error.retry_after_s
            case Duplicate() | Refused() | Uncertain():
                await self._on_last_word(job, cleared, error)
                is_end = True
            case Unknown():
                job.unknowns += 1
                self._count(job, why)
                await self.ends.note(job, cleared, f"unknown: {why}")
                is_end = await self.doubts.decide(job, why)
        return is_end or await self._retry(job, why, after_s=after_s)

    def _count(self, job: Job, why: str) -> None:
        """Let a failure speak for the account; that of a post which fails for long speaks for itself alone."""
        if not job.lets_by:
            self.paces.failed(job.post.account, why)
            job.has_turn = False

    async def _on_part(self, job: Job, cleared: Cleared, error: Partly) -> None:
        """Write down what is out: whoever goes on sends the rest, and not this again."""
        if error.so_far is None:
            return
        job.last_part = self.ends.attempt(job, cleared, f"{PART}: {error}")
        await self.store.record_attempt(
            job.post.post_id, job.last_part, publication=error.so_far.id, url=error.so_far.url
        )

    async def _on_last_word(
        self, job: Job, cleared: Cleared, error: Duplicate | Refused | Uncertain
    ) -> None:
        self.paces.worked(job.post.account)
        job.has_turn = False
        if isinstance(error, Duplicate) and job.maybe_sent:
            detail = "the network has it already, under an id that it did not tell"
            sent = self.ends.attempt(job, cleared, "published")
            await self.ends.sent(job, sent, Publication("", detail=detail))
        elif isinstance(error, Uncertain):
            await self.ends.end(job, "uncertain", str(error))
        elif job.so_far is not None:
            await self.ends.end_in_part(job, str(error))
        else:
            await self.ends.note(job, cleared, f"refused: {error}")
            await self.ends.end(job, "failed", str(error))

    async def _retry(self, job: Job, why: str, *, after_s: float = 0) -> bool:
        self.give_back(job)
        job.fails_since_s = job.fails_since_s or self.clock.monotonic_s()
        assert job.begun_at is not None
        log.warning("not sent", post=job.post.post_id, account=job.post.account, why=why)
        if job.post.kind == "update":
            now = self.clock.now()
            if now >= job.post.latest_at:
                await self.ends.give_up(job, why)
                return True
            job.lets_by = self.clock.monotonic_s() - job.fails_since_s > LET_BY_S
            if (now - job.begun_at).total_seconds() > TELL_AFTER_S:
                self.late[job.post.post_id] = f"{job.post.account}: {why}"
        if job.steps_aside:
            job.again_s = job.next_rest_s(after_s, chance=self.chance())
            return True
        await self.rest(job, after_s)
        return False
