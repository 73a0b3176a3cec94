"""An account of each channel at its stand-in, and what stands there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ops.embedded.system import System
from services.kit import database
from services.kit.telemetry import Clock
from services.publisher import accounts
from services.publisher.channels import Channel
from services.publisher.channels.apprise import Apprise
from services.publisher.channels.bluesky import Bluesky
from services.publisher.channels.discord import Discord
from services.publisher.channels.email import Email
from services.publisher.channels.mastodon import Mastodon
from services.publisher.channels.slack import Slack
from services.publisher.channels.statuspage import Statuspage
from services.publisher.channels.teams import Teams
from services.publisher.channels.telegram import Telegram
from services.publisher.channels.webhook import Webhook
from services.publisher.channels.x import X
from services.publisher.mail_store import MailStore
from services.publisher.store import SCHEMA
from tests import chats, networks
from tests.faulty import Fault, Faulty, served
from tests.mailbox import Mailbox, a_mailbox
from tests.networks import TOKEN, Network

SECRET = "a-secret-of-the-tests"


@dataclass
class Case:
    """One account at a stand-in, and what stands there."""

    channel: Channel
    net: Network
    faulty: Faulty | None = None
    box: Mailbox | None = None

    def breaks(self, fault: Fault) -> None:
        if fault == "token expired":
            self.net.expired = {TOKEN, f"{TOKEN}-{self.net.logins}"}
            asyncio.get_running_loop().call_later(0.2, self.net.expired.clear)  # By a person.
        elif self.box is not None:
            self.box.fault = fault
        elif self.faulty is not None:
            self.faulty.fault = fault

    def standing(self, words: str) -> int:
        if self.box is not None:
            return sum(words in mail.get_content() for _, mail in self.box.mails)
        return sum(post["text"].count(words) for post in self.net.posts.values())


def an_account(kind: Any, **values: Any) -> Any:
    return kind.model_validate({"picture_hosts": ["127.0.0.1"]} | values)


def of_mastodon(url: str) -> Channel:
    account = an_account(accounts.MastodonAccount, channel="mastodon", url=url, token=TOKEN)
    return Mastodon(account, Clock())


def of_bluesky(url: str) -> Channel:
    values = {"channel": "bluesky", "url": url, "handle": "northlink.example", "password": TOKEN}
    return Bluesky(an_account(accounts.BlueskyAccount, **values), Clock())


def of_discord(url: str) -> Channel:
    values = {"channel": "discord", "url": url, "token": TOKEN, "channel_id": "42"}
    return Discord(an_account(accounts.DiscordAccount, **values), Clock())


def of_discord_webhook(url: str) -> Channel:
    values = {"channel": "discord", "webhook": f"{url}/api/webhooks/1/{TOKEN}"}
    return Discord(an_account(accounts.DiscordAccount, **values), Clock())


def of_webhook(url: str, *, deduplicates: bool = True) -> Channel:
    values = {"channel": "webhook", "url": f"{url}/hook", "secret": SECRET}
    account = an_account(accounts.WebhookAccount, deduplicates=deduplicates, **values)
    return Webhook(account, Clock())


def of_slack(url: str) -> Channel:
    values = {"channel": "slack", "url": url, "token": TOKEN, "channel_id": "C1"}
    return Slack(an_account(accounts.SlackAccount, **values), Clock())


def of_telegram(url: str) -> Channel:
    values = {"channel": "telegram", "url": url, "token": TOKEN, "chat_id": "@northlink"}
    return Telegram(an_account(accounts.TelegramAccount, **values), Clock())


def of_teams(url: str) -> Channel:
    values = {"channel": "teams", "webhook": f"{url}/workflows/{TOKEN}"}
    return Teams(an_account(accounts.TeamsAccount, **values), Clock())


def of_x(url: str) -> Channel:
    secrets = {"consumer_secret": TOKEN, "token": TOKEN, "token_secret": TOKEN}
    values = {"channel": "x", "url": url, "consumer_key": "interlock"} | secrets
    return X(an_account(accounts.XAccount, **values), Clock())


def of_apprise(url: str) -> Channel:
    address = f"json://interlock:{TOKEN}@{url.removeprefix('http://')}/notify?rto=0.5"
    account = an_account(accounts.AppriseAccount, channel="apprise", address=address)
    return Apprise(account, Clock())


def of_statuspage(url: str) -> Channel:
    values = {"channel": "statuspage", "url": url, "page_id": "page1", "key": TOKEN}
    components = {"c0ast": '{line="coast"}', "va11ey": '{line="valley"}'}
    account = an_account(accounts.StatuspageAccount, components=components, **values)
    return Statuspage(account, Clock())


HTTP: dict[str, tuple[Callable[[Network], Any], Callable[[str], Channel]]] = {
    "mastodon": (networks.mastodon, of_mastodon),
    "mastodon (GoToSocial)": (networks.gotosocial, of_mastodon),
    "bluesky": (networks.bluesky, of_bluesky),
    "discord (bot)": (chats.discord, of_discord),
    "discord (webhook)": (chats.discord, of_discord_webhook),
    "webhook": (networks.webhook, of_webhook),
    "slack": (chats.slack, of_slack),
    "telegram": (chats.telegram, of_telegram),
    "teams": (chats.teams, of_teams),
    "x": (networks.x, of_x),
    "statuspage": (chats.statuspage, of_statuspage),
    "apprise": (chats.apprise, of_apprise),
}
CHANNELS = (*HTTP, "email")


@asynccontextmanager
async def a_case(name: str, system: System) -> AsyncIterator[Case]:
    net = Network()
    if name == "email":
        engine = database.new_engine(system.database, schema=SCHEMA)
        async with a_mailbox() as box:
            smtp = {"host": "127.0.0.1", "port": box.port, "security": "none"}
            values = {"sender": "status@northlink.example", "to": ["ada@example.org"]}
            account = an_account(accounts.EmailAccount, channel="email", smtp=smtp, **values)
            channel: Channel = Email(account, MailStore(engine), Clock(), base_url="")
            yield Case(channel, net, box=box)
            await channel.aclose()
        await engine.dispose()
        return
    app, made = HTTP[name]
    async with served(app(net)) as faulty:
        channel = made(faulty.address)
        yield Case(channel, net, faulty)
        await channel.aclose()
