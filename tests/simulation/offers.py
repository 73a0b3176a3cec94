"""Where a schedule's offers come from: handed over by us, or from the real queue, by real schedulers.

`Direct` hands each over when it is due, and again when the gate sent it back. `Queued` is marketing: it queues
offers in campaigns of all recovery plans, cancels and changes some, pauses a campaign, and decides on what a stop has left to a person.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy.exc import SQLAlchemyError

from schemas.posts import DuePost, Outcome, Post, RetractPost
from schemas.topics import DUE
from services.scheduler import campaign_desk, desk
from services.scheduler.bodies import CampaignBody
from services.scheduler.lane_store import LaneStore, lane_of, set_running
from services.scheduler.life import EDITABLE
from tests.simulation.database import Database
from tests.simulation.loop import EPOCH

if TYPE_CHECKING:
    from tests.simulation.world import World

NETWORKS: Final = ("northlink", "southlink")
LINES: Final = ("coast", "valley")
PLANS: Final[tuple[dict[str, Any], ...]] = (
    {"plan": "resume"}, {"plan": "review"}, {"plan": "shift"}, {"plan": "expire", "after_s": 2},
    {"plan": "spread", "per_hour": 3_600},
)  # fmt: skip
QUIET_S: Final = 1
DUE_IN_S: Final = 2.0
DECIDES_EVERY_S: Final = 1.0
MEDDLES: Final = 0.5  # How often marketing changes its mind, whenever it looks.
AGAIN_S: Final = 0.2
ENDS: Final = frozenset(
    {"published", "expired", "failed", "uncertain", "retracted", "retraction_failed", "cancelled"}
)


class Offers(ABC):
    """The offers of a schedule, by id, and what was said of each."""

    def __init__(self, world: World) -> None:
        self.world, self.chance = world, world.chance
        self.results: dict[str, list[str]] = {}
        self.attempts: dict[str, int] = {}  # The newest that was spoken of.

    @abstractmethod
    async def begin(self) -> None:
        """Set up what there has to be before the evening."""

    @abstractmethod
    async def add(self) -> None:
        """Let there be one more."""

    def on_outcome(self, outcome: Outcome) -> None:
        if outcome.post_id not in self.results:
            return
        self.world.say(f"outcome of {outcome.post_id}: {outcome.result} {outcome.reason}")
        newest = self.attempts.setdefault(outcome.post_id, outcome.attempt)
        if outcome.attempt >= newest or outcome.result != "held":  # Else it is said once more.
            self.results[outcome.post_id].append(outcome.result)
        self.attempts[outcome.post_id] = max(newest, outcome.attempt)

    def objection(self, post: Post) -> str:
        """Say why an offer must not begin to go out, hold or no hold."""
        return ""

    def unsettled(self) -> list[str]:
        """Return the offers that have not come to their end."""
        return [post_id for post_id, said in self.results.items() if not said or said[-1] == "held"]

    def _draw(self) -> dict[str, Any]:
        return {
            "account": self.chance.choice(sorted(self.world.networks)),
            "thread": ("There", "and back")[: self.chance.choice((0, 0, 1, 2))],
            "labels": {
                "network": self.chance.choice(NETWORKS), "line": self.chance.choice(LINES),
            },
        }  # fmt: skip


class Direct(Offers):
    """Offers that are due at once, without a queue."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.posts: dict[str, DuePost] = {}

    async def begin(self) -> None:
        """Do nothing: they need no campaign."""

    async def add(self) -> None:
        now = EPOCH + timedelta(seconds=self.world.loop.now_s)
        post = Post(
            post_id=f"offer-{len(self.posts)}", kind="offer", text="Weekend from 29", due_at=now,
            latest_at=now + timedelta(hours=1), **self._draw(),
        )  # fmt: skip
        self.posts[post.post_id], self.results[post.post_id] = DuePost(post=post, attempt=1), []
        self.world.say(f"{post.post_id} is due on {post.account}, {post.labels}")
        await self.world.write(DUE.name, self.posts[post.post_id])

    def on_outcome(self, outcome: Outcome) -> None:
        super().on_outcome(outcome)
        due = self.posts.get(outcome.post_id)
        if due is not None and outcome.result == "held" and outcome.attempt == due.attempt:
            # As the scheduler does when the hold has ended; here a little later.
            again = self.posts[outcome.post_id] = DuePost(post=due.post, attempt=due.attempt + 1)
            wait_s = self.chance.uniform(0.5, 2)
            world = self.world
            world.loop.outside(wait_s, lambda: world.spawn(world.write(DUE.name, again)))


class Queued(Offers):
    """Offers in the real queue."""

    def __init__(self, world: World, database: Database) -> None:
        super().__init__(world)
        self.database = database
        self.engine: Any = self.database.engine(world.harness)
        self.lanes = LaneStore(self.engine)
        self.campaigns: list[str] = []
        self.forbidden: dict[str, str] = {}
        self.texts: dict[str, str] = {}
        self.paused: set[str] = set()
        self.asked: set[str] = set()
        self.added: set[str] = set()
        self.count = 0

    async def begin(self) -> None:
        for plan in PLANS:
            known = CampaignBody.model_validate(
                {"name": plan["plan"], "recovery": plan, "quiet_s": QUIET_S}
            )
            values = {name: getattr(known, name) for name in campaign_desk.COLUMNS}
            values |= {"accounts": [], "recovery": plan}
            async with self.engine.begin() as connection:
                row = await campaign_desk.add_campaign(
                    connection, values, state="running", author="ada"
                )
            self.campaigns.append(row["campaign_id"])
        self.world.spawn(self._keep_deciding())

    async def add(self) -> None:
        number, self.count = self.count, self.count + 1
        due_at = self._at(self.chance.uniform(0, DUE_IN_S))
        plan = self.chance.randrange(len(PLANS))
        row = self._draw() | {
            "text": "Weekend from 29", "language": None, "media": [], "card": None, "due_at": due_at,
            "latest_at": due_at + timedelta(hours=1), "external_id": f"order-{number}",
        }  # fmt: skip
        self.world.say(f"order-{number} is queued for {PLANS[plan]['plan']}, {row['labels']}")
        while True:
            try:
                await self._queue(self.campaigns[plan], row)
            except SQLAlchemyError:  # Whoever queues tries again: the queue knows its id.
                await asyncio.sleep(AGAIN_S)
                continue
            self.added.add(f"order-{number}")
            return

    async def _queue(self, campaign: str, row: dict[str, Any]) -> None:
        async with self.engine.begin() as connection:
            lane = await lane_of(connection, campaign, row["labels"], running=True, priority=0)
            await desk.add_posts(
                connection, campaign, [row | {"lane_id": lane}], state="queued", author="ada"
            )
        await self.lanes.expect({lane: row["due_at"]})

    def on_outcome(self, outcome: Outcome) -> None:
        if outcome.kind == "offer":
            self.results.setdefault(outcome.post_id, [])
        super().on_outcome(outcome)

    def _at(self, later_s: float) -> datetime:
        return self.database.now() + timedelta(seconds=later_s)

    async def _keep_deciding(self) -> None:
        """Change, cancel and pause while the evening lasts; let no review wait, and no campaign rest."""
        acts = (self._cancel, self._change, self._ask_back, self._pause)
        while True:
            await asyncio.sleep(self.chance.expovariate(1 / DECIDES_EVERY_S))
            try:
                rows = self._rows()
                for row in rows:
                    if row["state"] in ("review", "unapproved"):
                        await self._approve(row["post_id"])
                if not self.world.misfortune.are_on:
                    await self._resume()
                elif rows and self.chance.random() < MEDDLES:
                    await self.chance.choice(acts)(self.chance.choice(rows))
            except SQLAlchemyError:
                continue

    async def _approve(self, post_id: str) -> None:
        at = self._at(0)
        async with self.engine.begin() as connection:
            row = await desk.lock_post(connection, post_id)
            assert row is not None
            await desk.approve_post(
                connection, post_id, due_at=at, latest_at=at + timedelta(hours=1),
                approver="bob", comment="",
            )  # fmt: skip
        self.world.say(f"{post_id} is approved")
        await self.lanes.expect({row["lane_id"]: at})

    async def _cancel(self, row: Any) -> None:
        async with self.engine.begin() as connection:
            done = await desk.cancel_post(connection, row["post_id"], author="ada")
        self.world.say(f"{row['post_id']} is to be cancelled: {done}")
        if done == "cancelled":
            self.forbidden[row["post_id"]] = "it was cancelled"

    async def _change(self, row: Any) -> None:
        """Give an offer other words, where it may have them."""
        post_id = row["post_id"]
        async with self.engine.begin() as connection:
            now = await desk.lock_post(connection, post_id)
            if now is None or now["state"] not in EDITABLE:
                return
            new = f"{now['text']}!"
            self.texts.pop(post_id, None)  # Until it is answered either may be right.
            await desk.change_post(connection, post_id, {"text": new}, author="ada")
        self.texts[post_id] = new
        self.world.say(f"{post_id} has other words")

    async def _pause(self, row: Any) -> None:
        self.paused.add(row["campaign_id"])  # It may be, whatever is answered.
        async with self.engine.begin() as connection:
            await set_running(connection, row["campaign_id"], running=False)
        self.world.say("a campaign is paused")

    async def _ask_back(self, row: Any) -> None:
        """Ask for an offer that went out, as the API does; from then on it must come to be gone."""
        if row["state"] == "published":
            self.world.say(f"{row['post_id']} is asked back")
            asked = RetractPost(
                post_id=row["post_id"], account=row["account"], reason="a mistake", author="ada"
            )
            await self.world.write(DUE.name, asked)
            self.asked.add(row["post_id"])

    async def _resume(self) -> None:
        for campaign in sorted(self.paused, key=self.campaigns.index):
            async with self.engine.begin() as connection:
                await set_running(connection, campaign, running=True)
            self.paused.discard(campaign)
            self.world.say("a campaign goes on")

    def _rows(self) -> list[Any]:
        return self.database.server.read(
            "SELECT post_id, external_id, account, state, campaign_id FROM posts ORDER BY number"
        )

    def objection(self, post: Post) -> str:
        if post.post_id in self.forbidden:
            return self.forbidden[post.post_id]
        said = self.texts.get(post.post_id, post.text)
        return f"its words are {said!r} now, not {post.text!r}" if post.text != said else ""

    def unsettled(self) -> list[str]:
        """Return the offers that have not ended, or of which the queue says another end than the network."""
        made = {key.split(".")[0] for n in self.world.networks.values() for key in n.made}
        standing = {p.post_id for n in self.world.networks.values() for p in n.standing.values()}
        rows = self._rows()
        there = {row["external_id"] for row in rows}
        return [
            f"{post_id}: {state}"
            for post_id, state in ((row["post_id"], row["state"]) for row in rows)
            if state not in ENDS
            or (post_id in made and state in ("expired", "cancelled"))
            or (post_id not in standing and state == "published")
            or (post_id in standing and (state == "retracted" or post_id in self.asked))
        ] + [f"{one} is not in the queue" for one in sorted(self.added - there)]
