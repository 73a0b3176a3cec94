"""An update that a network does not take, and the later ones of its incident; on a real ledger."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable

import pytest

from ops.embedded.system import System
from schemas.posts import Post
from services.kit import database
from services.kit.telemetry import Clock
from services.publisher import backoff, circuit, failures
from services.publisher.channels import NotSent, Publication, Unknown
from services.publisher.clearance import Clearance
from services.publisher.delivery import Delivery
from services.publisher.job import Job
from services.publisher.store import SCHEMA, Store
from services.publisher.turns import InOrder
from tests.desk import Desk
from tests.fakes import FakeChannel

LET_BY_S = 0.3


class Picky(FakeChannel):
    """A network that does not bear some texts, and never will."""

    def __init__(self) -> None:
        super().__init__(Clock())
        self.error: Exception = NotSent("500")
        self.refused = 0
        self.bears: Callable[[str], bool] = lambda _: True

    async def publish(self, clearance: Clearance, *, key: str) -> Publication:
        if not self.bears(clearance.post.text):
            self.refused += 1
            raise self.error
        return await super().publish(clearance, key=key)

    @property
    def said(self) -> list[str]:
        return [post.text for post in self.standing.values()]


class Incident:
    """One incident's updates on one account, and the line they wait in."""

    def __init__(self, store: Store) -> None:
        self.channel, self.incident_id = Picky(), uuid.uuid4().hex
        self.desk = Desk(store, f"account-{self.incident_id}", self.channel)
        self.begin_again()

    def begin_again(self) -> None:
        self.delivery: Delivery = self.desk.delivery()
        self.turns = InOrder(self.delivery.settle, crash=self._crash)

    def _crash(self, why: str, error: BaseException | None = None) -> None:
        raise AssertionError(why) from error

    def update(self, text: str, *, language: str = "en") -> Post:
        """Make an update; its id is as `posts_of` would have it."""
        return self.desk.new_post(
            "update", text=text, incident_id=self.incident_id, language=language,
            post_id=f"{uuid.uuid4().hex}.{self.desk.account}.{language}",
        )  # fmt: skip

    def put(self, *updates: Post) -> list[Job]:
        jobs = [Job(post, 1, lambda _: None, steps_aside=True) for post in updates]
        for job in jobs:
            self.turns.put(job)
        return jobs

    async def all_over(self) -> None:
        """Wait until nothing is asked of the database any more: what is cancelled there leaves a connection open."""
        await self.until(lambda: not self.turns._lines)

    def results(self) -> dict[str, str]:
        return {outcome.post_id: outcome.result for outcome in self.desk.said}

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not what():  # noqa: ASYNC110  # The line's task.
                await asyncio.sleep(0.02)


@pytest.fixture
async def incident(system: System, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Incident]:
    monkeypatch.setattr(backoff, "FIRST_RETRY_S", 0.02)
    monkeypatch.setattr(backoff, "LAST_RETRY_S", 0.02)
    monkeypatch.setattr(failures, "LET_BY_S", LET_BY_S)
    engine = database.new_engine(system.database, schema=SCHEMA)
    made = Incident(Store(engine, publisher="test"))
    yield made
    made.channel.bears = lambda _: True
    await made.all_over()
    await engine.dispose()


@pytest.mark.parametrize("error", [NotSent("500"), Unknown("no answer")], ids=str)
async def test_an_update_that_is_never_taken_does_not_keep_the_next_one_for_ever(
    incident: Incident, error: Exception
) -> None:
    channel = incident.channel
    channel.error, channel.bears = error, lambda text: text != "first"
    first, second = incident.update("first"), incident.update("second")
    incident.put(first, second)
    await incident.until(lambda: len(incident.results()) == 2)
    assert channel.said == ["second"]
    known = "failed" if isinstance(error, NotSent) else "uncertain"
    assert incident.results() == {first.post_id: known, second.post_id: "published"}
    (said,) = [outcome for outcome in incident.desk.said if outcome.post_id == first.post_id]
    assert "a later update of its incident is out" in said.reason
    assert str(error) in said.reason


async def test_behind_an_outage_none_is_left_out_and_their_order_stays(incident: Incident) -> None:
    channel = incident.channel
    begun, is_up = list[str](), False

    def bears(text: str) -> bool:
        """Come back with a try of the first, when each of them has been tried."""
        nonlocal is_up
        is_up |= text == "first" and set(begun) == {"first", "second", "third"}
        begun.append(text)
        return is_up

    channel.bears = bears
    updates = [incident.update(text) for text in ("first", "second", "third")]
    incident.put(*updates)
    await incident.until(lambda: len(incident.results()) == 3)
    assert channel.said == ["first", "second", "third"]


async def test_whoever_goes_on_knows_what_is_out(incident: Incident) -> None:
    channel = incident.channel
    channel.bears = lambda text: text != "first"
    first, second = incident.update("first"), incident.update("second")
    incident.put(second)
    await incident.until(lambda: channel.said == ["second"])
    (left,) = incident.put(first)
    await incident.until(lambda: channel.refused > 1)
    left.dropped = True  # Another publisher has the partition.
    await incident.all_over()
    incident.desk.said.clear()
    incident.begin_again()
    incident.put(first, second)
    await incident.until(lambda: len(incident.results()) == 2)
    assert channel.said == ["second"]
    # By whether the other one could still say that it had not sent it.
    assert incident.results()[first.post_id] in ("failed", "uncertain")


async def test_another_languages_words_are_no_later_update(incident: Incident) -> None:
    channel = incident.channel
    channel.bears = lambda text: text != "zuerst"
    german, english = incident.update("zuerst", language="de"), incident.update("first")
    incident.put(german, english)
    await incident.until(lambda: channel.said == ["first"])
    await asyncio.sleep(0.2)
    assert german.post_id not in incident.results()
    channel.bears = lambda _: True
    await incident.until(lambda: channel.said == ["first", "zuerst"])


async def test_what_fails_for_long_is_told_and_keeps_no_offer_of_its_account_waiting(
    incident: Incident, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its failures opened the account's circuit again and again: no offer went out as long as it was tried."""
    monkeypatch.setattr(failures, "TELL_AFTER_S", 2 * LET_BY_S)
    channel, account = incident.channel, incident.desk.account
    channel.bears = lambda text: text != "first"
    first = incident.update("first")
    incident.put(first)
    await incident.until(lambda: bool(incident.delivery.remarks()))
    assert incident.delivery.remarks() == {f"update {first.post_id}": f"{account}: 500"}
    paces, refused = incident.delivery.paces, channel.refused
    assert paces.circuits[account].is_open
    paces.worked(account)  # An offer that was let through to try has gone out.
    await incident.until(lambda: channel.refused > refused + circuit.FAILURES)
    assert not paces.circuits
    channel.bears = lambda _: True
    await incident.until(lambda: channel.said == ["first"] and not incident.delivery.remarks())
