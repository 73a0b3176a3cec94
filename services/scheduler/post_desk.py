"""What the routes of offers share: one request's offers, checked and queued, changed, decided on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from schemas.channels import ChannelAccount
from schemas.vocabulary import Vocabulary
from services.kit.database import sql
from services.kit.settings import Watched
from services.kit.web import Caller, Problem
from services.scheduler import campaign_api, desk
from services.scheduler.bodies import Campaign, Decision, PostBody, PostChange, PostView
from services.scheduler.campaign_life import TAKES_POSTS
from services.scheduler.checks import Checked, Known, as_json, check
from services.scheduler.lane_store import LaneStore, known_lanes, lane_of
from services.scheduler.lanes import lane_key
from services.scheduler.life import State
from services.scheduler.recovery import latest_of

WAITING: frozenset[State] = frozenset({"review", "unapproved"})
Times = dict[int, datetime]


@dataclass(frozen=True, slots=True)
class Queued:
    """The ids of what was queued, of so many that were wanted: the others were known."""

    ids: list[str]
    wanted: int


class PostDesk:
    """What the routes of offers share."""

    def __init__(
        self,
        lanes: LaneStore,
        accounts: Mapping[str, ChannelAccount],
        vocabulary: Watched[Vocabulary],
    ) -> None:
        self.lanes, self.engine, self._accounts = lanes, lanes.engine, accounts
        self._vocabulary = vocabulary

    @property
    def known(self) -> Known:
        return Known(self._accounts, self._vocabulary.value)

    async def add(
        self, connection: AsyncConnection, campaign_id: str, bodies: list[PostBody], author: str
    ) -> tuple[list[PostView], Times]:
        """Queue what these bodies mean, and return it as it stands."""
        queued, times = await self.queue(connection, campaign_id, bodies, author)
        rows = await desk.read_posts(connection, queued.ids)
        return await self.with_warnings(connection, [self.view(row) for row in rows]), times

    async def with_warnings(
        self, connection: AsyncConnection, posts: Sequence[PostView]
    ) -> list[PostView]:
        """Return offers with what is doubtful of each: labels, and the same words nearby."""
        alike = await desk.alike(connection, [post.model_dump() for post in posts])
        vocabulary = self._vocabulary.value
        return [
            post.model_copy(update={"warnings": vocabulary.doubts(post.labels) + same})
            for post, same in zip(posts, alike, strict=True)
        ]

    async def queue(
        self, connection: AsyncConnection, campaign_id: str, bodies: list[PostBody], author: str
    ) -> tuple[Queued, Times]:
        """Queue what these bodies mean: all of it or none. Returns when each lane is due."""
        takes_slots = any(body.slot for body in bodies)
        campaign = await self.taking(connection, campaign_id, locked=takes_slots)
        slots = (
            FreeSlots(await next_slot(connection, campaign_id), campaign) if takes_slots else None
        )
        done = check(bodies, campaign, self.known, free=slots.all() if slots else iter(()))
        refuse(done)
        if slots is not None:
            await _take_slots(connection, campaign_id, slots.next_at)
        return await self.write(connection, campaign, done.rows, author)

    async def taking(
        self, connection: AsyncConnection, campaign_id: str, *, locked: bool = False
    ) -> Campaign:
        """Return a campaign that takes offers; one with a budget is counted by nobody else meanwhile."""
        campaign = await campaign_api.look(connection, campaign_id)
        if locked or campaign.budget is not None:
            campaign = await campaign_api.lock(connection, campaign_id)
        if campaign.state not in TAKES_POSTS:
            raise Problem(409, f"the campaign {campaign_id} is {campaign.state}")
        return campaign

    async def write(
        self,
        connection: AsyncConnection,
        campaign: Campaign,
        rows: list[dict[str, Any]],
        author: str,
    ) -> tuple[Queued, Times]:
        """Queue offers that were checked. Returns when each lane is due."""
        await self._must_be_in_budget(connection, campaign, len(rows))
        await self.give_lanes(connection, [(campaign, rows)])
        state = "unapproved" if campaign.needs_approval else "queued"
        ids = await desk.add_posts(
            connection, campaign.campaign_id, rows, state=state, author=author
        )
        times: Times = {}
        note_due(times, rows)
        return Queued(ids, len(rows)), times

    async def _must_be_in_budget(
        self, connection: AsyncConnection, campaign: Campaign, count: int
    ) -> None:
        if campaign.budget is None:
            return
        used = await desk.count_posts(connection, campaign.campaign_id)
        if used + count > campaign.budget:
            left = max(0, campaign.budget - used)
            raise Problem(409, f"the campaign's budget has room for {left} more, not for {count}")

    async def give_lanes(
        self, connection: AsyncConnection, wanted: Sequence[tuple[Campaign, list[dict[str, Any]]]]
    ) -> None:
        """Give each campaign's offers their lanes."""
        placed = [
            (campaign, row, (campaign.campaign_id, lane_key(row["labels"])))
            for campaign, rows in wanted
            for row in rows
        ]
        needed = {key: (campaign, row["labels"]) for campaign, row, key in placed}
        lanes = await known_lanes(connection, needed)
        for key in sorted(needed.keys() - lanes.keys()):  # In one order: nobody waits for another.
            lanes[key] = await self.lane(connection, *needed[key])
        for _, row, key in placed:
            row["lane_id"] = lanes[key]

    async def lane(
        self, connection: AsyncConnection, campaign: Campaign, labels: dict[str, str]
    ) -> int:
        """Return the lane of these labels in a campaign."""
        running, priority = campaign.state == "running", campaign.priority
        return await lane_of(
            connection, campaign.campaign_id, labels, running=running, priority=priority
        )

    def view(self, row: Any) -> PostView:
        """Return a row as its author sees it."""
        return PostView.model_validate(dict(row))

    async def read(self, connection: AsyncConnection, post_id: str) -> PostView:
        """Return a post with its warnings, or a 404."""
        post = self._found(await desk.read_post(connection, post_id), post_id)
        return (await self.with_warnings(connection, [post]))[0]

    async def lock(self, connection: AsyncConnection, post_id: str) -> PostView:
        """Return a post that nobody else moves meanwhile, or a 404; one of the archive moves no more."""
        row = await desk.lock_post(connection, post_id)
        if row is None and (old := await desk.read_post(connection, post_id)) is not None:
            where = f": by hand at {old['url']}" if old["url"] else ""
            raise Problem(409, f"the post {post_id} was {old['state']}, and archived since{where}")
        return self._found(row, post_id)

    def _found(self, row: Any, post_id: str) -> PostView:
        if row is None:
            raise Problem(404, f"there is no post {post_id}")
        return self.view(row)

    async def change(
        self,
        connection: AsyncConnection,
        post: PostView,
        body: PostChange,
        author: str,
    ) -> Times:
        """Change a post that was not handed over; one that was approved is read again."""
        campaign = await campaign_api.look(connection, post.campaign_id)
        values: dict[str, Any] = {name: getattr(body, name) for name in body.model_fields_set}
        labels = {**campaign.labels, **body.labels} if "labels" in values else post.labels
        due_at = values.get("due_at") or post.due_at
        moved = due_at - post.due_at
        latest_at = values.get("latest_at") or post.latest_at + moved
        whole = PostBody(
            account=post.account, text=values.get("text", post.text), due_at=due_at,
            latest_at=latest_at, labels=labels, media=values.get("media", tuple(post.media)),
            thread=values.get("thread", tuple(post.thread)), card=values.get("card", post.card),
        )  # fmt: skip
        done = check([whole], campaign, self.known, free=iter(()))
        refuse(done, strip="0/")
        values |= {"due_at": due_at, "latest_at": latest_at}
        for name in {"text", "thread"} & values.keys():
            values[name] = done.rows[0][name]  # With the campaign's marks on its links.
        values["lane_id"] = lane = await self.lane(connection, campaign, labels)
        values.pop("labels", None)
        if "media" in values:
            values["media"] = as_json(body.media)
        if values.get("card") is not None:
            values["card"] = values["card"].model_dump(mode="json")
        if campaign.needs_approval:
            # Whoever wrote last is the author: nobody approves their own words in another's offer.
            values |= {"state": "unapproved", "approver": None, "author": author}
        await desk.change_post(connection, post.post_id, values, author=author)
        return {lane: due_at}

    async def decide(
        self, connection: AsyncConnection, post_ids: Sequence[str], body: Decision, caller: Caller
    ) -> Times:
        """Approve or reject offers that wait; all of them or none. Nobody decides on their own."""
        times: Times = {}
        now = await desk.now(connection)
        for number, post_id in enumerate(post_ids):
            post = await self.lock(connection, post_id)
            if post.author == caller.name:
                raise Problem(
                    403, f"{caller.name} wrote {post_id}: somebody else has to {body.decision} it"
                )
            if post.state not in WAITING:
                raise Problem(409, f"the post {post_id} is {post.state}, not under review")
            if body.decision == "reject":
                await desk.reject_post(
                    connection, post_id, approver=caller.name, comment=body.comment
                )
                continue
            campaign = await campaign_api.look(connection, post.campaign_id)
            at = now + timedelta(seconds=number * body.spread_s)
            due_at = max(post.due_at, at)
            useful = latest_of(due_at, None, useful_s=campaign.useful_s)
            await desk.approve_post(
                connection, post_id, due_at=due_at, latest_at=max(post.latest_at, useful),
                approver=caller.name, comment=body.comment,
            )  # fmt: skip
            lane = await self.lane(connection, campaign, post.labels)
            times[lane] = min(times.get(lane, due_at), due_at)
        return times


def note_due(times: Times, rows: Sequence[Mapping[str, Any]]) -> None:
    """Note when the lanes of these offers are due next."""
    for row in rows:
        lane, due_at = row["lane_id"], row["due_at"]
        times[lane] = min(times.get(lane, due_at), due_at)


class FreeSlots:
    """A campaign's free slots, from the next on."""

    def __init__(self, begin: datetime, campaign: Campaign) -> None:
        self.next_at, self.campaign = begin, campaign

    def all(self) -> Iterator[datetime]:
        gap = timedelta(seconds=3_600 / self.campaign.per_hour) if self.campaign.per_hour else None
        for at in self.campaign.frame.slots(self.next_at):
            self.next_at = at + (gap or timedelta(0))
            yield at


async def next_slot(connection: AsyncConnection, campaign_id: str) -> datetime:
    statement = sql(
        "SELECT GREATEST(next_slot_at, clock_timestamp()) FROM campaigns WHERE campaign_id = :id"
    )
    found: datetime = (await connection.execute(statement, {"id": campaign_id})).scalar_one()
    return found


async def _take_slots(connection: AsyncConnection, campaign_id: str, next_at: datetime) -> None:
    await connection.execute(
        sql("UPDATE campaigns SET next_slot_at = :at WHERE campaign_id = :id"),
        {"at": next_at, "id": campaign_id},
    )


def refuse(done: Checked, *, strip: str = "") -> None:
    """Say all that is wrong at once."""
    if done.problems:
        errors = [
            {"pointer": one["pointer"].replace(f"/{strip}", "/", 1) if strip else one["pointer"],
             "detail": one["detail"]}
            for one in done.problems
        ]  # fmt: skip
        first = errors[0]
        more = f", and {len(errors) - 1} more" if len(errors) > 1 else ""
        raise Problem(422, f"{first['pointer'][1:]}: {first['detail']}{more}", errors=errors)
