"""HTTP of the publisher: the ledger, the gate and the channel accounts, for those who may ask."""

from __future__ import annotations

import math
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from schemas.labels import Matchers, covers
from services.kit.web import Caller, Problem, require
from services.publisher.archive import Archive
from services.publisher.circuit import Circuit
from services.publisher.ledger import Capabilities, Entry, State
from services.publisher.rates import Rate
from services.publisher.store import Store
from services.publisher.stream import Stream

READERS = ("viewer", "operations", "marketing", "approver", "admin")


class WouldTakeBack(BaseModel):
    """A take-back that is only tried."""

    model_config = ConfigDict(extra="forbid")

    matchers: Matchers
    within_s: int = Field(ge=1, le=7 * 86_400, description="what went out in so many last seconds")


class Taken(BaseModel):
    """An offer that would be taken back."""

    post_id: str
    account: str
    published_at: datetime | None
    url: str | None
    can_be_deleted: bool


class TakeBackPlan(BaseModel):
    """What would be taken back: how many in all, and the newest thousand of them."""

    deleted: int
    impossible: int
    posts: list[Taken]


class AccountState(BaseModel):
    """A channel account as it now is. Circuit and rates are of this publisher's knowledge."""

    channel: str
    capabilities: dict[str, Any]
    circuit: Circuit
    rates: dict[str, Rate]


def new_router(stream: Stream, store: Store, archive: Archive) -> APIRouter:
    """Return the publisher's routes."""
    router = APIRouter()
    _add_ledger(router, stream, store, archive)
    return router


def _add_ledger(router: APIRouter, stream: Stream, store: Store, archive: Archive) -> None:
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
        entry = await store.find(post_id) or await archive.find(post_id)
        if entry is None:
            raise Problem(404, f"the ledger has no post {post_id}: no send of it was begun")
        return entry

    @router.post("/v1/take-back/dry-run")
    async def try_take_back(asked: WouldTakeBack, _: Caller = require(*READERS)) -> TakeBackPlan:
        """Say what a hold with these matchers would take back now; nothing is done."""
        since = stream.clock.now() - timedelta(seconds=asked.within_s)
        plan = await stream.delivery.take_back.would_take(
            lambda labels: covers(asked.matchers, labels), since=since
        )
        newest = [
            Taken(
                post_id=entry.post_id,
                account=entry.account,
                published_at=entry.done_at,
                url=entry.url,
                can_be_deleted=can,
            )
            for entry, can in plan.newest
        ]
        return TakeBackPlan(deleted=plan.deleted, impossible=plan.impossible, posts=newest)

    @router.get("/v1/accounts")
    async def list_accounts(_: Caller = require(*READERS)) -> dict[str, AccountState]:
        """List the channel accounts: what they can do, and whether they fail."""
        delivery = stream.delivery
        return {
            name: AccountState(
                channel=stream.accounts[name].channel,
                capabilities=_in_words(channel.capabilities),
                circuit=delivery.paces.circuits.get(name, Circuit()),
                rates=await delivery.paces.rates(name),
            )
            for name, channel in delivery.channels.items()
        }

    @router.get("/v1/gate")
    async def read_gate(_: Caller = require(*READERS)) -> dict[str, Any]:
        """Return the gate as it stands: what offers wait for."""
        gate = stream.gate
        passed, age_s = gate.passed, gate.fences.age_s()
        state: Literal["open", "waiting"] = "open" if age_s < gate.lease_s else "waiting"
        return {
            "state": state,
            "fence": passed.number if passed else None,
            "fence_age_s": age_s if passed else None,
            "lease_s": gate.lease_s,
            "waiting_offers": gate.waiting_count,
            "open_holds": [hold.hold_id for hold in gate.holds],
        }


def _in_words(capabilities: Capabilities) -> dict[str, Any]:
    found = asdict(capabilities)
    if math.isinf(capabilities.idempotent_s):
        found["idempotent_s"] = "for ever"
    return found
