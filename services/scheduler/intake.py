"""Offers that many requests queue at once: a transaction for all who wait, and each has its own answer.

Whoever is wrong takes no part. What this cannot say for one request among others, `once` does alone:
an Idempotency-Key that was used before, a budget, free slots, large bodies, and all of them when the
transaction failed, unless it may have been committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from fastapi import Response
from sqlalchemy import RowMapping
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from services.kit.batches import Batches
from services.kit.web import Problem
from services.scheduler import campaign_api, desk
from services.scheduler.answers import Key, audit_all, forget_keys, keep_answers, take_keys
from services.scheduler.bodies import Campaign, PostBody, PostView
from services.scheduler.campaign_life import TAKES_POSTS
from services.scheduler.checks import check
from services.scheduler.once import CREATED, answered
from services.scheduler.post_desk import PostDesk, Times, note_due, refuse

MOST_BODIES: Final = 20
BATCHES: Final = 2  # One is read while PostgreSQL writes the other.
log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class Asked:
    """One request, and what comes of it; without an answer it is done alone."""

    campaign_id: str
    bodies: Sequence[PostBody]
    author: str
    key: Key | None = None
    is_list: bool = False
    rows: list[dict[str, Any]] = field(default_factory=list)
    problem: Problem | None = None
    answer: Response | None = None

    @property
    def is_small(self) -> bool:
        return len(self.bodies) <= MOST_BODIES and not any(body.slot for body in self.bodies)

    def shown(self, made: list[PostView]) -> PostView | list[PostView]:
        """Return what was made as it was asked for: one, or a list."""
        return made[0] if len(made) == 1 and not self.is_list else made


class Intake:
    """Queues what requests ask for, many at once."""

    def __init__(self, post_desk: PostDesk) -> None:
        self.post_desk = post_desk
        self._batches = Batches(self._queue, at_once=BATCHES)
        self._expecting: set[asyncio.Task[None]] = set()

    async def add(self, asked: Asked) -> Response | None:
        """Queue one request's offers together with others'; None: it has to be done alone."""
        await self._batches.add(asked)
        if asked.problem is not None:
            raise asked.problem
        return asked.answer

    async def _queue(self, asked: list[Asked]) -> list[None]:
        times: Times = {}
        is_written = False
        try:
            async with self.post_desk.engine.begin() as connection:
                good = await self._with_new_keys(connection, asked)
                campaigns = await campaign_api.look_all(connection, {a.campaign_id for a in good})
                wanted = [one for one in good if self._check(one, campaigns.get(one.campaign_id))]
                await self._write(connection, wanted, campaigns, times)
                left = [one.key for one in good if one.key is not None and not one.rows]
                await forget_keys(connection, left)
                is_written = True
        except Exception as error:  # Whoever's fault it is: each finds out for itself.
            log.warning("queued one by one", requests=len(asked), error=str(error))
            for one in asked:
                is_in_doubt = is_written and one.key is None and one.rows
                one.answer, one.problem = None, _in_doubt() if is_in_doubt else None
            return [None] * len(asked)
        task = asyncio.create_task(self._expect(times))
        self._expecting.add(task)
        task.add_done_callback(self._expecting.discard)
        return [None] * len(asked)

    async def _expect(self, times: Times) -> None:
        """Say when lanes are due, behind the answers: what is not said is found, as behind a crash."""
        try:
            await self.post_desk.lanes.expect(times)
        except (SQLAlchemyError, OSError) as error:
            log.warning("when lanes are due was not said", error=str(error))

    async def _with_new_keys(self, connection: AsyncConnection, asked: list[Asked]) -> list[Asked]:
        """Return the requests whose keys are new; of two with one key only the first."""
        firsts: dict[tuple[str, str], Asked] = {}
        for one in asked:
            if one.key is not None:
                firsts.setdefault((one.key.caller, one.key.name), one)
        taken = await take_keys(connection, [one.key for one in firsts.values() if one.key])
        return [
            one
            for one in asked
            if one.key is None or (one.key in taken and firsts[one.key.caller, one.key.name] is one)
        ]

    def _check(self, asked: Asked, campaign: Campaign | None) -> bool:
        """Check one request's bodies; False: it is wrong, or is to be done alone."""
        try:
            if campaign is None:
                raise Problem(404, f"there is no campaign {asked.campaign_id}")
            if campaign.state not in TAKES_POSTS:
                raise Problem(409, f"the campaign {asked.campaign_id} is {campaign.state}")
            if campaign.budget is not None:
                return False
            done = check(asked.bodies, campaign, self.post_desk.known, free=iter(()))
            refuse(done)
        except Problem as problem:
            asked.problem = problem
            return False
        asked.rows = [
            row | {
                "campaign_id": campaign.campaign_id, "author": asked.author,
                "state": "unapproved" if campaign.needs_approval else "queued",
            }
            for row in done.rows
        ]  # fmt: skip
        return True

    async def _write(
        self,
        connection: AsyncConnection,
        wanted: list[Asked],
        campaigns: dict[str, Campaign],
        times: Times,
    ) -> None:
        if not wanted:
            return
        of_each = [(campaigns[one.campaign_id], one.rows) for one in wanted]
        await self.post_desk.give_lanes(connection, of_each)
        made = await desk.insert_and_read(connection, [row for one in wanted for row in one.rows])
        posts = await self._views(connection, [row for row in made if row is not None])
        lines, kept = [], []
        for one in wanted:
            mine, made = made[: len(one.rows)], made[len(one.rows) :]
            views = [posts[row["post_id"]] for row in mine if row is not None]
            one.answer, content = answered(one.shown(views))
            lines.append((one.author, "posts.added", one.campaign_id, {"posts": len(views)}))
            if one.key is not None:
                kept.append((one.key, content))
            note_due(times, one.rows)
        await audit_all(connection, lines)
        await keep_answers(connection, kept, status=CREATED)

    async def _views(
        self, connection: AsyncConnection, rows: Sequence[RowMapping]
    ) -> dict[str, PostView]:
        views = [self.post_desk.view(row) for row in rows]
        return {
            post.post_id: post for post in await self.post_desk.with_warnings(connection, views)
        }


def _in_doubt() -> Problem:
    """Say that a commit was not answered. Who has a key finds the answer; to try another again is to queue it twice."""
    why = "nobody knows whether it was queued: look for it before it is sent again"
    return Problem(503, f"{why}; what has an Idempotency-Key can be sent again as it is")
