"""What every channel must do, for the core decides from its capabilities alone.

One suite for the three channels against the sandbox network and real PostgreSQL, and for the fake
that unit tests of the delivery use.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from ops.embedded.process import free_port
from ops.embedded.system import System
from services.kit import database
from services.kit.outbound import sign
from services.kit.telemetry import Clock
from services.publisher.accounts import MastodonAccount, WebhookAccount
from services.publisher.channels import Channel, NotSent, Publication
from services.publisher.channels.feed import Feed
from services.publisher.channels.mastodon import Mastodon
from services.publisher.channels.webhook import Webhook
from services.publisher.clearance import Clearance, Renew
from services.publisher.gate import TooLate
from services.publisher.page_store import PageStore
from services.publisher.store import SCHEMA
from tests.builders import a_clearance, a_post
from tests.fakes import FakeChannel

CHANNELS = ("webhook", "mastodon", "feed", "fake")
SECRET = "a-secret-of-the-tests"


@dataclass
class Subject:
    """One channel, and a way to see what stands on it."""

    channel: Channel
    standing: Callable[[str], Awaitable[int]]


@pytest.fixture(params=CHANNELS)
async def subject(request: pytest.FixtureRequest, system: System) -> AsyncIterator[Subject]:
    make = {"webhook": a_webhook, "mastodon": a_mastodon, "feed": a_feed, "fake": a_fake}
    async with make[request.param](system) as made:
        yield made
        await made.channel.aclose()


@asynccontextmanager
async def a_webhook(system: System) -> AsyncIterator[Subject]:
    url = f"{system.address('sandbox')}/hooks/contract"
    account = WebhookAccount.model_validate({"channel": "webhook", "url": url, "secret": SECRET})
    async with httpx.AsyncClient(base_url=system.address("sandbox")) as client:

        async def standing(text: str) -> int:
            record = (await client.get("/sandbox/record")).json()
            ours = [seen for seen in record if seen["account"] == "contract"]
            keys = {seen["key"] for seen in ours}
            sent = {seen["key"] for seen in ours if text in seen["text"]}
            return sum(1 for key in sent if f"{key}.retracted" not in keys)

        yield Subject(Webhook(account, Clock()), standing)


@asynccontextmanager
async def a_mastodon(system: System) -> AsyncIterator[Subject]:
    url = system.address("sandbox")
    account = MastodonAccount.model_validate(
        {"channel": "mastodon", "url": url, "token": "contract"}
    )
    async with httpx.AsyncClient(base_url=url) as client:

        async def standing(text: str) -> int:
            posts = (await client.get("/api/v1/timelines/public")).json()
            return sum(1 for post in posts if post["text"] == text)

        yield Subject(Mastodon(account, Clock()), standing)


@asynccontextmanager
async def a_feed(system: System) -> AsyncIterator[Subject]:
    engine = database.new_engine(system.database, schema=SCHEMA)
    rows = PageStore(engine)

    async def standing(text: str) -> int:
        return sum(1 for row in await rows.read_feed() if row.text == text)

    yield Subject(Feed(rows), standing)
    await engine.dispose()


@asynccontextmanager
async def a_fake(_: System) -> AsyncIterator[Subject]:
    fake = FakeChannel(Clock())

    async def standing(text: str) -> int:
        return sum(1 for post in fake.standing.values() if post.text == text)

    yield Subject(fake, standing)


def cleared(*, until_s: float = math.inf, renew: Renew | None = None) -> Clearance:
    text = f"contract {uuid.uuid4().hex}"
    post = a_post(post_id=uuid.uuid4().hex, text=text)
    return a_clearance(post, until_s=until_s, renew=renew)


async def test_a_cleared_post_is_published(subject: Subject) -> None:
    post = cleared()
    made = await subject.channel.publish(post, key=post.post.post_id)
    assert made.id
    assert await subject.standing(post.post.text) == 1


async def test_a_clearance_that_ran_out_publishes_nothing(subject: Subject) -> None:
    post = cleared(until_s=time.monotonic())
    with pytest.raises(TooLate):
        await subject.channel.publish(post, key=post.post.post_id)
    assert await subject.standing(post.post.text) == 0


async def test_a_second_try_with_the_same_key_is_the_same_publication(subject: Subject) -> None:
    post = cleared()
    first = await subject.channel.publish(post, key=post.post.post_id)
    again = await subject.channel.publish(post, key=post.post.post_id)
    assert first.id == again.id
    assert await subject.standing(post.post.text) == 1


async def test_what_is_retracted_is_gone_and_gone_twice_is_gone(subject: Subject) -> None:
    assert subject.channel.capabilities.can_delete
    post = cleared()
    made = await subject.channel.publish(post, key=post.post.post_id)
    await subject.channel.retract(made)
    await subject.channel.retract(made)
    assert await subject.standing(post.post.text) == 0


@pytest.mark.parametrize("name", ["webhook", "mastodon"])
async def test_where_nobody_listens_nothing_was_sent(name: str) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    channel: Any
    if name == "webhook":
        channel = Webhook(
            WebhookAccount.model_validate({"channel": name, "url": nowhere, "secret": SECRET}),
            Clock(),
        )
    else:
        channel = Mastodon(
            MastodonAccount.model_validate({"channel": name, "url": nowhere, "token": "t"}), Clock()
        )
    with pytest.raises(NotSent):
        await channel.publish(cleared(), key="k")
    with pytest.raises(NotSent):
        await channel.retract(Publication("1"))
    await channel.aclose()


def test_a_signature_is_the_one_of_the_standard() -> None:
    """The vector of the Standard Webhooks specification's own libraries."""
    signature = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        stamp="1614265330",
        body=b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_are_not_in_a_repr() -> None:
    account = WebhookAccount.model_validate(
        {"channel": "webhook", "url": "http://a.example", "secret": SECRET}
    )
    assert SECRET not in repr(account)
