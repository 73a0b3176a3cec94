"""The publisher, wired: settings, ledger, channels, stream, delivery, HTTP."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    BlueskyAccount,
    DiscordAccount,
    EmailAccount,
    FeedAccount,
    MastodonAccount,
    WebhookAccount,
)
from services.publisher.api import new_router
from services.publisher.archive import Archive
from services.publisher.channels import Channel
from services.publisher.channels.bluesky import Bluesky
from services.publisher.channels.discord import Discord
from services.publisher.channels.email import Email
from services.publisher.channels.feed import Feed
from services.publisher.channels.mastodon import Mastodon
from services.publisher.channels.webhook import Webhook
from services.publisher.delivery import Delivery
from services.publisher.mail_store import MailStore
from services.publisher.paces import Paces
from services.publisher.page_store import PageStore
from services.publisher.store import SCHEMA, Store
from services.publisher.stream import Stream
from services.publisher.takeback import TakeBack

VERSION = "0.1.0"
VERSIONS = Path(__file__).with_name("migrations") / "versions"


class PublisherSettings(Settings):
    """What the publisher is told besides."""

    lease_s: float = Field(default=0.25, gt=0, le=5, description="how long a fence is relied on")
    accounts: Path = Field(default=Path("accounts.yaml"), description="file of channel accounts")
    title: str = Field(default="Service status", description="title of the public page")
    ledger_days: int = Field(default=8, ge=8, description="then a settled post is archived")
    public_url: str = Field(default="", description="where the public finds the page, for links")


@dataclass(frozen=True, slots=True)
class Tables:
    """What channels remember."""

    page: PageStore
    mail: MailStore


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
    paces = Paces(engine, clock=clock, registry=registry)
    tables = Tables(PageStore(engine), MailStore(engine))
    url = settings.public_url.rstrip("/")
    channels = {n: _channel(a, tables, clock, url=url) for n, a in accounts.items()}
    shared: dict[str, Any] = {"clock": clock, "emit": stream.emit_outcome}
    archive = Archive(engine, clock=clock, days=settings.ledger_days)
    take_back = TakeBack(store, channels, accounts, paces, say=stream.say, **shared)
    delivery = Delivery(store, channels, stream, paces, take_back, **shared)
    stream.deliver_by(delivery)

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
                    archive.keep_moving(),
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
        remarks=lambda: paces.remarks() | delivery.remarks(),
        lifespan=lifespan,
    )
    app.include_router(new_router(stream, store, archive, tables.page, title=settings.title))
    return app


def read_accounts(path: Path) -> dict[str, AnyAccount]:
    """Read the file of channel accounts; raises ValueError that names the field."""
    try:
        found = Accounts.model_validate(yaml.safe_load(path.read_text()))
    except ValidationError as error:
        raise ValueError(f"{path}: {in_words(error)}") from None  # It would print the secrets.
    return found.accounts


def _channel(account: AnyAccount, tables: Tables, clock: telemetry.Clock, *, url: str) -> Channel:
    match account:
        case FeedAccount():
            return Feed(tables.page, clock)
        case WebhookAccount():
            return Webhook(account, clock)
        case MastodonAccount():
            return Mastodon(account, clock)
        case BlueskyAccount():
            return Bluesky(account, clock)
        case DiscordAccount():
            return Discord(account, clock)
        case EmailAccount():
            return Email(account, tables.mail, clock, base_url=url)
