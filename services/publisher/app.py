"""The publisher, wired: settings, ledger, channels, stream, delivery, HTTP."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import yaml
from fastapi import FastAPI
from pydantic import Field, ValidationError

from schemas.envelope import in_words
from schemas.topics import TOPICS
from services.kit import broker as kafka
from services.kit import database, telemetry, web
from services.kit.settings import Settings
from services.publisher.accounts import (
    Accounts,
    AnyAccount,
    FeedAccount,
    MastodonAccount,
    WebhookAccount,
)
from services.publisher.api import new_router
from services.publisher.channels import Channel
from services.publisher.channels.feed import Feed
from services.publisher.channels.mastodon import Mastodon
from services.publisher.channels.webhook import Webhook
from services.publisher.delivery import Delivery
from services.publisher.store import SCHEMA, Store
from services.publisher.stream import Stream

VERSION = "0.1.0"
VERSIONS = Path(__file__).with_name("migrations") / "versions"


class PublisherSettings(Settings):
    """What the publisher is told besides."""

    lease_s: float = Field(default=0.25, gt=0, le=5, description="how long a fence is relied on")
    accounts: Path = Field(default=Path("accounts.yaml"), description="file of channel accounts")
    title: str = Field(default="Service status", description="title of the public page")


def new_service(_: Settings) -> FastAPI:
    """Return the publisher as an application; everything starts and stops with it."""
    settings = PublisherSettings()
    accounts = read_accounts(settings.accounts)
    clock, registry = telemetry.Clock(), telemetry.new_registry(version=VERSION)
    publisher = str(uuid.uuid4())  # Fresh at each start: echoes of an earlier life say nothing.
    engine = database.new_engine(settings.database, schema=SCHEMA)
    store = Store(engine, publisher=publisher)
    broker = kafka.new_broker(settings.kafka, client_id="interlock-publisher")
    stream = Stream(
        broker,
        servers=settings.kafka,
        publisher=publisher,
        instance=settings.instance,
        accounts=accounts,
        lease_s=settings.lease_s,
        clock=clock,
        registry=registry,
        crash=telemetry.crash,
    )
    channels = {name: _channel(account, store, clock) for name, account in accounts.items()}
    stream.deliver_by(Delivery(store, channels, stream, clock=clock, emit=stream.emit_outcome))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await kafka.must_match(settings.kafka, TOPICS)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(engine.dispose)
            await database.migrate(engine, schema=SCHEMA, versions=VERSIONS)
            for channel in channels.values():
                stack.push_async_callback(channel.aclose)
            await stack.enter_async_context(broker)
            await stream.start()
            stack.push_async_callback(stream.stop)
            await stack.enter_async_context(
                kafka.background(
                    telemetry.crash,
                    stream.keep_fences(),
                    stream.keep_retractions(),
                    stream.due.keep_commits(),
                    stream.updates.keep_commits(),
                )
            )
            yield

    app = web.new_app(
        title="Interlock publisher",
        version=VERSION,
        keys=web.Keys(settings.keys),
        registry=registry,
        readiness=stream.not_ready,
        lifespan=lifespan,
    )
    app.include_router(new_router(stream, store, title=settings.title))
    return app


def read_accounts(path: Path) -> dict[str, AnyAccount]:
    """Read the file of channel accounts; raises ValueError that names the field."""
    try:
        found = Accounts.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        raise ValueError(f"{path}: {in_words(error)}") from None  # It would print the secrets.
    return found.accounts


def _channel(account: AnyAccount, store: Store, clock: telemetry.Clock) -> Channel:
    match account:
        case FeedAccount():
            return Feed(store, clock)
        case WebhookAccount():
            return Webhook(account, clock)
        case MastodonAccount():
            return Mastodon(account, clock)
