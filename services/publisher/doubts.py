"""A send whose outcome nobody knows: it is sent again with its key, looked for, or left as uncertain.

What a hold covers by now is not sent again. It is looked for all the same: what stands there is taken back. A network
may still be at work on what was sent to it: that it is not there yet is no answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final, assert_never

from services.kit.telemetry import Clock
from services.publisher.channels import (
    Channel,
    Learns,
    NotSent,
    ReadsBack,
    Refused,
    Unknown,
    as_documented,
)
from services.publisher.ends import Ends
from services.publisher.job import Job
from services.publisher.ledger import (
    DETAIL_CHARS,
    Capabilities,
    GiveUp,
    LookUp,
    NotThere,
    SendAgain,
    after_unknown,
    in_doubt_and_held,
    refusal,
)
from services.publisher.proof import LOST

LANDS_S: Final = 10.0  # Behind a try's begin: what is not there by then is not there.
UNKNOWN_TRIES: Final = 5  # An update on a channel that knows no keys is not said twenty times.


class Doubts:
    """What follows an unknown outcome, on all channel accounts; `rest` is called between two looks."""

    def __init__(
        self,
        channels: Mapping[str, Channel],
        ends: Ends,
        *,
        clock: Clock,
        rest: Callable[[Job], Awaitable[None]],
    ) -> None:
        self.channels, self.ends, self.clock, self.rest = channels, ends, clock, rest

    async def decide(
        self, job: Job, why: str, *, looked: bool = False, may_send: bool = True
    ) -> bool:
        """Decide; True at the end, False where the gate is asked again. `looked`: it was looked for and not found."""
        job.rests()
        channel = self.channels.get(job.post.account)
        never = refusal(job.post, channel.capabilities if channel else None)
        if never or channel is None:
            return await self._give_up(job, f"{why}, and now {never}")
        if isinstance(channel, Learns):
            await channel.learn()
        can = channel.capabilities
        decision = self._decision(job, can, looked=looked, may_send=may_send)
        match decision:
            case SendAgain():
                is_blind = can.idempotent_s == 0 and not can.refuses_duplicates
                return is_blind and job.unknowns >= UNKNOWN_TRIES and await self._give_up(job, why)
            case LookUp():
                return await self._look_up(job, channel, why, may_send=may_send)
            case NotThere():
                # While we looked, whoever sent it may have written what became of it: the ledger is asked anew.
                job.maybe_sent = job.recorded = False
                return False
            case GiveUp(reason):
                return await self._give_up(job, f"{reason}: {why}")
            case _:
                assert_never(decision)

    def _decision(
        self, job: Job, can: Capabilities, *, looked: bool, may_send: bool
    ) -> SendAgain | LookUp | NotThere | GiveUp:
        if may_send:
            return after_unknown(job.post.kind, can, age_s=self._age_s(job), looked=looked)
        return in_doubt_and_held(can, parts=1 + len(job.post.thread), looked=looked)

    async def _give_up(self, job: Job, why: str) -> bool:
        await self.ends.end(job, "uncertain", why)
        return True

    def _age_s(self, job: Job) -> float:
        """Return for how long the post may have been there: since its first try began."""
        assert job.begun_at is not None
        return (self.clock.now() - job.begun_at).total_seconds()

    def _may_still_land(self, job: Job, *, since_s: float) -> bool:
        """Say whether the network may be at work on it; we look for so long at most, whatever wall clocks say."""
        begun_at = job.tried_at or job.begun_at
        assert begun_at is not None
        age_s = (self.clock.now() - begun_at).total_seconds()
        return max(age_s, self.clock.monotonic_s() - since_s) < LANDS_S

    async def _look_up(self, job: Job, channel: Channel, why: str, *, may_send: bool) -> bool:
        assert isinstance(channel, ReadsBack), "its capabilities say that it reads back"
        can, since_s = channel.capabilities, self.clock.monotonic_s()
        while not job.dropped:
            try:
                with as_documented():
                    found = await channel.look_up(
                        job.post, key=job.post.post_id, age_s=self._age_s(job)
                    )
            except (NotSent, Unknown, Refused) as error:
                is_final = isinstance(error, Refused) and not may_send
                if is_final or self.clock.now() >= job.post.latest_at:
                    return await self._give_up(job, f"{why}; nor could it be looked up: {error}")
                job.last_failure = str(error)[:DETAIL_CHARS]
                await self.rest(job)
                if channel.capabilities != can:  # It has learned that there is another way.
                    return await self.decide(job, why, may_send=may_send)
                continue
            if found is None:
                next_ = self._decision(job, can, looked=True, may_send=may_send)
                if not isinstance(next_, SendAgain) and self._may_still_land(job, since_s=since_s):
                    await self.rest(job)
                    continue
                return await self.decide(job, why, looked=True, may_send=may_send)
            await self.ends.sent(job, self.ends.attempt(job, None, LOST), found)
            return True
        return False
