"""Why an offer did or did not go out, in plain words, from what was written down. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

from services.scheduler.bodies import Campaign, PostView
from services.scheduler.campaign_life import State as CampaignState


class Step(BaseModel):
    """One thing that happened to an offer, or that it waits for; `at` is absent for what holds now."""

    at: datetime | None
    what: str
    by: str = ""
    hold_id: str | None = None
    incident_id: str | None = None
    fence: int | None = None


class Why(BaseModel):
    """The answer in one sentence, and all that led to it, the oldest first."""

    post_id: str
    state: str
    answer: str
    steps: list[Step]


_RESTS: dict[CampaignState, str] = {
    "draft": "its campaign is a draft that nobody started",
    "in_review": "its campaign waits for approval",
    "approved": "its campaign is approved and was not started",
    "paused": "marketing paused its campaign",
}
_RESULTS = {
    "published": "it went out",
    "held": "the gate held it",
    "expired": "it came too late to be of use",
    "failed": "the channel refused it",
    "uncertain": "nobody knows whether it went out",
    "retracted": "it was taken back",
    "retraction_failed": "it could not be taken back",
}


def why(
    post: PostView,
    campaign: Campaign,
    *,
    lane: Mapping[str, Any],
    holds: Sequence[Mapping[str, Any]],
    audit: Sequence[Mapping[str, Any]],
    outcomes: Sequence[Mapping[str, Any]],
) -> Why:
    """Answer for one offer; `holds` cover its lane now."""
    steps = [_step_of_audit(line) for line in audit] + [_step_of_outcome(one) for one in outcomes]
    steps.sort(key=lambda step: step.at.timestamp() if step.at else 0.0)
    steps += [_step_of_hold(one) for one in holds]
    return Why(
        post_id=post.post_id,
        state=post.state,
        answer=_answer(post, campaign, lane, holds),
        steps=steps,
    )


def _answer(
    post: PostView,
    campaign: Campaign,
    lane: Mapping[str, Any],
    holds: Sequence[Mapping[str, Any]],
) -> str:
    match post.state:
        case "published":
            return "It went out." + (f" {post.url}" if post.url else "")
        case "unapproved":
            return "It waits for the approval of somebody who did not write it."
        case "review":
            return f"It waits for a person's decision: {post.reason}."
        case "claimed" | "handed":
            asked = " Its cancellation was asked for." if post.cancel_at else ""
            return f"It is at the publisher, which has not said yet what became of it.{asked}"
        case "queued" | "held":
            return _waiting(post, campaign, lane, holds)
        case _:
            said = _RESULTS.get(post.state, post.state)
            return f"{said.capitalize()}" + (f": {post.reason}." if post.reason else ".")


def _waiting(
    post: PostView,
    campaign: Campaign,
    lane: Mapping[str, Any],
    holds: Sequence[Mapping[str, Any]],
) -> str:
    if holds:
        first = holds[0]["fact"]
        more = f", and {len(holds) - 1} more" if len(holds) > 1 else ""
        return f"It is held: {first['reason']} ({holds[0]['hold_id']}{more})."
    if campaign.state in _RESTS:
        return f"It waits: {_RESTS[campaign.state]}."
    if lane["state"] == "recovering":
        return f"A hold over it has ended; its quiet period is over at {lane['recovers_at'].isoformat()}."
    return f"It is due at {post.due_at.isoformat()}."


def _step_of_audit(line: Mapping[str, Any]) -> Step:
    comment = line["detail"].get("comment") or line["detail"].get("name") or ""
    said = line["action"].replace(".", " ").replace("-", " ")
    return Step(at=line["at"], what=said + (f": {comment}" if comment else ""), by=line["author"])


def _step_of_outcome(one: Mapping[str, Any]) -> Step:
    said = _RESULTS.get(one["result"], one["result"])
    return Step(
        at=one["at"],
        what=f"try {one['attempt']}: {said}" + (f": {one['reason']}" if one["reason"] else ""),
        by="publisher",
        hold_id=one["hold_id"],
        fence=one["fence"],
    )


def _step_of_hold(one: Mapping[str, Any]) -> Step:
    fact = one["fact"]
    return Step(
        at=None,
        what=f"held since {fact['opened_at']} by {fact['matchers']}: {fact['reason']}",
        by=fact.get("author", "detector"),
        hold_id=one["hold_id"],
        incident_id=fact.get("incident_id"),
    )
