"""HTTP of questions: why an offer did not go out, what a hold would stop, what its end would bring."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from sqlalchemy import RowMapping
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.base import Id, Instant
from schemas.labels import Matchers, covers
from services.kit.web import Caller, field_problem, require
from services.scheduler import campaign_api, desk, questions, rehearsal
from services.scheduler.answering import Why, why
from services.scheduler.answers import read_audit
from services.scheduler.bodies import DAY_S
from services.scheduler.campaign_api import READERS
from services.scheduler.post_desk import PostDesk
from services.scheduler.recovery import Plan, Slots, recover
from services.scheduler.rehearsal import Fate

PREVIEW_POSTS = 1_000
EVENING_POSTS = 200_000
_PLAN: Final = TypeAdapter(Plan)


class WouldHold(BaseModel):
    """A hold that is only tried."""

    model_config = ConfigDict(extra="forbid")

    matchers: Matchers


class Hour(BaseModel):
    """Offers of one campaign that are due in one hour."""

    campaign_id: Id
    campaign: str
    hour: datetime
    offers: int


class HoldPlan(BaseModel):
    """What a hold would stop, of what waits in the queue."""

    lanes: int
    offers: int
    hours: list[Hour]


class Preview(BaseModel):
    """What would become of offers if all that stops them ended now; `cut` where there are more."""

    counts: dict[str, int]
    posts: list[dict[str, Any]]
    cut: bool


class EveningHold(BaseModel):
    """A hold of an evening that is only played."""

    model_config = ConfigDict(extra="forbid")

    hold_id: Id
    matchers: Matchers
    opened_at: Instant
    released_at: Instant | None = None
    take_back_s: int = Field(default=0, ge=0, le=DAY_S)


class Evening(BaseModel):
    """When an evening begins and ends, and its holds."""

    model_config = ConfigDict(extra="forbid")

    begin_at: Instant
    end_at: Instant
    holds: tuple[EveningHold, ...] = Field(max_length=1_000)


class FatedPost(BaseModel):
    """What would become of an offer; `then_at` is when it would go out by itself."""

    post_id: str
    campaign_id: str
    due_at: datetime
    fate: Fate
    then_at: datetime | None
    hold_id: str | None


class Played(BaseModel):
    """What would become of the offers that are due in an evening; `cut` where there are more."""

    counts: dict[Fate, int]
    campaigns: dict[str, dict[Fate, int]]
    posts: list[FatedPost]
    cut: bool


def add_routes(router: APIRouter, post_desk: PostDesk) -> None:
    """Add the routes of questions."""
    engine = post_desk.engine

    @router.get("/posts/{post_id}/why")
    async def ask_why(post_id: Id, _: Caller = require(*READERS)) -> Why:
        """Say why an offer did or did not go out, and all that led to it."""
        async with engine.connect() as connection:
            row = await desk.read_post(connection, post_id)
            post = await post_desk.read(connection, post_id)
            assert row is not None, "it was read"
            return why(
                post,
                await campaign_api.look(connection, post.campaign_id),
                lane=dict(await desk.read_lane(connection, row["lane_id"])),
                holds=_plain(await desk.read_holds_of_lane(connection, row["lane_id"])),
                audit=_plain(await read_audit(connection, [post_id, post.campaign_id])),
                outcomes=_plain(await desk.read_outcomes(connection, post_id)),
            )

    @router.post("/holds/dry-run")
    async def try_hold(body: WouldHold, _: Caller = require(*READERS)) -> HoldPlan:
        """Say which waiting offers these matchers would hold, by campaign and hour; nothing is held."""
        async with engine.connect() as connection:
            lanes = [
                lane_id
                for lane_id, labels in await questions.lanes(connection)
                if covers(body.matchers, labels)
            ]
            rows = await questions.by_hour(connection, lanes)
        hours = [Hour.model_validate(dict(row)) for row in rows]
        return HoldPlan(lanes=len(lanes), offers=sum(one.offers for one in hours), hours=hours)

    @router.post("/rehearsals")
    async def play_evening(
        body: Evening,
        limit: Annotated[int, Query(ge=0, le=PREVIEW_POSTS)] = 100,
        _: Caller = require(*READERS),
    ) -> Played:
        """Say what the holds of an evening would do to the offers that wait; nothing is changed."""
        if not timedelta(0) < body.end_at - body.begin_at <= timedelta(seconds=7 * DAY_S):
            raise field_problem("end_at", "must be later than begin_at, by a week at most")
        async with engine.connect() as connection:
            rows = await questions.due_between(
                connection, body.begin_at, body.end_at, limit=EVENING_POSTS + 1
            )
        return _played(body, rows[:EVENING_POSTS], limit=limit, cut=len(rows) > EVENING_POSTS)

    @router.get("/campaigns/{campaign_id}/recovery")
    async def preview_recovery(
        campaign_id: Id,
        limit: Annotated[int, Query(ge=1, le=PREVIEW_POSTS)] = 100,
        _: Caller = require(*READERS),
    ) -> Preview:
        """Say what would become of offers if every hold over this campaign ended now."""
        async with engine.connect() as connection:
            return await _preview(connection, campaign_id, limit)


def _played(evening: Evening, rows: Sequence[RowMapping], *, limit: int, cut: bool) -> Played:
    lanes = {
        row["lane_id"]: rehearsal.Lane(
            campaign_id=row["campaign_id"], labels=row["labels"], quiet_s=row["quiet_s"],
            plan=_PLAN.validate_python(row["recovery"]),
        )
        for row in rows
    }  # fmt: skip
    names = {row["campaign_id"]: row["campaign"] for row in rows}
    offers = [
        rehearsal.Offer(
            **{name: row[name] for name in ("post_id", "lane_id", "due_at", "latest_at")}
        )
        for row in rows
    ]
    holds = [rehearsal.Hold(**dict(hold)) for hold in evening.holds]
    played = Played(counts={}, campaigns={}, posts=[], cut=cut)
    for one in rehearsal.rehearse(offers, lanes, holds, now=evening.begin_at):
        campaign_id = lanes[one.offer.lane_id].campaign_id
        mine = played.campaigns.setdefault(f"{names[campaign_id]} ({campaign_id})", {})
        for counts in (played.counts, mine):
            counts[one.fate] = counts.get(one.fate, 0) + 1
        if one.fate != "as planned" and len(played.posts) < limit:
            played.posts.append(
                FatedPost(
                    post_id=one.offer.post_id, campaign_id=campaign_id, due_at=one.offer.due_at,
                    fate=one.fate, then_at=one.then_at, hold_id=one.hold_id,
                )
            )  # fmt: skip
    return played


async def _preview(connection: AsyncConnection, campaign_id: Id, limit: int) -> Preview:
    campaign = await campaign_api.look(connection, campaign_id)
    rows = await questions.stopped(connection, campaign_id, PREVIEW_POSTS + 1)
    counts: dict[str, int] = {}
    posts: list[dict[str, Any]] = []
    slots: Slots | None = None
    for row in rows[:PREVIEW_POSTS]:
        now = row["now"] + timedelta(seconds=campaign.quiet_s)
        slots = slots or Slots(max(now, row["next_slot_at"] or now))
        decided = recover(
            due_at=row["due_at"], latest_at=row["latest_at"], now=now, plan=campaign.recovery,
            stopped=now - (row["stopped_at"] or now), slots=slots, why="due during a stop",
        )  # fmt: skip
        counts[decided.state] = counts.get(decided.state, 0) + 1
        if len(posts) < limit:
            posts.append(
                {
                    "post_id": row["post_id"], "due_at": row["due_at"], "then": decided.state,
                    "then_due_at": decided.due_at, "reason": decided.reason,
                }
            )  # fmt: skip
    return Preview(counts=counts, posts=posts, cut=len(rows) > PREVIEW_POSTS)


def _plain(rows: Sequence[RowMapping]) -> list[dict[str, Any]]:
    return [dict(row) for row in rows]
