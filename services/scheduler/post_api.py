"""HTTP of offers: queued, changed, cancelled, decided on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.base import Id
from schemas.labels import matches, parse_matchers
from schemas.posts import RetractPost
from services.kit.web import Caller, Problem, require
from services.scheduler import campaign_api, desk, questions
from services.scheduler.answers import audit
from services.scheduler.bodies import (
    Comment,
    Decision,
    Page,
    PostBodies,
    PostChange,
    PostView,
    SparsePage,
    Wanted,
)
from services.scheduler.campaign_api import READERS
from services.scheduler.checks import check
from services.scheduler.intake import Asked, Intake
from services.scheduler.life import EDITABLE, OUT
from services.scheduler.once import IdempotencyKey, IfMatch, key_of, must_match, once, tag_of
from services.scheduler.post_desk import FreeSlots, PostDesk, Times, next_slot, refuse

AskBack = Callable[[RetractPost], Awaitable[None]]


def add_routes(router: APIRouter, post_desk: PostDesk, ask_back: AskBack) -> None:
    """Add the routes of offers."""
    _add_reading(router, post_desk)
    _add_queueing(router, post_desk)
    _add_changes(router, post_desk)
    _add_ends(router, post_desk, ask_back)
    _add_decisions(router, post_desk)


def _add_reading(router: APIRouter, post_desk: PostDesk) -> None:
    engine = post_desk.engine

    @router.get("/posts")
    async def list_posts(
        wanted: Annotated[Wanted, Query()], _: Caller = require(*READERS)
    ) -> Page | SparsePage:
        """List posts in the order they were queued; `fields` names what is wanted of each."""
        return await _list(post_desk, wanted)

    @router.get("/posts/{post_id}")
    async def read_post(post_id: Id, response: Response, _: Caller = require(*READERS)) -> PostView:
        async with engine.connect() as connection:
            found = await post_desk.read(connection, post_id)
        response.headers.update(tag_of(found))
        return found


async def _list(post_desk: PostDesk, wanted: Wanted) -> Page | SparsePage:
    filters = wanted.model_dump(exclude={"matchers", "cursor", "limit", "fields", "archived"})
    async with post_desk.engine.connect() as connection:
        if wanted.matchers is not None:
            filters["lanes"] = [
                lane
                for lane, labels in await questions.lanes(connection)
                if matches(parse_matchers(wanted.matchers), labels)
            ]
        rows = await desk.list_posts(
            connection, filters, after=int(wanted.cursor), limit=wanted.limit,
            archived=wanted.archived,
        )  # fmt: skip
    posts = [post_desk.view(row) for row in rows]
    cursor = str(rows[-1]["number"]) if len(rows) == wanted.limit else None
    if wanted.fields is None:
        return Page(posts=posts, next=cursor)
    few = set(wanted.fields.split(","))
    sparse = [post.model_dump(mode="json", include=few) for post in posts]
    return SparsePage(posts=sparse, next=cursor)


def _add_queueing(router: APIRouter, post_desk: PostDesk) -> None:
    engine, lanes = post_desk.engine, post_desk.lanes
    intake = Intake(post_desk)

    @router.post(
        "/campaigns/{campaign_id}/posts", status_code=201, response_model=PostView | list[PostView]
    )
    async def add_posts(
        campaign_id: Id,
        body: PostBodies,
        request: Request,
        idempotency_key: IdempotencyKey = None,
        caller: Caller = require("marketing"),
    ) -> Response:
        """Queue one offer, or a batch: all of them or none."""
        times: Times = {}
        is_list = isinstance(await request.json(), list)
        key = await key_of(request, caller, idempotency_key)
        asked = Asked(campaign_id, body, caller.name, key=key, is_list=is_list)
        if asked.is_small and (answer := await intake.add(asked)):
            return answer

        async def act(connection: AsyncConnection) -> Any:
            made, due = await post_desk.add(connection, campaign_id, body, caller.name)
            times.update(due)
            return asked.shown(made)

        answer = await once(engine, key, act)
        await lanes.expect(times)
        return answer

    @router.post("/campaigns/{campaign_id}/posts/dry-run")
    async def try_posts(
        campaign_id: Id, body: PostBodies, _: Caller = require("marketing")
    ) -> list[dict[str, Any]]:
        """Say which offers these bodies mean, and what is wrong with them; nothing is queued."""
        async with engine.connect() as connection:
            campaign = await campaign_api.look(connection, campaign_id)
            slots = FreeSlots(await next_slot(connection, campaign_id), campaign)
            done = check(body, campaign, post_desk.known, free=slots.all())
            refuse(done)
            alike = await desk.alike(connection, done.rows)
        doubts = post_desk.known.vocabulary.doubts
        return [
            row | {"warnings": doubts(row["labels"]) + same}
            for row, same in zip(done.rows, alike, strict=True)
        ]


def _add_changes(router: APIRouter, post_desk: PostDesk) -> None:
    engine, lanes = post_desk.engine, post_desk.lanes

    @router.patch("/posts/{post_id}")
    async def change_post(
        post_id: Id,
        body: PostChange,
        response: Response,
        if_match: IfMatch = None,
        caller: Caller = require("marketing"),
    ) -> PostView:
        """Change a post that was not handed over yet; what was approved is to be read again."""
        async with engine.begin() as connection:
            post = await post_desk.lock(connection, post_id)
            must_match(if_match, post.version)
            if post.state not in EDITABLE:
                raise Problem(409, f"the post {post_id} is {post.state}: it cannot be changed")
            times = await post_desk.change(connection, post, body, caller.name)
            found = await post_desk.read(connection, post_id)
        await lanes.expect(times)
        response.headers.update(tag_of(found))
        return found


def _add_ends(router: APIRouter, post_desk: PostDesk, ask_back: AskBack) -> None:
    engine = post_desk.engine

    @router.post("/posts/{post_id}/cancel", responses={202: {"model": PostView}})
    async def cancel_post(
        post_id: Id, response: Response, caller: Caller = require("marketing")
    ) -> PostView:
        """Cancel a post. What is in hand already is asked back: 202, and its state says what came of it."""
        async with engine.begin() as connection:
            post = await post_desk.read(connection, post_id)
            done = await desk.cancel_post(connection, post_id, author=caller.name)
            if done == "too late":
                how = ": ask for its retraction" if post.state in OUT else ""
                raise Problem(
                    409, f"the post {post_id} is {post.state} and cannot be cancelled{how}"
                )
            response.status_code = 202 if done == "asked" else 200
            return await post_desk.read(connection, post_id)

    @router.post("/posts/{post_id}/retract", status_code=202)
    async def retract_post(
        post_id: Id, body: Comment | None = None, caller: Caller = require("marketing")
    ) -> PostView:
        """Ask for an offer that went out to be deleted; its state says what came of it."""
        reason = body.comment if body else ""
        async with engine.begin() as connection:
            post = await post_desk.lock(connection, post_id)
            if post.state not in OUT:
                raise Problem(409, f"the post {post_id} is {post.state}: it is not out")
            await audit(connection, caller.name, "post.retract-asked", post_id, {"comment": reason})
            await ask_back(
                RetractPost(
                    post_id=post_id, account=post.account, author=caller.name, reason=reason
                )
            )
        return post


def _add_decisions(router: APIRouter, post_desk: PostDesk) -> None:
    engine, lanes = post_desk.engine, post_desk.lanes

    async def decide(post_ids: Sequence[str], body: Decision, caller: Caller) -> list[PostView]:
        async with engine.begin() as connection:
            times = await post_desk.decide(connection, post_ids, body, caller)
            rows = await desk.read_posts(connection, post_ids)
        await lanes.expect(times)
        return [post_desk.view(row) for row in rows]

    async def decide_one(
        post_id: Id, decision: Literal["approve", "reject"], body: Comment | None, caller: Caller
    ) -> PostView:
        comment = body.comment if body else ""
        one = Decision(decision=decision, post_ids=(post_id,), comment=comment)
        return (await decide([post_id], one, caller))[0]

    @router.post("/posts/{post_id}/approve")
    async def approve_post(
        post_id: Id, body: Comment | None = None, caller: Caller = require("approver")
    ) -> PostView:
        """Let a post that waits go out. Nobody approves what they wrote themselves."""
        return await decide_one(post_id, "approve", body, caller)

    @router.post("/posts/{post_id}/reject")
    async def reject_post(
        post_id: Id, body: Comment | None = None, caller: Caller = require("approver")
    ) -> PostView:
        """End a post that waits."""
        return await decide_one(post_id, "reject", body, caller)

    @router.post("/reviews")
    async def decide_many(body: Decision, caller: Caller = require("approver")) -> list[PostView]:
        """Approve or reject many that wait: all of them or none."""
        return await decide(sorted(set(body.post_ids)), body, caller)
