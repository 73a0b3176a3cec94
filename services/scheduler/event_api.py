"""HTTP of events: read page by page, streamed as they come, and sent to webhooks."""

from __future__ import annotations

import asyncio
import base64
import secrets
import uuid
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncEngine

from schemas.base import Id, Instant
from schemas.posts import Link, is_address
from services.kit.web import Caller, Problem, require
from services.scheduler import event_store
from services.scheduler.answers import audit
from services.scheduler.campaign_api import READERS
from services.scheduler.event_store import PAGE, Position, position_of

STREAM_LOOK_S: Final = 0.25
MOST_STREAMS: Final = 50  # Of one process: each asks the database that the queue needs.
EventType = Literal[
    "offer.published", "offer.held", "offer.expired", "offer.failed", "offer.uncertain",
    "offer.retracted", "offer.retraction_failed", "hold.opened", "hold.released",
]  # fmt: skip


def _is_position(given: str) -> str:
    position_of(given)
    return given


EventId = Annotated[
    str, AfterValidator(_is_position), Field(pattern=r"^\d{1,19}-\d{1,18}$", examples=["812-15"])
]
Types = Annotated[list[EventType], Query(alias="type", description="none: all of them")]


class Event(BaseModel):
    """Something that happened; `id` is where to go on from."""

    id: EventId
    at: datetime
    type: str
    data: dict[str, Any]


def _is_address(url: str) -> str:
    if not is_address(url):
        raise ValueError("is no address that can be")
    return url


class WebhookBody(BaseModel):
    """Where events are sent, and which; none named: all. From now on, or from behind an event."""

    model_config = ConfigDict(extra="forbid")

    url: Annotated[Link, AfterValidator(_is_address)]
    types: list[EventType] = Field(default=[], max_length=20)
    after: EventId | None = None


class WebhookView(BaseModel):
    """A webhook, how far it was told, and how it answers; `stopped_at`: it failed for a day."""

    webhook_id: str
    url: str
    types: list[str]
    author: str
    created_at: datetime
    position: str
    failures: int
    failing_since: datetime | None
    stopped_at: datetime | None
    last_answer: str


class NewWebhook(WebhookView):
    """A webhook with its secret, which is not shown again."""

    secret: str


class Replay(BaseModel):
    """From where a webhook is told again: behind an event, or since a time."""

    model_config = ConfigDict(extra="forbid")

    after: EventId | None = None
    since: Instant | None = None


class Streams:
    """Counts who listens, as a dependency of the route: it lasts as long as its answer."""

    def __init__(self) -> None:
        self.count = 0

    async def __call__(self) -> AsyncIterator[None]:
        if self.count >= MOST_STREAMS:
            raise Problem(503, f"{MOST_STREAMS} listen already: read GET /v1/events page by page")
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


def add_routes(router: APIRouter, engine: AsyncEngine) -> None:
    """Add the routes of events and webhooks."""
    _add_reading(router, engine)
    _add_webhooks(router, engine)
    _add_webhook_changes(router, engine)


def _add_reading(router: APIRouter, engine: AsyncEngine) -> None:
    @router.get("/events")
    async def list_events(
        after: EventId = "0-0",
        types: Types = [],  # noqa: B006  # FastAPI copies it.
        limit: Annotated[int, Query(ge=1, le=1_000)] = PAGE,
        _: Caller = require(*READERS),
    ) -> list[Event]:
        """Return events of the last week behind one, in their order."""
        rows = await event_store.read_events(engine, position_of(after), types=types, count=limit)
        return [_event(row) for row in rows]

    @router.get(
        "/events/stream", response_class=EventSourceResponse, dependencies=[Depends(Streams())]
    )
    async def stream_events(
        types: Types = [],  # noqa: B006  # FastAPI copies it.
        last_event_id: Annotated[EventId | None, Header()] = None,
        _: Caller = require(*READERS),
    ) -> AsyncIterator[ServerSentEvent]:
        """Stream events as they come, from now on or from behind the last that was seen."""
        at = (
            await event_store.newest(engine)
            if last_event_id is None
            else position_of(last_event_id)
        )
        while True:
            # All of them, though few are wanted: what was looked at is not looked at again.
            rows = await event_store.read_events(engine, at, types=())
            for row in rows:
                at = Position(int(row["xact"]), row["number"])
                if not types or row["type"] in types:
                    event = _event(row)
                    yield ServerSentEvent(data=event, event=event.type, id=event.id)
            if not rows:
                await asyncio.sleep(STREAM_LOOK_S)


def _add_webhooks(router: APIRouter, engine: AsyncEngine) -> None:
    @router.get("/webhooks")
    async def list_webhooks(_: Caller = require(*READERS)) -> list[WebhookView]:
        """List webhooks, and how each answers."""
        async with engine.connect() as connection:
            rows = await event_store.list_webhooks(connection)
        return [WebhookView.model_validate(dict(row)) for row in rows]

    @router.post("/webhooks", status_code=201)
    async def add_webhook(body: WebhookBody, caller: Caller = require("admin")) -> NewWebhook:
        """Send events to an address, signed as Standard Webhooks 1.0 has it."""
        webhook_id = f"hook-{uuid.uuid4().hex}"
        secret = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
        after = position_of(body.after) if body.after else await event_store.newest(engine)
        async with engine.begin() as connection:
            await event_store.add_webhook(
                connection, webhook_id=webhook_id, url=body.url, secret=secret,
                types=list(body.types), author=caller.name, after=after,
            )  # fmt: skip
            await audit(connection, caller.name, "webhook.added", webhook_id, {"url": body.url})
            row = (await event_store.list_webhooks(connection, webhook_id))[0]
        return NewWebhook.model_validate(dict(row) | {"secret": secret})


def _add_webhook_changes(router: APIRouter, engine: AsyncEngine) -> None:
    @router.delete("/webhooks/{webhook_id}", status_code=204)
    async def delete_webhook(webhook_id: Id, caller: Caller = require("admin")) -> None:
        """Send nothing there any more."""
        async with engine.begin() as connection:
            if not await event_store.delete_webhook(connection, webhook_id):
                raise Problem(404, f"there is no webhook {webhook_id}")
            await audit(connection, caller.name, "webhook.deleted", webhook_id, {})

    @router.post("/webhooks/{webhook_id}/replay")
    async def replay(
        webhook_id: Id, body: Replay, caller: Caller = require("admin")
    ) -> WebhookView:
        """Tell a webhook again, also one that was stopped; without a place, from where it stands."""
        async with engine.begin() as connection:
            known = await event_store.list_webhooks(connection, webhook_id)
            if not known:
                raise Problem(404, f"there is no webhook {webhook_id}")
            after = position_of(body.after or known[0]["position"])
            if body.since is not None:
                after = await event_store.newest(engine, before=body.since)
            await event_store.go_on_from(connection, webhook_id, after)
            await audit(
                connection, caller.name, "webhook.replayed", webhook_id, {"after": str(after)}
            )
            row = (await event_store.list_webhooks(connection, webhook_id))[0]
        return WebhookView.model_validate(dict(row))


def _event(row: Any) -> Event:
    place = Position(int(row["xact"]), row["number"])
    return Event(id=str(place), at=row["at"], type=row["type"], data=row["data"])
