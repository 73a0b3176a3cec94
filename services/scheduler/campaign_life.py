"""The life of a campaign: who may move it where. A table, no I/O.

    draft ─▶ in_review ─▶ approved ─▶ running ◀─▶ paused
      ▲          │                       └───────────┴──▶ done
      └──────────┘ (rejected)            cancelled: from any but done

A campaign that needs no approval starts from `draft`. Pausing is marketing's own and never a hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["draft", "in_review", "approved", "running", "paused", "done", "cancelled"]
Action = Literal["submit", "approve", "reject", "start", "pause", "resume", "finish", "cancel"]

MOVES: dict[Action, dict[State, State]] = {
    "submit": {"draft": "in_review"},
    "approve": {"in_review": "approved"},
    "reject": {"in_review": "draft"},
    "start": {"approved": "running", "draft": "running"},
    "pause": {"running": "paused"},
    "resume": {"paused": "running"},
    "finish": {"running": "done", "paused": "done"},
    "cancel": {
        "draft": "cancelled", "in_review": "cancelled", "approved": "cancelled",
        "running": "cancelled", "paused": "cancelled",
    },
}  # fmt: skip
OF_APPROVERS: frozenset[Action] = frozenset({"approve", "reject"})
TAKES_POSTS: frozenset[State] = frozenset({"draft", "in_review", "approved", "running", "paused"})


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a campaign may not be moved so."""

    why: str
    is_about_the_caller: bool = False


def move(
    state: State, action: Action, *, needs_approval: bool, author: str, caller: str
) -> State | Refusal:
    """Return the state an action leads to; four eyes: nobody approves what they wrote."""
    later = MOVES[action].get(state)
    if later is None:
        allowed = " or ".join(MOVES[action])
        return Refusal(f"the campaign is {state}: only {allowed} can be moved by {action}")
    if action in OF_APPROVERS and caller == author:
        return Refusal(f"{caller} wrote this campaign: somebody else has to {action} it", True)
    if action == "start" and state == "draft" and needs_approval:
        return Refusal("the campaign needs approval: submit it first")
    return later
