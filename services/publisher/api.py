"""HTTP of the publisher: the ledger for those who ask, and the public page and feed for everybody."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import HTMLResponse
from feedgen.feed import FeedGenerator
from jinja2 import Environment, FileSystemLoader

from services.kit.web import Caller, Problem, public, require
from services.publisher.ledger import State
from services.publisher.page_store import PageStore
from services.publisher.store import Entry, Store
from services.publisher.stream import Stream

CACHE = "public, max-age=5"
READERS = ("viewer", "operations", "marketing", "approver", "admin")
_PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")), autoescape=True
)


def new_router(stream: Stream, store: Store, rows: PageStore, *, title: str) -> APIRouter:
    """Return the publisher's routes."""
    router = APIRouter()
    _add_ledger(router, stream, store)

    @router.get("/", response_class=HTMLResponse, dependencies=[Depends(public)])
    async def status_page() -> HTMLResponse:
        page = _PAGES.get_template("status.html").render(
            title=title,
            incidents=sorted(stream.incidents.values(), key=lambda i: i.opened_at, reverse=True),
            posts=await rows.read_feed(),
        )
        return HTMLResponse(page, headers={"cache-control": CACHE})

    @router.get("/feed.atom", dependencies=[Depends(public)])
    async def atom() -> Response:
        feed = _atom(title, await rows.read_feed())
        headers = {"cache-control": CACHE}
        return Response(feed, media_type="application/atom+xml", headers=headers)

    return router


def _add_ledger(router: APIRouter, stream: Stream, store: Store) -> None:
    @router.get("/v1/ledger")
    async def list_ledger(
        state: State | None = None,
        limit: Annotated[int, Query(ge=1, le=1_000)] = 100,
        _: Caller = require(*READERS),
    ) -> list[Entry]:
        """List what was sent, the last changed first."""
        return await store.list_entries(state=state, limit=limit)

    @router.get("/v1/ledger/{post_id}")
    async def read_ledger(post_id: str, _: Caller = require(*READERS)) -> Entry:
        """Return what the ledger knows of one post."""
        entry = await store.find(post_id)
        if entry is None:
            raise Problem(404, f"the ledger has no post {post_id}: no send of it was begun")
        return entry

    @router.get("/v1/gate")
    async def read_gate(_: Caller = require(*READERS)) -> dict[str, Any]:
        """Return the gate as it stands: what offers wait for."""
        age_s = stream.fence_age_s()
        state: Literal["open", "waiting"] = "open" if age_s < stream.lease_s else "waiting"
        return {
            "state": state,
            "fence": stream.passed.number if stream.passed else None,
            "fence_age_s": age_s if stream.passed else None,
            "lease_s": stream.lease_s,
            "waiting_offers": stream.waiting_count,
            "open_holds": [hold.hold_id for hold in stream.holds],
        }


def _atom(title: str, posts: list[Any]) -> bytes:
    feed = FeedGenerator()
    feed.id("urn:interlock:feed")
    feed.title(title)
    feed.link(href="/feed.atom", rel="self")
    feed.language("en")
    for post in posts:
        entry = feed.add_entry(order="append")
        entry.id(f"urn:interlock:post:{post.post_id}")
        entry.title(post.text[:100])
        entry.content(post.text, type="text")
        entry.published(post.published_at)
        entry.updated(post.published_at)
    made: bytes = feed.atom_str(pretty=True)
    return made
