"""HTTP of campaigns."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from fastapi import APIRouter, Request, Response
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.base import Id
from services.kit.web import Caller, Problem, field_problem, require
from services.scheduler import campaign_desk, counts
from services.scheduler.bodies import Campaign, CampaignBody, CampaignChange, Comment
from services.scheduler.campaign_life import OF_APPROVERS, Action, Refusal, move
from services.scheduler.once import IdempotencyKey, IfMatch, key_of, must_match, once, tag_of

READERS = ("marketing", "approver", "operations", "viewer", "admin")
FOR_THE_PUBLIC = frozenset({"labels", "accounts", "begins_at", "ends_at", "hours"})


def add_routes(router: APIRouter, engine: AsyncEngine) -> None:
    """Add the routes of campaigns."""
    _add_reading(router, engine)
    _add_writing(router, engine)
    _add_moves(router, engine)


def _add_reading(router: APIRouter, engine: AsyncEngine) -> None:
    @router.get("/campaigns")
    async def list_campaigns(_: Caller = require(*READERS)) -> list[Campaign]:
        async with engine.connect() as connection:
            rows = await campaign_desk.list_campaigns(connection)
            offers = await counts.by_campaign(connection)
        found = [campaign_of(row) for row in rows]
        return [one.model_copy(update={"counts": offers.get(one.campaign_id, {})}) for one in found]

    @router.get("/campaigns/{campaign_id}")
    async def read_campaign(
        campaign_id: Id, response: Response, _: Caller = require(*READERS)
    ) -> Campaign:
        async with engine.connect() as connection:
            found = await read(connection, campaign_id)
        response.headers.update(tag_of(found))
        return found


def _add_writing(router: APIRouter, engine: AsyncEngine) -> None:
    @router.post("/campaigns", status_code=201, response_model=Campaign)
    async def add_campaign(
        body: CampaignBody,
        request: Request,
        idempotency_key: IdempotencyKey = None,
        caller: Caller = require("marketing"),
    ) -> Response:
        """Begin a campaign."""

        async def act(connection: AsyncConnection) -> Any:
            _must_fit(body.begins_at, body.ends_at)
            state = "draft" if body.draft or body.needs_approval else "running"
            values = {name: _plain(body, name) for name in campaign_desk.COLUMNS}
            row = await campaign_desk.add_campaign(
                connection, values, state=state, author=caller.name  # type: ignore[arg-type]
            )  # fmt: skip
            return campaign_of(row)

        return await once(engine, await key_of(request, caller, idempotency_key), act)

    @router.patch("/campaigns/{campaign_id}")
    async def change_campaign(
        campaign_id: Id,
        body: CampaignChange,
        response: Response,
        if_match: IfMatch = None,
        caller: Caller = require("marketing"),
    ) -> Campaign:
        """Change a campaign: what its next offers are made of. Approved, it is read again."""
        async with engine.begin() as connection:
            known = await lock(connection, campaign_id)
            must_match(if_match, known.version)
            values = {name: _plain(body, name) for name in body.model_fields_set}
            if known.needs_approval and not values.get("needs_approval", True):
                raise field_problem("needs_approval", "cannot be taken back", status=409)
            begins_at, ends_at = (
                values.get(name, getattr(known, name)) for name in ("begins_at", "ends_at")
            )
            _must_fit(begins_at, ends_at)
            if values:
                await campaign_desk.change_campaign(
                    connection, campaign_id, values, author=caller.name
                )
            if known.needs_approval and known.state == "approved" and FOR_THE_PUBLIC & set(values):
                await campaign_desk.move_campaign(
                    connection, campaign_id, "in_review", action="edit", author=caller.name,
                    comment="changed behind its approval",
                )  # fmt: skip
            found = await read(connection, campaign_id)
        response.headers.update(tag_of(found))
        return found


def _add_moves(router: APIRouter, engine: AsyncEngine) -> None:
    async def act(
        campaign_id: Id, action: Action, caller: Caller, comment: str, if_match: str | None
    ) -> Campaign:
        async with engine.begin() as connection:
            known = await lock(connection, campaign_id)
            must_match(if_match, known.version)
            later = move(
                known.state, action, needs_approval=known.needs_approval, author=known.author,
                caller=caller.name,
            )  # fmt: skip
            if isinstance(later, Refusal):
                raise Problem(403 if later.is_about_the_caller else 409, later.why)
            await campaign_desk.move_campaign(
                connection, campaign_id, later, action=action, author=caller.name, comment=comment
            )
            return await read(connection, campaign_id)

    def add(action: Action) -> None:
        role = "approver" if action in OF_APPROVERS else "marketing"

        async def route(
            campaign_id: Id,
            body: Comment | None = None,
            if_match: IfMatch = None,
            caller: Caller = require(role),
        ) -> Campaign:
            comment = body.comment if body else ""
            return await act(campaign_id, action, caller, comment, if_match)

        router.post(
            f"/campaigns/{{campaign_id}}/{action}",
            name=f"{action}_campaign",
            summary=f"{action.capitalize()} a campaign.",
        )(route)

    for action in ("submit", "approve", "reject", "start", "pause", "resume", "finish", "cancel"):
        add(action)


def campaign_of(row: Any) -> Campaign:
    """Return a row as a campaign."""
    return Campaign.model_validate(dict(row))


async def read(connection: AsyncConnection, campaign_id: str) -> Campaign:
    """Return a campaign with its counts, or a 404."""
    found = await look(connection, campaign_id)
    return found.model_copy(update={"counts": await counts.by_state(connection, campaign_id)})


async def lock(connection: AsyncConnection, campaign_id: str) -> Campaign:
    """Return a campaign that nobody else changes meanwhile, or a 404."""
    return _found(await campaign_desk.lock_campaign(connection, campaign_id), campaign_id)


async def look(connection: AsyncConnection, campaign_id: str) -> Campaign:
    """Return a campaign without its counts, or a 404."""
    return _found(await campaign_desk.find_campaign(connection, campaign_id), campaign_id)


async def look_all(
    connection: AsyncConnection, campaign_ids: Collection[str]
) -> dict[str, Campaign]:
    """Return those of these campaigns that there are, without their counts."""
    rows = await campaign_desk.find_campaigns(connection, campaign_ids)
    return {row["campaign_id"]: campaign_of(row) for row in rows}


def _found(row: Any, campaign_id: str) -> Campaign:
    if row is None:
        raise Problem(404, f"there is no campaign {campaign_id}")
    return campaign_of(row)


def _plain(body: CampaignChange, name: str) -> Any:
    value = getattr(body, name)
    if name in ("hours", "recovery", "utm"):
        return None if value is None else value.model_dump(mode="json")
    return list(value) if name == "accounts" else value


def _must_fit(begins_at: Any, ends_at: Any) -> None:
    if begins_at is not None and ends_at is not None and ends_at <= begins_at:
        raise field_problem("ends_at", "must be later than begins_at")
