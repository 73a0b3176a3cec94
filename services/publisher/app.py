"""The publisher, wired: settings, ledger, channels, stream, delivery, HTTP."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from faststream.kafka import KafkaBroker
from pydantic import Field

from schemas.topics import TOPICS
from services.kit import broker as kafka
from services.kit import database, telemetry, web
from services.kit.members import Members
from services.kit.settings import Settings, read_file
from services.kit.topics import must_match
from services.publisher import push, subscribe
from services.publisher.accounts import (
    Accounts,
    AnyAccount,
    AppriseAccount,
    BlueskyAccount,
    DiscordAccount,
    EmailAccount,
    FeedAccount,
    MastodonAccount,
    SlackAccount,
    StatuspageAccount,
    TeamsAccount,
    TelegramAccount,
    WebhookAccount,
    WebPushAccount,
    XAccount,
)
from services.publisher.api import new_router
from services.publisher.archive import Archive
from services.publisher.audit import Audit
from services.publisher.brokers_clock import BrokersClock
from services.publisher.channels import Channel
from services.publisher.channels.apprise import Apprise
from services.publisher.channels.bluesky import Bluesky
from services.publisher.channels.discord import Discord
from services.publisher.channels.email import Email
from services.publisher.channels.feed import Feed
from services.publisher.channels.mastodon import Mastodon
from services.publisher.channels.slack import Slack
from services.publisher.channels.statuspage import Statuspage
from services.publisher.channels.teams import Teams
from services.publisher.channels.telegram import Telegram
from services.publisher.channels.webhook import Webhook
from services.publisher.channels.webpush import WebPush, public_key
from services.publisher.channels.x import X
from services.publisher.delivery import Delivery
from services.publisher.mail_store import MailStore
from services.publisher.paces import Paces
from services.publisher.page import PageSettings
from services.publisher.page_store import PageStore
from services.publisher.push_store import PushStore
from services.publisher.rendering import Ways
from services.publisher.site import Site, SiteLayer
from services.publisher.store import SCHEMA, Store
from services.publisher.stream import Carries, Stream
from services.publisher.takeback import TakeBack

VERSION = "0.1.0"
# One line a network; the feed and e-mail have tables besides.
NETWORKS: dict[type[AnyAccount], Callable[[Any, telemetry.Clock], Channel]] = {
    WebhookAccount: Webhook,
    MastodonAccount: Mastodon,
    BlueskyAccount: Bluesky,
    DiscordAccount: Discord,
    SlackAccount: Slack,
    TelegramAccount: Telegram,
    TeamsAccount: Teams,
    XAccount: X,
    StatuspageAccount: Statuspage,
    AppriseAccount: Apprise,
}
VERSIONS = Path(__file__).with_name("migrations") / "versions"


class PublisherSettings(Settings):
    """What the publisher is told besides."""

    lease_s: float = Field(default=0.25, gt=0, le=5, description="how long a fence is relied on")
    carries: Carries = Field(
        default="all", description="all, or only offers, or only updates: both must be carried"
    )
    accounts: Path = Field(default=Path("accounts.yaml"), description="file of channel accounts")
    page: Path | None = Field(default=None, description="file of the public page")
    page_folder: Path | None = Field(default=None, description="the site is written there as well")
    title: str = Field(default="Service status", description="title of a page that has no file")
    ledger_days: int = Field(default=8, ge=8, description="then a settled post is archived")
    public_url: str = Field(
        default="", pattern=r"^$|^https?://.*[^/]$", description="where the public finds the page"
    )


@dataclass(frozen=True, slots=True)
class Tables:
    """What channels remember."""

    page: PageStore
    mail: MailStore
    push: PushStore


def new_service(_: Settings) -> FastAPI:
    """Return the publisher as an application; everything starts and stops with it."""
    settings = PublisherSettings()
    accounts = read_file(settings.accounts, Accounts).accounts
    clock, registry = BrokersClock(telemetry.Clock()), telemetry.new_registry(version=VERSION)
    engine = database.new_engine(settings.database, schema=SCHEMA)
    # Fresh at each start: echoes of an earlier life say nothing.
    store = Store(engine, publisher=str(uuid.uuid4()))
    broker = kafka.new_broker(settings.cluster, client_id="interlock-publisher")
    stream = Stream(
        broker,
        cluster=settings.cluster,
        publisher=store.publisher,
        instance=settings.instance,
        accounts=accounts,
        lease_s=settings.lease_s,
        clock=clock,
        registry=registry,
        crash=telemetry.crash,
        carries=settings.carries,
    )
    members = _new_members(broker, settings, stream)
    tables = Tables(PageStore(engine), MailStore(engine), PushStore(engine))
    channels = {n: _channel(a, tables, clock, url=settings.public_url) for n, a in accounts.items()}
    paces = Paces(engine, clock=clock, registry=registry)
    stream.deliver_by(_new_delivery(store, channels, accounts, paces, stream))
    archive = Archive(engine, clock=clock, days=settings.ledger_days)
    mailer, pusher = _subscriptions(accounts, url=settings.public_url)
    site = _new_site(settings, tables.page, stream, clock, ways=_ways(mailer, pusher))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await must_match(settings.cluster, TOPICS)
        async with AsyncExitStack() as stack:
            for close in (engine.dispose, *(channel.aclose for channel in channels.values())):
                stack.push_async_callback(close)
            await database.migrate(engine, schema=SCHEMA, versions=VERSIONS)
            await stack.enter_async_context(kafka.connected(broker))
            for end in (members.hand_over, stream.stop):  # The last that is pushed is the first.
                stack.push_async_callback(end)
            await stream.start()
            await stack.enter_async_context(
                kafka.background(
                    telemetry.crash,
                    members.keep_looking(),
                    stream.gate.fences.keep_on(),
                    stream.keep_retractions(),
                    archive.keep_moving(),
                    Audit(
                        engine, clock=clock, lease_s=settings.lease_s, registry=registry
                    ).keep_checking(),
                    site.keep_fresh(),
                    *(queues.keep_commits() for queues in stream.carried),
                )
            )
            stack.push_async_callback(stream.end_sends)
            yield

    app = web.new_app(
        title="Interlock publisher",
        version=VERSION,
        keys=web.Keys(settings.keys),
        registry=registry,
        readiness=lambda: _not_ready(stream, site),
        remarks=lambda: (
            paces.remarks() | stream.delivery.remarks() | site.remarks() | _deserted(members)
        ),
        lifespan=lifespan,
        outages=database.OUTAGES,
        mistakes=database.MISTAKES,
    )
    for router in (
        new_router(stream, store, archive),
        subscribe.new_router(site, tables.mail, mailer, clock),
        push.new_router(site.settings, tables.push, pusher, clock),
    ):
        app.include_router(router)
    app.add_middleware(SiteLayer, site=site)  # The last that is added is asked first.
    return app


async def _not_ready(stream: Stream, site: Site) -> dict[str, str]:
    return await stream.not_ready() | site.not_ready()


def _new_members(broker: KafkaBroker, settings: Settings, stream: Stream) -> Members:
    members = Members(broker, settings.cluster, crash=telemetry.crash)
    members.others = stream.left_to_others
    return members


def _deserted(members: Members) -> dict[str, str]:
    return {
        f"group {group}": "no publisher carries what it is for: INTERLOCK_CARRIES leaves it to another"
        for group in members.deserted
    }


def _new_delivery(
    store: Store,
    channels: dict[str, Channel],
    accounts: dict[str, AnyAccount],
    paces: Paces,
    stream: Stream,
) -> Delivery:
    shared: dict[str, Any] = {"clock": stream.clock, "emit": stream.outbox.emit_outcome}
    take_back = TakeBack(store, channels, accounts, paces, say=stream.say, **shared)
    return Delivery(store, channels, stream.gate, paces, take_back, **shared)


def _new_site(
    settings: PublisherSettings,
    rows: PageStore,
    stream: Stream,
    clock: telemetry.Clock,
    *,
    ways: Ways,
) -> Site:
    site = Site(
        read_file(settings.page, PageSettings)
        if settings.page
        else PageSettings(title=settings.title),
        url=settings.public_url,
        clock=clock,
        incidents=stream.incidents.all,
        known=stream.incidents_read,
        posts=rows.read_feed,
        ways=ways,
        folder=settings.page_folder,
    )
    rows.on_change = stream.on_change = site.changed
    return site


def _subscriptions(
    accounts: dict[str, AnyAccount], *, url: str
) -> tuple[EmailAccount | None, WebPushAccount | None]:
    """Return the accounts that the public can subscribe to; without an address of ours there is none."""
    mail = (one for one in accounts.values() if isinstance(one, EmailAccount) and one.subscribers)
    push = (one for one in accounts.values() if isinstance(one, WebPushAccount))
    return (next(mail, None), next(push, None)) if url else (None, None)


def _ways(mailer: EmailAccount | None, pusher: WebPushAccount | None) -> Ways:
    key = public_key(pusher.private_key.get_secret_value()) if pusher else ""
    return Ways(mail=mailer is not None, push_key=key)


def _channel(account: AnyAccount, tables: Tables, clock: telemetry.Clock, *, url: str) -> Channel:
    if isinstance(account, FeedAccount):
        return Feed(tables.page)
    if isinstance(account, EmailAccount):
        return Email(account, tables.mail, clock, base_url=url)
    if isinstance(account, WebPushAccount):
        return WebPush(account, tables.push, clock, url=url)
    return NETWORKS[type(account)](account, clock)
