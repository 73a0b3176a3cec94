"""What the ledger proves of the promise: each send of an offer against its fence and the holds. Pure.

A send is proven when it began less than the lease behind the begin of its fence, and no hold that covers
the offer was opened before that begin and still open at the send. All of it is the brokers' time: a publisher
takes it from its fences. What lies within `skew` of each other is said to be unknown: brokers' clocks differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from schemas.labels import Labels, Matchers, covers

Verdict = Literal["proven", "unknown", "no fence", "fence too old", "covered by a hold", "left"]
BROKEN: frozenset[Verdict] = frozenset({"no fence", "fence too old", "covered by a hold", "left"})
LOST = "found, published before"
PART = "in part"  # How the answer of a try begins that left a thread unfinished.


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A hold, from its opening to its release, by the brokers' time."""

    hold_id: str
    matchers: Matchers
    opened_at: datetime
    released_at: datetime | None
    take_back_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """A published offer as the ledger has it; `attempts` are the tries, the newest last."""

    post_id: str
    account: str
    state: str
    done_at: datetime
    begun_at: datetime | None
    fence_begun_at: datetime | None
    attempts: Sequence[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What is promised, and how far two clocks may differ."""

    lease: timedelta
    skew: timedelta = timedelta(0)
    grace: timedelta = timedelta(minutes=10)  # A take-back may still be under way.


def covering(labels: Labels, spans: Sequence[Span]) -> list[Span]:
    """Return the holds that cover these labels."""
    return [span for span in spans if covers(span.matchers, labels)]


def prove(send: Send, spans: Sequence[Span], rule: Rule, *, now: datetime) -> tuple[Verdict, str]:
    """Judge one send; `spans` are the holds that cover it. The text says what is wrong."""
    tries = _tries(send)
    if not tries:
        lost = any(str(one.get("answer")) == LOST for one in send.attempts)
        why = "a publisher ended in the middle of it" if lost else "its row names none"
        return ("unknown" if lost else "no fence"), why
    doubt = ""
    for begun_at, fence_at in tries:
        age = begun_at - fence_at
        if not timedelta(0) <= age < rule.lease:
            return "fence too old", f"{age.total_seconds():.3f} s at the send"
        for span in spans:
            if _overlaps(span, begun_at, fence_at, -rule.skew):
                return "covered by a hold", span.hold_id
            if _overlaps(span, begun_at, fence_at, rule.skew):
                doubt = f"{span.hold_id} opened or ended within the clocks' difference"
    if left := _left(send, spans, rule, now=now):
        return "left", left
    return ("unknown", doubt) if doubt else ("proven", "")


def _tries(send: Send) -> list[tuple[datetime, datetime]]:
    """Return when each try that may have published began, and its fence; a thread has several."""
    last = send.begun_at is not None and send.fence_begun_at is not None
    found = [
        (datetime.fromisoformat(one["at"]), datetime.fromisoformat(one["fence_begun_at"]))
        for one in send.attempts
        if "fence_begun_at" in one and (not last or str(one["answer"]).startswith(PART))
    ]
    if send.begun_at is not None and send.fence_begun_at is not None:
        found.append((send.begun_at, send.fence_begun_at))
    return found


def _overlaps(span: Span, begun_at: datetime, fence_at: datetime, slack: timedelta) -> bool:
    was_open = span.opened_at <= fence_at + slack
    return was_open and (span.released_at is None or begun_at < span.released_at + slack)


def _left(send: Send, spans: Sequence[Span], rule: Rule, *, now: datetime) -> str:
    """Name a hold that should have taken it back, and of which the ledger says nothing."""
    if send.state != "sent":
        return ""
    for span in spans:
        begin, end = span.opened_at - timedelta(seconds=span.take_back_s), span.released_at or now
        was_long_open = end - span.opened_at > rule.grace
        if begin <= send.done_at < end and was_long_open:
            return f"{span.hold_id} was to take it back, and nothing says that it did"
    return ""
