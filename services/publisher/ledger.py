"""The life of a post in the ledger, and what an unknown outcome means: tables, no I/O.

    intent ─▶ sent ─▶ retracting ─▶ retracted
       │                  └───────▶ retraction_failed ─▶ retracting
       ├────▶ failed      (refused for good)                                 ┐ certainly not sent: a later attempt
       ├────▶ withdrawn   (held or too late)                                 ┘ may begin behind it
       └────▶ uncertain   (nobody knows; an offer is never sent again)

What is over without a send becomes `sent` all the same when whoever sent it has the network's answer: another publisher
had taken the intent over meanwhile, and could not know.

What the gate holds has no intent: it begins as withdrawn; what its account can never take begins as failed. So an
attempt that was answered stays answered, if its record is read again when the hold has ended, or the account can, and
marketing has the offer back.

The database has the same table and refuses every other move.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from schemas.channels import MediaLimit, TextLimit
from schemas.posts import Kind, Post

DETAIL_CHARS: Final = 500  # What a row says in words.

State = Literal[
    "intent", "sent", "failed", "withdrawn", "uncertain",
    "retracting", "retracted", "retraction_failed",
]  # fmt: skip

FOLLOWS: dict[State, frozenset[State]] = {
    "intent": frozenset({"sent", "failed", "withdrawn", "uncertain"}),
    "failed": frozenset({"sent"}),
    "withdrawn": frozenset({"sent"}),
    "sent": frozenset({"retracting"}),
    "retracting": frozenset({"retracted", "retraction_failed"}),
    "retraction_failed": frozenset({"retracting"}),
    "uncertain": frozenset({"sent"}),
    "retracted": frozenset(),
}
BEGINS: frozenset[State] = frozenset({"intent", "withdrawn", "failed"})
UNSENT: frozenset[State] = frozenset({"withdrawn", "failed"})  # A later attempt may follow.
ReadBack = Literal["exact", "search", "none"]


def before(state: State) -> list[State]:
    """Return the states that this one may follow."""
    return [earlier for earlier, later in FOLLOWS.items() if state in later]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try of a post, and the fence it relied on; times are the brokers', as fences tell them."""

    at: datetime
    publisher: str
    answer: str
    fence: int | None = None
    fence_begun_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the ledger. `begun_at` is when the send that worked began."""

    post_id: str
    kind: Kind
    account: str
    state: State
    attempt: int
    labels: dict[str, str]
    incident_id: str | None
    intent_at: datetime
    done_at: datetime | None
    publication: str | None
    url: str | None
    detail: str
    hold_id: str | None
    publisher: str
    fence: int | None
    fence_begun_at: datetime | None
    begun_at: datetime | None
    attempts: list[dict[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a channel can do. The core decides from this alone.

    `idempotent_s`: for how long the channel recognises a key it has seen; 0 never, inf for ever.
    `reads_back`: whether one can look a post up whose answer was lost: by its key, or by its words.
    `refuses_duplicates`: it refuses what it has already, and so says that it has it.
    `parallel`: how many offers may be under way at once; 1 keeps their order.
    `media`: which pictures and videos it takes; None: none. `threads`: an offer may have several parts.
    `has_rate`: the network tells of a limit that all who use the account share; `delete_bucket` is
    the one that deletions draw on.
    """

    idempotent_s: float
    can_delete: bool
    reads_back: ReadBack = "none"
    refuses_duplicates: bool = False
    text: TextLimit | None = None
    media: MediaLimit | None = None
    threads: bool = False
    parallel: int = 1
    has_rate: bool = False
    delete_bucket: str = "delete"


def refusal(post: Post, can: Capabilities | None) -> str:
    """Say why a post's account can never take it; empty: it may."""
    if can is None:
        return f"there is no channel account {post.account}"
    if post.media and can.media is None:
        return "media: this channel takes no pictures and no videos"
    if post.thread and not can.threads:
        return "thread: this channel takes posts of one part only"
    return can.media.refusal(post.media) if can.media else ""


@dataclass(frozen=True, slots=True)
class SendAgain:
    """Send it again, with the same key."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """Look whether it is there, and decide then."""


@dataclass(frozen=True, slots=True)
class NotThere:
    """It was looked for where one can know: nothing was sent."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nobody can know; the ledger says so."""

    reason: str


def after_unknown(
    kind: Kind, can: Capabilities, *, age_s: float, looked: bool = False
) -> SendAgain | LookUp | GiveUp:
    """Decide after a send whose outcome is unknown; `age_s` is the time since the first try.

    `looked`: it was looked for since, and was not there.
    """
    knows_keys = can.idempotent_s > 0  # Where clocks differ an age may be negative.
    if (knows_keys and age_s < can.idempotent_s) or can.refuses_duplicates:
        return SendAgain()
    if can.reads_back != "none" and not looked:
        return LookUp()
    if can.reads_back == "exact":
        return SendAgain()
    if kind == "update":
        return SendAgain()  # Twice is better than never.
    return GiveUp("the outcome is unknown and the channel would not recognise a second try")


def in_doubt_and_held(
    can: Capabilities, *, parts: int, looked: bool = False
) -> LookUp | NotThere | GiveUp:
    """Decide on such a send where there may be no other: a hold covers it by now, or it is too late.

    What stands is to be taken back, so that it is looked for; in a thread a part may stand where the whole does not.
    """
    if can.reads_back != "none" and not looked:
        return LookUp()
    if can.reads_back == "exact" and parts == 1:
        return NotThere()
    return GiveUp("looked for and not found" if looked else "the network cannot be asked")
