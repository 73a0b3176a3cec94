"""HTTP for marketing: campaigns, posts, approval. Every change names its author in the audit."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.base import Instant, Language, Text, Title, Value
from schemas.labels import LABEL_COUNT, Labels
from schemas.posts import Account
from services.kit.telemetry import Clock
from services.kit.web import Caller, Problem, field_problem, require
from services.scheduler import desk
from services.scheduler.life import State
from services.scheduler.recovery import USEFUL_S, latest_of
from services.scheduler.store import Store

BATCH_POSTS = 1_000
PAGE_POSTS = 1_000
READERS = ("marketing", "approver", "operations", "viewer", "admin")
IdempotencyKey = Annotated[str | None, Header(min_length=1, max_length=200)]
_JSON = TypeAdapter(Any)


class CampaignBody(Value):
    """A campaign. `quiet_s` is the quiet period after a hold, `useful_s` how long an offer is."""

    name: Title
    labels: Labels = {}
    quiet_s: int = Field(default=300, ge=0, le=86_400)
    useful_s: int = Field(default=USEFUL_S, ge=1, le=30 * 86_400)


class PostBody(Value):
    """An offer. Its labels are added to the campaign's."""

    account: Account
    text: Text
    due_at: Instant
    latest_at: Instant | None = None
    language: Language | None = None
    labels: Labels = {}


PostBodies = Annotated[
    list[PostBody],
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
    Field(min_length=1, max_length=BATCH_POSTS),
]
"""One offer, or a list of them."""


class Campaign(BaseModel):
    """A campaign as it stands."""

    campaign_id: str
    name: str
    labels: dict[str, str]
    quiet_s: int
    useful_s: int
    author: str
    created_at: datetime
    cancelled_at: datetime | None
    counts: dict[str, int] = {}


class PostView(BaseModel):
    """A post as it stands."""

    post_id: str
    campaign_id: str
    account: str
    text: str
    language: str | None
    labels: dict[str, str]
    due_at: datetime
    latest_at: datetime
    state: State
    attempt: int
    reason: str
    hold_id: str | None
    publication: str | None
    url: str | None
    author: str
    approver: str | None


class Page(BaseModel):
    """Some posts; `next` is the cursor of the next page, absent on the last."""

    posts: list[PostView]
    next: str | None = None


def new_router(store: Store, clock: Clock) -> APIRouter:
    """Return the scheduler's routes."""
    router = APIRouter(prefix="/v1")
    _add_campaigns(router, store)
    _add_posts(router, store)
    _add_decisions(router, store, clock)
    return router


def _add_campaigns(router: APIRouter, store: Store) -> None:
    @router.post("/campaigns", status_code=201, response_model=Campaign)
    async def add_campaign(
        body: CampaignBody,
        request: Request,
        idempotency_key: IdempotencyKey = None,
        caller: Caller = require("marketing"),
    ) -> Response:
        """Begin a campaign."""

        async def act(connection: AsyncConnection) -> Any:
            row = await desk.add_campaign(connection, **dict(body), author=caller.name)
            return Campaign.model_validate(dict(row))

        return await _once(store, request, caller, idempotency_key, act)

    @router.get("/campaigns")
    async def list_campaigns(_: Caller = require(*READERS)) -> list[Campaign]:
        async with store.engine.connect() as connection:
            rows = await desk.list_campaigns(connection)
        return [Campaign.model_validate(dict(row)) for row in rows]

    @router.get("/campaigns/{campaign_id}")
    async def read_campaign(campaign_id: str, _: Caller = require(*READERS)) -> Campaign:
        async with store.engine.connect() as connection:
            return await _campaign(connection, campaign_id)

    @router.post("/campaigns/{campaign_id}/cancel")
    async def cancel_campaign(campaign_id: str, caller: Caller = require("marketing")) -> Campaign:
        """Cancel what was not handed over yet."""
        async with store.engine.begin() as connection:
            await _campaign(connection, campaign_id)
            await desk.cancel_campaign(connection, campaign_id, author=caller.name)
            return await _campaign(connection, campaign_id)


def _add_posts(router: APIRouter, store: Store) -> None:
    @router.post("/campaigns/{campaign_id}/posts", status_code=201, response_model=None)
    async def add_posts(
        campaign_id: str,
        body: PostBodies,
        request: Request,
        idempotency_key: IdempotencyKey = None,
        caller: Caller = require("marketing"),
    ) -> Response:
        """Queue one offer, or a batch: all of them or none."""

        async def act(connection: AsyncConnection) -> Any:
            campaign = await _campaign(connection, campaign_id)
            if campaign.cancelled_at is not None:
                raise Problem(409, f"the campaign {campaign_id} is cancelled")
            rows = [_row(post, campaign, number) for number, post in enumerate(body)]
            ids = await desk.add_posts(connection, campaign_id, rows, author=caller.name)
            made = await desk.read_posts(connection, ids)
            found = [PostView.model_validate(dict(row)) for row in made]
            return found if isinstance(await request.json(), list) else found[0]

        return await _once(store, request, caller, idempotency_key, act)

    @router.get("/posts")
    async def list_posts(
        campaign_id: str | None = None,
        state: State | None = None,
        cursor: Annotated[str, Query(pattern=r"^\d{1,18}$")] = "0",
        limit: Annotated[int, Query(ge=1, le=PAGE_POSTS)] = 100,
        _: Caller = require(*READERS),
    ) -> Page:
        """List posts in the order they were queued."""
        async with store.engine.connect() as connection:
            rows = await desk.list_posts(
                connection, campaign_id=campaign_id, state=state, after=int(cursor), limit=limit
            )
        posts = [PostView.model_validate(dict(row)) for row in rows]
        return Page(posts=posts, next=str(rows[-1]["number"]) if len(rows) == limit else None)

    @router.get("/posts/{post_id}")
    async def read_post(post_id: str, _: Caller = require(*READERS)) -> PostView:
        async with store.engine.connect() as connection:
            return await _post(connection, post_id)

    @router.get("/summary")
    async def count_states(_: Caller = require(*READERS)) -> dict[str, int]:
        """Count all posts by state."""
        async with store.engine.connect() as connection:
            return await desk.count_states(connection)


def _add_decisions(router: APIRouter, store: Store, clock: Clock) -> None:
    @router.post("/posts/{post_id}/cancel")
    async def cancel_post(post_id: str, caller: Caller = require("marketing")) -> PostView:
        """Cancel a post that was not handed over yet."""
        async with store.engine.begin() as connection:
            post = await _post(connection, post_id)
            if not await desk.cancel_post(connection, post_id, author=caller.name):
                raise Problem(409, f"the post {post_id} is {post.state}: it cannot be cancelled")
            return await _post(connection, post_id)

    @router.post("/posts/{post_id}/approve")
    async def approve_post(post_id: str, caller: Caller = require("approver")) -> PostView:
        """Let a post under review go out now. Nobody approves what they wrote themselves."""
        async with store.engine.begin() as connection:
            post = await _post(connection, post_id)
            if post.author == caller.name:
                raise Problem(
                    403, f"{caller.name} wrote this post: somebody else has to approve it"
                )
            campaign = await _campaign(connection, post.campaign_id)
            now = clock.now()
            latest_at = max(post.latest_at, latest_of(now, None, useful_s=campaign.useful_s))
            approved = await desk.approve_post(
                connection, post_id, now=now, latest_at=latest_at, approver=caller.name
            )
            if not approved:
                raise Problem(409, f"the post {post_id} is {post.state}, not under review")
            return await _post(connection, post_id)


def _row(post: PostBody, campaign: Campaign, number: int) -> dict[str, Any]:
    labels = {**campaign.labels, **post.labels}
    if len(labels) > LABEL_COUNT:
        raise field_problem(f"{number}/labels", f"more than {LABEL_COUNT} with the campaign's")
    latest_at = latest_of(post.due_at, post.latest_at, useful_s=campaign.useful_s)
    if latest_at <= post.due_at:
        raise field_problem(f"{number}/latest_at", "must be later than due_at")
    return dict(post) | {"labels": labels, "latest_at": latest_at}


async def _campaign(connection: AsyncConnection, campaign_id: str) -> Campaign:
    row = await desk.read_campaign(connection, campaign_id)
    if row is None:
        raise Problem(404, f"there is no campaign {campaign_id}")
    return Campaign.model_validate(dict(row))


async def _post(connection: AsyncConnection, post_id: str) -> PostView:
    row = await desk.read_post(connection, post_id)
    if row is None:
        raise Problem(404, f"there is no post {post_id}")
    return PostView.model_validate(dict(row))


async def _once(
    store: Store,
    request: Request,
    caller: Caller,
    key: str | None,
    act: Callable[[AsyncConnection], Awaitable[Any]],
) -> Response:
    """Act once for each Idempotency-Key; again, the kept answer is given."""
    body = await request.body()
    wanted = hashlib.sha256(request.url.path.encode() + b"\n" + body).hexdigest()
    async with store.engine.begin() as connection:
        if key is not None:
            first, status, kept = await desk.recall_answer(
                connection, caller=caller.name, key=key, request=wanted
            )
            if first != wanted:
                raise field_problem("Idempotency-Key", "was used for another request")
            if status is not None:
                return JSONResponse(kept, status, headers={"idempotency-replayed": "true"})
        answer = jsonable_encoder(await act(connection))
        if key is not None:
            await desk.keep_answer(
                connection,
                caller=caller.name,
                key=key,
                status=201,
                answer=_JSON.dump_json(answer).decode(),
            )
    return JSONResponse(answer, 201)
