"""HTTP of files: offers in by CSV and NDJSON, and out again.

A request carries a part of a file, a thousand rows at most: `interlock posts import` sends one behind the
other, so that a file of any size needs no memory, shows its progress, and goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from schemas.base import Id
from services.kit.database import sql
from services.kit.web import Caller, Problem, field_problem, require
from services.scheduler import campaign_api, rows
from services.scheduler.bodies import BATCH_POSTS, Campaign
from services.scheduler.campaign_api import READERS
from services.scheduler.checks import Known, check
from services.scheduler.desk import ARCHIVED, POST
from services.scheduler.post_desk import PostDesk, Times

TYPES: Final[dict[str, rows.Format]] = {"text/csv": "csv", "application/x-ndjson": "ndjson"}
_TEXTS: Final = {name: {"schema": {"type": "string"}} for name in TYPES}
_BODY: Final = {"requestBody": {"required": True, "content": _TEXTS}}
_FILE: Final[dict[int | str, dict[str, Any]]] = {200: {"description": "OK", "content": _TEXTS}}
MOST_DOUBTS: Final = 100
EXPORT_ROWS: Final = 1_000
EXPORT: Final = f"{ARCHIVED} WHERE p.campaign_id = :id UNION ALL {POST} WHERE p.campaign_id = :id ORDER BY number"


class Part(BaseModel):
    """How a part of a file is taken."""

    model_config = ConfigDict(extra="forbid")

    first_row: int = Field(default=1, ge=1, description="the number of its first row in the file")
    dry_run: bool = False
    good_only: bool = Field(
        default=False, description="queue the good rows of a part with bad ones"
    )


class Refused(BaseModel):
    """A row that was not taken, and why."""

    row: int
    pointer: str
    detail: str


class Report(BaseModel):
    """What became of a part of a file. `known` are rows whose `external_id` was queued before."""

    rows: int
    queued: int
    known: int
    refused: list[Refused]
    doubtful: list[Refused] = Field(description="of the first rows that are good")


def add_routes(router: APIRouter, post_desk: PostDesk) -> None:
    """Add the routes of files."""

    @router.post("/campaigns/{campaign_id}/import", openapi_extra=_BODY)
    async def import_rows(
        campaign_id: Id,
        request: Request,
        part: Annotated[Part, Query()],
        caller: Caller = require("marketing"),
    ) -> Report:
        """Queue the offers of a file's rows: all or none, or those that are good."""
        found = await _read(request, part.first_row)
        times: Times = {}
        async with post_desk.engine.begin() as connection:
            campaign = await post_desk.taking(connection, campaign_id)
            tried = _try(found, campaign, post_desk.known)
            report = Report(
                rows=len(found), queued=0, known=0, refused=tried.refused, doubtful=tried.doubtful
            )
            if part.dry_run or (tried.refused and not part.good_only) or not tried.good:
                return report
            queued, times = await post_desk.write(connection, campaign, tried.good, caller.name)
        await post_desk.lanes.expect(times)
        known = queued.wanted - len(queued.ids)
        return report.model_copy(update={"queued": len(queued.ids), "known": known})

    @router.get(
        "/campaigns/{campaign_id}/export", response_class=StreamingResponse, responses=_FILE
    )
    async def export_rows(
        campaign_id: Id,
        form: Annotated[rows.Format, Query(alias="format")] = "csv",
        _: Caller = require(*READERS),
    ) -> StreamingResponse:
        """Return a campaign's offers as a file, in the order they were queued."""
        async with post_desk.engine.connect() as connection:
            await campaign_api.look(connection, campaign_id)
        kind = next(name for name, one in TYPES.items() if one == form)
        name = f'attachment; filename="{campaign_id}.{form}"'
        return StreamingResponse(
            _export(post_desk, campaign_id, form),
            media_type=kind,
            headers={"content-disposition": name},
        )


async def _read(request: Request, first_row: int) -> list[rows.Row]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    form = TYPES.get(kind)
    if form is None:
        raise field_problem("content-type", f"one of {', '.join(TYPES)} was expected", status=415)
    try:
        content = (await request.body()).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Problem(422, f"no UTF-8: {error}") from error
    found = list(rows.read(content, form, first=first_row))
    if len(found) > BATCH_POSTS:
        raise Problem(413, f"at most {BATCH_POSTS} rows a request: send the file in parts")
    return found


@dataclass(slots=True)
class _Tried:
    good: list[dict[str, Any]] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    doubtful: list[Refused] = field(default_factory=list)


def _try(found: list[rows.Row], campaign: Campaign, known: Known) -> _Tried:
    """Return the offers of good rows, and what is wrong with the others."""
    tried = _Tried()
    for row in found:
        problems = [
            Refused(row=row.number, pointer=f"/{at}", detail=why) for at, why in row.problems
        ]
        made: list[dict[str, Any]] = []
        if row.body is not None and row.body.slot is not None:
            why = "a file gives each row its due_at"
            problems.append(Refused(row=row.number, pointer="/slot", detail=why))
        elif row.body is not None:
            done = check([row.body], campaign, known, free=iter(()))
            made = done.rows
            for one in done.problems:
                pointer = one["pointer"].replace("/0/", "/", 1)
                problems.append(Refused(row=row.number, pointer=pointer, detail=one["detail"]))
        tried.refused += problems
        if problems or not made:
            continue
        tried.good += made
        if len(tried.doubtful) < MOST_DOUBTS:
            tried.doubtful += [
                Refused(row=row.number, pointer="/labels", detail=why)
                for why in known.vocabulary.doubts(made[0]["labels"])
            ]
    return tried


async def _export(post_desk: PostDesk, campaign_id: Id, form: rows.Format) -> AsyncIterator[str]:
    async with post_desk.engine.connect() as connection:
        # Whoever reads a long file slowly holds no lock.
        await connection.execute(sql("SET LOCAL idle_in_transaction_session_timeout = '1h'"))
        found = await connection.stream(
            sql(EXPORT).execution_options(yield_per=EXPORT_ROWS), {"id": campaign_id}
        )
        is_first = True
        async for part in found.mappings().partitions(EXPORT_ROWS):
            posts: list[dict[str, Any]] = [_shown(row) for row in part]
            yield rows.write(posts, form, head=is_first)
            is_first = False
        if is_first:
            yield rows.write([], form, head=True)


def _shown(row: Any) -> dict[str, Any]:
    hidden = ("number", "lane_id", "cancel_at")
    return {name: value for name, value in dict(row).items() if name not in hidden}
