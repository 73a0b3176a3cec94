"""A post on its way: what one publisher knows of it and of the sends it made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from schemas.posts import Outcome, Post, Result
from services.publisher.backoff import backoff_s
from services.publisher.channels import Partly, Publication, Uncertain, Unknown
from services.publisher.ledger import Attempt, Entry, State

SAID: Final[dict[State, Result]] = {
    "sent": "published",
    "failed": "failed",
    "uncertain": "uncertain",
    "retracting": "published",
    "retracted": "retracted",
    "retraction_failed": "retraction_failed",
}


@dataclass(slots=True, eq=False)
class Job:
    """One post to be settled: what became of it is in the ledger, and Kafka has acknowledged that it was said.

    `dropped` when it is another publisher's by now, or soon: nothing new begins. `under_way`: from the ask for its
    intent until it is settled; a send that has begun comes to its end.
    """

    post: Post
    attempt: int
    settled: Callable[[Job], None]
    traceparent: str = ""
    dropped: bool = False
    under_way: bool = False
    on_rest: Callable[[], None] = lambda: None  # Somebody waits for the end of what is under way.
    unsaid: int = 0  # Outcomes on their way to Kafka.
    is_over: bool = False
    # What this run knows of the post's sends:
    recorded: bool = False
    has_turn: bool = False
    maybe_sent: bool = False
    so_far: Publication | None = None  # The parts of a thread that are out.
    last_part: Attempt | None = None
    sent: tuple[Attempt, Publication] | None = None  # It is out, whatever the ledger says.
    failures: int = 0
    steps_aside: bool = False  # Whoever settles it comes back for its next try,
    again_s: float = 0  # which is due after so long;
    lets_by: bool = False  # and an update that is tried for long does not stop those behind it,
    overtaken: bool = False  # of which one is out by now.
    is_out: bool = False
    fails_since_s: float = 0.0  # Monotonic.
    unknowns: int = 0
    asked_at: list[datetime] = field(default_factory=list)  # For an intent.
    begun_at: datetime | None = None
    tried_at: datetime | None = None
    last_failure: str = ""

    @property
    def goes_on(self) -> bool:
        if (
            self.sent is not None and not self.is_over
        ):  # What the network answered nobody else knows.
            return True
        return not self.dropped or self.under_way

    def rests(self) -> None:
        """Say that nothing is under way (any more)."""
        if self.under_way and not self.unsaid:
            self.under_way = False
            self.on_rest()

    def said(self) -> None:
        """Count one of the outcomes as acknowledged."""
        self.unsaid -= 1
        if self.is_over:
            self.ends()

    def ends(self) -> None:
        """Be over; and settled, when all that was said of it has been acknowledged."""
        self.is_over = True
        if not self.unsaid:
            self.settled(self)
            self.rests()

    def next_rest_s(self, after_s: float, *, chance: float) -> float:
        """Count one more failure; return how long to wait for the next try, in seconds, not less than the network asks."""
        self.failures += 1
        return max(after_s, backoff_s(self.failures, chance=chance))

    def is_mine(self, entry: Entry, publisher: str) -> bool:
        """Say whether an intent is one that this job asked for, though the database's answer was lost, or has adopted."""
        return entry.publisher == publisher and entry.intent_at in self.asked_at

    def is_settled_by(self, entry: Entry | None) -> bool:
        """Say whether a row of the ledger is this post's end."""
        if entry is None or entry.state == "intent":
            return False
        if entry.state == "withdrawn":
            return entry.attempt == self.attempt
        return entry.state != "failed" or entry.attempt >= self.attempt

    def is_behind(self, entry: Entry) -> bool:
        """Say whether a later try of this post was handed over since: then this one has come again."""
        return entry.state == "withdrawn" and entry.attempt > self.attempt

    def adopt(self, entry: Entry) -> None:
        """Go on with a send that another publisher left; nobody knows how far it came, unless it said so."""
        self.recorded, self.begun_at, self.maybe_sent = True, entry.intent_at, entry.publisher != ""
        self.asked_at.append(entry.intent_at)
        if entry.publication:
            self.so_far = Publication(entry.publication, entry.url)

    def keep(self, failure: Exception) -> None:
        """Keep what a failed send says of what is out, before anything else: the ledger may not answer."""
        if isinstance(failure, Partly):
            self.so_far = failure.so_far or self.so_far
            self.maybe_sent |= failure.so_far is None
            if failure.because is not None:
                self.keep(failure.because)
        else:
            self.maybe_sent |= isinstance(failure, Unknown | Uncertain)

    def in_part(self, why: str) -> Publication:
        """Return what is out of a thread whose rest does not follow."""
        assert self.so_far is not None, "some of it is out"
        out = len(self.so_far.id.split())
        wanted = f" of {len(self.post.thread) + 1}" if self.post.thread else ""
        detail = f"only {out}{wanted} parts went out: {why}"
        return Publication(self.so_far.id, self.so_far.url, detail=detail)

    def outcome(self, result: Result, *, at: datetime, **values: Any) -> Outcome:
        """Return what became of the post."""
        post = self.post
        return Outcome(
            post_id=post.post_id, kind=post.kind, account=post.account, attempt=self.attempt,
            incident_id=post.incident_id, result=result, at=at, **values,
        )  # fmt: skip

    def told_by(self, entry: Entry) -> Outcome:
        """Return what the ledger says became of it."""
        result: Result = "held" if entry.hold_id else "expired"
        return self.outcome(
            SAID.get(entry.state, result), at=entry.done_at or entry.intent_at, reason=entry.detail,
            hold_id=entry.hold_id, fence=entry.fence, publication=entry.publication or None,
            url=entry.url,
        )  # fmt: skip
