"""The ledger in memory, and channels that are slow, fail, and lose answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from schemas.labels import Labels
from schemas.posts import Post
from services.kit.telemetry import Clock
from services.publisher.channels import NotSent, Publication, Retracted, Unknown
from services.publisher.channels.threads import Part, Threads
from services.publisher.clearance import Clearance
from services.publisher.ledger import UNSENT, Attempt, Capabilities, Entry, State, before
from services.publisher.store import Intent, Sent, Store, Unsent
from tests.simulation.loop import PROCESS, Loop, Process

FOR_EVER = datetime.max.replace(tzinfo=UTC)
SLOW = 0.1  # How often a network takes long when nothing is wrong with it.


class Rows(dict[str, Entry]):
    """The table: it outlives every publisher."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        super().__init__()
        self.changed: dict[str, datetime] = {}
        self.now = now  # The database's clock.


class _NoEngine:
    def execution_options(self, **_: Any) -> _NoEngine:
        return self


class MemoryStore(Store):
    """The publisher's store on a dictionary: its batches are real, its statements are these.

    `take_turn` is a round trip to the database; it may raise before or behind the statement.
    """

    def __init__(self, rows: Rows, *, publisher: str, take_turn: Callable[[], Any]) -> None:
        super().__init__(_NoEngine(), publisher=publisher)  # type: ignore[arg-type]
        self.rows, self._take_turn = rows, take_turn

    async def _find_all(self, post_ids: list[str]) -> list[Entry | None]:
        async with self._take_turn():
            return [self.rows.get(post_id) for post_id in post_ids]

    async def _record_intents(self, intents: list[Intent]) -> list[bool]:
        async with self._take_turn():
            return [self._intend(one) for one in intents]

    def _intend(self, one: Intent) -> bool:
        known = self.rows.get(one.post.post_id)
        again = known is not None and _may_be_tried(known, one.attempt)
        if known is not None and not again:
            return False
        self._put(
            replace(
                known or self._new(one), state="intent", attempt=one.attempt, publisher=self.publisher,
                fence=one.fence, intent_at=one.at, done_at=None, hold_id=None, detail="",
            )
        )  # fmt: skip
        return True

    def _new(self, one: Intent | Unsent) -> Entry:
        post = one.post
        return Entry(
            post_id=post.post_id, kind=post.kind, account=post.account, state="intent",
            attempt=one.attempt, labels=dict(post.labels), incident_id=post.incident_id,
            intent_at=one.at, done_at=None, publication=None, url=None, detail="", hold_id=None,
            publisher=self.publisher, fence=None, fence_begun_at=None, begun_at=None, attempts=[],
        )  # fmt: skip

    def _put(self, entry: Entry) -> None:
        self.rows[entry.post_id] = entry
        self.rows.changed[entry.post_id] = self.rows.now()

    async def _record_unsent(self, given: list[Unsent]) -> list[bool]:
        async with self._take_turn():
            return [self._leave_unsent(one) for one in given]

    def _leave_unsent(self, one: Unsent) -> bool:
        known = self.rows.get(one.post.post_id)
        if one.is_ours:
            may = (
                known is not None and known.state == "intent" and known.publisher == self.publisher
            )
        else:
            may = known is None or _may_be_tried(known, one.attempt)
        if may:
            self._put(
                replace(
                    known or self._new(one), state=one.state, attempt=one.attempt,
                    publisher=self.publisher, done_at=one.at, detail=one.why, hold_id=one.hold_id,
                )
            )  # fmt: skip
        return may

    async def _hand_intent(self, post_id: str, *, of: str, to: str) -> bool:
        async with self._take_turn():
            known = self.rows.get(post_id)
            if known is None or known.state != "intent" or known.publisher != of:
                return False
            self._put(replace(known, publisher=to))
            return True

    async def _record_sents(self, sents: list[Sent]) -> list[bool]:
        async with self._take_turn():
            return [self._send(one) for one in sents]

    def _send(self, one: Sent) -> bool:
        known = self.rows.get(one.post_id)
        if known is None or known.state not in before("sent"):
            return False
        self._put(
            replace(
                known, state="sent", done_at=one.at, begun_at=one.attempt.at,
                fence=one.attempt.fence, fence_begun_at=one.attempt.fence_begun_at,
                publication=one.publication, url=one.url, detail=one.detail, hold_id=None,
            )
        )  # fmt: skip
        return True

    async def record_attempt(
        self,
        post_id: str,
        attempt: Attempt,
        *,
        publication: str | None = None,
        url: str | None = None,
    ) -> None:
        async with self._take_turn():
            known = self.rows[post_id]
            tries = [*known.attempts, {"answer": attempt.answer}][-20:]
            known = replace(known, attempts=tries)
            is_ours = known.state == "intent" and known.publisher == attempt.publisher
            if publication is not None and (is_ours or known.publication is None):
                known = replace(known, publication=publication, url=url or known.url)
            self._put(known)

    async def record(self, post_id: str, state: State, **values: Any) -> bool:
        async with self._take_turn():
            known = self.rows.get(post_id)
            if known is None or known.state not in before(state):
                return False
            self._put(replace(known, state=state, **values))
            return True

    def _sent(self, since: datetime, until: datetime) -> list[Entry]:
        return [
            e for e in self.rows.values()
            if e.kind == "offer" and e.state == "sent" and e.done_at and since <= e.done_at <= until
        ]  # fmt: skip

    async def sent_labels(self, since: datetime) -> list[tuple[str, Labels]]:
        async with self._take_turn():
            found = {
                (e.account, tuple(sorted(e.labels.items()))): None
                for e in self._sent(since, FOR_EVER)
            }
            return [(account, dict(labels)) for account, labels in found]

    async def sent_between(
        self,
        since: datetime,
        until: datetime,
        *,
        account: str,
        labels: Sequence[Labels],
        limit: int,
    ) -> list[Entry]:
        async with self._take_turn():
            found = [
                e for e in self._sent(since, until) if e.account == account and e.labels in labels
            ]
            return sorted(found, key=lambda e: e.done_at or until, reverse=True)[:limit]

    async def count_between(
        self, since: datetime, until: datetime, *, account: str, labels: Sequence[Labels]
    ) -> tuple[int, int]:
        found = await self.sent_between(since, until, account=account, labels=labels, limit=10**9)
        return len(found), sum(bool(e.publication) for e in found)

    async def left_retracting(self, left_s: float) -> list[Entry]:
        async with self._take_turn():
            return [
                e for e in self.rows.values()
                if e.state == "retracting" and self._is_left(e.post_id, left_s)
            ]  # fmt: skip

    def _is_left(self, post_id: str, left_s: float) -> bool:
        return self.rows.changed[post_id] < self.rows.now() - timedelta(seconds=left_s)

    async def taken_back(self, within_s: float, left_s: float) -> list[tuple[str, str]]:
        async with self._take_turn():
            found = {
                (e.account, e.hold_id): None
                for e in self.rows.values()
                if e.state == "retracted" and e.hold_id is not None
                and self._is_left(e.post_id, left_s) and not self._is_left(e.post_id, within_s)
            }  # fmt: skip
            return list(found)

    async def keep_retracting(self, post_ids: Sequence[str]) -> None:
        async with self._take_turn():
            for post_id in post_ids:
                if self.rows[post_id].state == "retracting":
                    self.rows.changed[post_id] = self.rows.now()

    async def adopt_retraction(self, post_id: str, *, left_s: float) -> bool:
        async with self._take_turn():
            known = self.rows.get(post_id)
            if known is None or known.state != "retracting" or not self._is_left(post_id, left_s):
                return False
            self.rows.changed[post_id] = self.rows.now()
            return True


def _may_be_tried(known: Entry, attempt: int) -> bool:
    return known.state in UNSENT and known.attempt < attempt


class Network:
    """One account on a network that everybody posts to; what stands there outlives every process."""

    def __init__(self, name: str, can: Capabilities, chance: random.Random, loop: Loop) -> None:
        self.name, self.can, self.chance, self.loop = name, can, chance, loop
        self.standing: dict[str, Post] = {}
        self.made: dict[str, int] = {}
        self.told: dict[str, Process | None] = {}  # Who heard that it stands.
        self.numbers = count()
        self.faults = 0.0
        self.refuses: Callable[[Post], bool] = lambda _: False  # Each time.
        self.on_made: Callable[[Post, float], None] = lambda _, __: None
        self.on_begin: Callable[[Post], None] = lambda _: None

    def channel(self, clock: Clock) -> Line:
        """Return the account as one publisher has it."""
        return Line(self, clock)

    def create(self, name: str, made: str, post: Post, *, begun_s: float) -> None:
        """Let a post stand there."""
        if name not in self.standing:
            self.made[made] = self.made.get(made, 0) + 1
            if self.made[made] == 1:
                self.on_made(post, begun_s)
        self.standing[name] = post


class Line(Threads):
    """One publisher's line to a network."""

    def __init__(self, network: Network, clock: Clock) -> None:
        self.network, self.clock, self.capabilities = network, clock, network.can

    def texts(self, post: Post) -> list[str]:
        return [post.text, *post.thread]

    async def _send(self, clearance: Clearance, part: Part) -> Publication:
        network, post = self.network, clearance.post
        await self._wait()  # For a connection, a picture: whatever comes before the last look.
        await clearance.confirm()
        network.on_begin(post)
        if network.refuses(post) or network.chance.random() < network.faults:
            await self._wait()
            raise NotSent("the network did not take it")
        mark = f".{part.number}" if part.of > 1 else ""
        name = f"{part.key}{mark}"
        if not self.capabilities.idempotent_s:
            name += f"-{next(network.numbers)}"
        lands_s, begun_s = self._takes_s(), network.loop.now_s  # Whatever becomes of who asked.
        made = f"{post.post_id}{mark}"
        network.loop.outside(lands_s, lambda: network.create(name, made, post, begun_s=begun_s))
        if network.chance.random() < network.faults:  # Perhaps while the network is at work on it.
            await asyncio.sleep(2 * lands_s * network.chance.random())
            raise Unknown("the answer was lost")
        await asyncio.sleep(lands_s + self._takes_s())
        network.told[name] = PROCESS.get()
        return Publication(name)

    async def look_up(self, post: Post, *, key: str, age_s: float) -> Publication | None:
        await self._wait()
        if self.network.chance.random() < self.network.faults:
            raise NotSent("not now")
        parts = range(1 + len(post.thread))
        names = [f"{key}.{number}" for number in parts] if post.thread else [key]
        is_there = all(name in self.network.standing for name in names)
        return Publication(" ".join(names)) if is_there else None

    async def retract(self, publication: Publication) -> Retracted:
        if self.network.chance.random() < self.network.faults:
            raise NotSent("not now")
        for name in publication.id.split():
            self.network.standing.pop(name, None)
        await self._wait()
        return Retracted()

    async def aclose(self) -> None:
        return

    async def _wait(self) -> None:
        await asyncio.sleep(self._takes_s())

    def _takes_s(self) -> float:
        slow = self.network.chance.random() < SLOW + 2 * self.network.faults
        return self.network.chance.uniform(0.001, 0.8 if slow else 0.02)
