"""The life of an offer in the scheduler: which outcome moves which state where. A table, no I/O.

    unapproved ─▶ queued ─▶ claimed ─▶ handed ─▶ published ─▶ retracted | retraction_failed
        ▲           ▲          │          ├────▶ held        (the gate sent it back; the lane's recovery decides)
        │ (edited)  │          │          └────▶ expired | failed | uncertain
        └───────────┤          └── (said again, if whoever claimed it went silent)
                    ├── review (after a stop: a person decides)
                    └── cancelled

A queued offer in a held lane is held too: no row is written for that.
"""

from __future__ import annotations

from typing import Literal

from schemas.posts import Outcome, Result

State = Literal[
    "unapproved", "queued", "claimed", "handed", "held", "review", "published", "expired", "failed",
    "uncertain", "retracted", "retraction_failed", "cancelled",
]  # fmt: skip

IN_HAND: frozenset[State] = frozenset({"claimed", "handed"})
CANCELLABLE: frozenset[State] = frozenset({"unapproved", "queued", "held", "review"})
EDITABLE = CANCELLABLE
OUT: frozenset[State] = frozenset({"published", "retraction_failed"})  # What can be asked back.
_RETRACTABLE: frozenset[State] = IN_HAND | {"published", "uncertain"}

# What was published stays so: nothing but a retraction moves it on.
_MOVES: dict[Result, frozenset[State]] = {
    "published": IN_HAND | CANCELLABLE | {"uncertain", "cancelled", "expired", "failed"},
    "held": IN_HAND,
    "expired": IN_HAND,
    "failed": IN_HAND,
    "uncertain": IN_HAND,
    "retracted": _RETRACTABLE | {"retraction_failed"},
    "retraction_failed": _RETRACTABLE,
}


def after(
    state: State, attempt: int, outcome: Outcome, *, cancel_asked: bool = False
) -> State | None:
    """Return the state that an outcome moves an offer to; None where it changes nothing.

    An outcome of an earlier attempt speaks of the past, unless it says that the offer went out. What
    was to be cancelled while it was in hand, and did not go out, is cancelled.
    """
    if state not in _MOVES[outcome.result]:
        return None
    if outcome.attempt != attempt and outcome.result in ("held", "expired", "failed", "uncertain"):
        return None
    if cancel_asked and outcome.result in ("held", "expired", "failed"):
        return "cancelled"
    return outcome.result
