"""What became of the offers that were handed over: their state, their history, and what is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from schemas.posts import Outcome
from services.kit.database import sql
from services.scheduler.life import after

_OUTCOMES: Final = """
    UPDATE posts p SET state = new.state, reason = new.reason, changed_at = clock_timestamp(),
        hold_id = COALESCE(new.hold_id, p.hold_id), url = COALESCE(new.url, p.url),
        publication = COALESCE(new.publication, p.publication)
    FROM unnest(CAST(:ids AS text[]), CAST(:states AS text[]), CAST(:reasons AS text[]),
                CAST(:holds AS text[]), CAST(:urls AS text[]), CAST(:publications AS text[]))
         AS new (post_id, state, reason, hold_id, url, publication)
    WHERE p.post_id = new.post_id
"""
_HISTORY: Final = """
    WITH new AS (
    INSERT INTO outcomes (post_id, attempt, result, at, reason, hold_id, fence, publication)
    SELECT * FROM unnest(CAST(:ids AS text[]), CAST(:attempts AS integer[]), CAST(:results AS text[]),
        CAST(:times AS timestamptz[]), CAST(:reasons AS text[]), CAST(:holds AS text[]),
        CAST(:fences AS bigint[]), CAST(:publications AS text[]))
    ON CONFLICT DO NOTHING RETURNING *)
    INSERT INTO events (type, data)
    SELECT 'offer.' || new.result, to_jsonb(new) || jsonb_build_object('campaign_id', p.campaign_id,
        'account', p.account, 'external_id', p.external_id, 'url', p.url)
    FROM new JOIN posts p USING (post_id) ORDER BY new.at
"""
# Before the offers, as a recovery does: one that looked meanwhile would open the lane and leave them in it.
_LANES_OF_HELD: Final = """
    SELECT lane_id FROM lanes WHERE lane_id IN (SELECT lane_id FROM posts WHERE post_id = ANY(:ids))
    ORDER BY lane_id FOR UPDATE
"""
_SENT_BACK: Final = """
    UPDATE lanes l SET state = 'recovering', stopped_at = COALESCE(stopped_at, clock_timestamp()), recovers_at =
        clock_timestamp() + make_interval(secs => c.quiet_s)
    FROM campaigns c WHERE c.campaign_id = l.campaign_id AND l.lane_id = ANY(:lanes) AND l.state = 'open'
"""


async def record_outcomes(engine: AsyncEngine, outcomes: Sequence[Outcome]) -> None:
    """Move offers as their outcomes say; again is the same."""
    if not outcomes:
        return
    async with engine.begin() as connection:
        ids = sorted({one.post_id for one in outcomes})
        if back := [one.post_id for one in outcomes if one.result == "held"]:
            await connection.execute(sql(_LANES_OF_HELD), {"ids": back})
        found = await connection.execute(
            sql(
                "SELECT post_id, state, attempt, lane_id, cancel_at FROM posts"
                " WHERE post_id = ANY(:ids) ORDER BY post_id FOR UPDATE"
            ),
            {"ids": ids},
        )
        known = {row["post_id"]: dict(row) for row in found.mappings()}
        moved: dict[str, tuple[str, Outcome]] = {}
        for one in outcomes:
            row = known.get(one.post_id)
            if row is None:
                continue
            asked = row["cancel_at"] is not None
            state = after(row["state"], row["attempt"], one, cancel_asked=asked)
            if state is not None:
                row["state"] = state
                moved[one.post_id] = (state, one)
        await _write_outcomes(connection, moved)
        await _write_history(connection, [one for one in outcomes if one.post_id in known])
        held = {known[name]["lane_id"] for name, (state, _) in moved.items() if state == "held"}
        if held:  # Its lane may have recovered already, or not know of the hold yet.
            await connection.execute(sql(_SENT_BACK), {"lanes": sorted(held)})


async def _write_outcomes(
    connection: AsyncConnection, moved: dict[str, tuple[str, Outcome]]
) -> None:
    if not moved:
        return
    ones = [one for _, one in moved.values()]
    await connection.execute(
        sql(_OUTCOMES),
        {
            "ids": list(moved),
            "states": [state for state, _ in moved.values()],
            "reasons": [one.reason for one in ones],
            "holds": [one.hold_id for one in ones],
            "urls": [one.url for one in ones],
            "publications": [one.publication for one in ones],
        },
    )


async def _write_history(connection: AsyncConnection, outcomes: Sequence[Outcome]) -> None:
    await connection.execute(
        sql(_HISTORY),
        {
            "ids": [one.post_id for one in outcomes],
            "attempts": [one.attempt for one in outcomes],
            "results": [one.result for one in outcomes],
            "times": [one.at for one in outcomes],
            "reasons": [one.reason for one in outcomes],
            "holds": [one.hold_id for one in outcomes],
            "fences": [one.fence for one in outcomes],
            "publications": [one.publication for one in outcomes],
        },
    )
