"""The life of a post in the ledger, and what an unknown outcome means: tables, no I/O.

    intent ─▶ sent ─▶ retracting ─▶ retracted
       │                  └───────▶ retraction_failed ─▶ retracting
       ├────▶ failed ─▶ intent      (handed over again, a new attempt)
       └────▶ uncertain             (nobody knows; an offer is never sent again)

An intent that was certainly not sent is withdrawn: its row goes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from schemas.posts import Kind

State = Literal[
    "intent", "sent", "failed", "uncertain", "retracting", "retracted", "retraction_failed"
]

FOLLOWS: dict[State, frozenset[State]] = {
    "intent": frozenset({"sent", "failed", "uncertain"}),
    "failed": frozenset({"intent"}),
    "sent": frozenset({"retracting"}),
    "retracting": frozenset({"retracted", "retraction_failed"}),
    "retraction_failed": frozenset({"retracting"}),
    "uncertain": frozenset(),
    "retracted": frozenset(),
}


def before(state: State) -> list[State]:
    """Return the states that this one may follow."""
    return [earlier for earlier, later in FOLLOWS.items() if state in later]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a channel can do. The core decides from this alone.

    `idempotent_s`: for how long the channel recognises a key it has seen; 0 never, inf for ever.
    """

    idempotent_s: float
    can_delete: bool


@dataclass(frozen=True, slots=True)
class SendAgain:
    """Send it again, with the same key."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Nobody can know; the ledger says so."""

    reason: str


def after_unknown(kind: Kind, capabilities: Capabilities, *, age_s: float) -> SendAgain | GiveUp:
    """Decide after a send whose outcome is unknown; `age_s` is the time since the first try."""
    if age_s < capabilities.idempotent_s or math.isinf(capabilities.idempotent_s):
        return SendAgain()
    if kind == "update":
        return SendAgain()  # Twice is better than never.
    return GiveUp("the outcome is unknown and the channel would not recognise a second try")
