"""HTTP of counts and calendars: what there is of offers, by state and day, and for people's calendars."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from fastapi import APIRouter, Response

from schemas.base import Id
from services.kit.web import Caller, field_problem, require
from services.scheduler import counts, desk
from services.scheduler.bodies import PAGE_POSTS, CalendarDay
from services.scheduler.calendar_file import as_icalendar
from services.scheduler.campaign_api import READERS
from services.scheduler.post_desk import PostDesk

CALENDAR_DAYS = 366


class ICalendar(Response):
    """A calendar."""

    media_type = "text/calendar"


def add_routes(router: APIRouter, post_desk: PostDesk) -> None:
    """Add the routes of counts and calendars."""
    engine = post_desk.engine

    @router.get("/summary")
    async def count_states(_: Caller = require(*READERS)) -> dict[str, int]:
        """Count all posts by state."""
        async with engine.connect() as connection:
            return await counts.by_state(connection)

    @router.get("/calendar.ics", response_class=ICalendar)
    async def read_as_icalendar(
        begin: date,
        end: date,
        campaign_id: Id | None = None,
        _: Caller = require(*READERS),
    ) -> Response:
        """Return the first thousand offers due on some days as a calendar (RFC 5545) to subscribe to."""
        wanted = {
            "campaign_id": campaign_id,
            "due_from": datetime.combine(begin, time(), UTC),
            "due_before": datetime.combine(end, time(), UTC),
        }
        async with engine.connect() as connection:
            rows = await desk.list_posts(connection, wanted, after=0, limit=PAGE_POSTS)
            now = await desk.now(connection)
        return ICalendar(as_icalendar([post_desk.view(row) for row in rows], at=now))

    @router.get("/calendar")
    async def read_calendar(
        begin: date,
        end: date,
        campaign_id: Id | None = None,
        _: Caller = require(*READERS),
    ) -> list[CalendarDay]:
        """Count offers by campaign, day (UTC) and state, from one day until before another."""
        if not timedelta(0) < end - begin <= timedelta(days=CALENDAR_DAYS):
            raise field_problem("end", f"must be later than begin, by {CALENDAR_DAYS} days at most")
        async with engine.connect() as connection:
            rows = await counts.by_day(connection, begin=begin, end=end, campaign_id=campaign_id)
        return [CalendarDay.model_validate(dict(row)) for row in rows]
