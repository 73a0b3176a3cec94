"""Every channel under every fault, through the real delivery and ledger: what became of the post.

`docs/channels.md` is the table that this run makes; WRITE_DOCS=1 writes it.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ops.embedded.system import System
from schemas.holds import OpenHolds
from schemas.posts import Kind, Outcome, Post
from services.kit import database
from services.kit.telemetry import Clock
from services.publisher import accounts, backoff
from services.publisher.channels import Channel, email, http
from services.publisher.channels.bluesky import Bluesky
from services.publisher.channels.discord import Discord
from services.publisher.channels.email import Email
from services.publisher.channels.mastodon import Mastodon
from services.publisher.channels.slack import Slack
from services.publisher.channels.teams import Teams
from services.publisher.channels.telegram import Telegram
from services.publisher.channels.webhook import Webhook
from services.publisher.delivery import Delivery, Job
from services.publisher.gate import Passed, Verdict, judge
from services.publisher.mail_store import MailStore
from services.publisher.paces import Paces
from services.publisher.store import SCHEMA, Store
from services.publisher.takeback import TakeBack
from tests import networks
from tests.builders import AT, a_hold, a_post
from tests.faulty import FAULTS, Fault, Faulty, served
from tests.mailbox import Mailbox, a_mailbox
from tests.networks import TOKEN, Network

DOCS = Path(__file__).parents[2] / "docs" / "channels.md"
UNKNOWN: frozenset[Fault] = frozenset(
    {"500 before", "500 behind", "reset before", "reset behind", "answer lost"}
)
SECRET = "a-secret-of-the-tests"


@dataclass
class Open:
    """A gate whose fence has just passed."""

    holds: OpenHolds = field(default_factory=OpenHolds)
    patience: int = 1_000_000

    def judge(self, post: Post) -> Verdict:
        now_s = Clock().monotonic_s()
        self.patience -= 1
        if self.patience == 0:
            self.holds.apply(a_hold("{}"))
        passed = Passed(number=1, begun_s=now_s, begun_at=Clock().now())
        return judge(post, open_holds=self.holds, passed=passed, now_s=now_s, now=AT, lease_s=5)

    async def changed(self) -> None:
        raise AssertionError("nothing here waits")


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
        return sum(words in post["text"] for post in self.net.posts.values())


def an_account(kind: Any, **values: Any) -> Any:
    return kind.model_validate(values)


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


HTTP: dict[str, tuple[Callable[[Network], Any], Callable[[str], Channel]]] = {
    "mastodon": (networks.mastodon, of_mastodon),
    "bluesky": (networks.bluesky, of_bluesky),
    "discord (bot)": (networks.discord, of_discord),
    "discord (webhook)": (networks.discord, of_discord_webhook),
    "webhook": (networks.webhook, of_webhook),
    "slack": (networks.slack, of_slack),
    "telegram": (networks.telegram, of_telegram),
    "teams": (networks.teams, of_teams),
}
CHANNELS = (*HTTP, "email")
NO_TOKEN = ("discord (webhook)", "webhook", "email", "teams")


@asynccontextmanager
async def a_case(name: str, system: System) -> AsyncIterator[Case]:
    net = Network()
    if name == "email":
        engine = database.new_engine(system.database, schema=SCHEMA)
        async with a_mailbox() as box:
            smtp = {"host": "127.0.0.1", "port": box.port, "security": "none"}
            values = {"sender": "status@northlink.example", "to": ["ada@example.org"]}
            account = an_account(accounts.EmailAccount, channel="email", smtp=smtp, **values)
            yield Case(Email(account, MailStore(engine), Clock(), base_url=""), net, box=box)
        await engine.dispose()
        return
    app, made = HTTP[name]
    async with served(app(net)) as faulty:
        channel = made(faulty.address)
        yield Case(channel, net, faulty)
        await channel.aclose()


@dataclass
class Desk:
    """A delivery with one account, of a name of its own, and what it said."""

    store: Store
    account: str
    channel: Channel
    gate: Open = field(default_factory=Open)
    said: list[Outcome] = field(default_factory=list)

    async def emit(self, outcome: Outcome, _: str) -> None:
        self.said.append(outcome)

    def delivery(self) -> Delivery:
        channels = {self.account: self.channel}
        shared: dict[str, Any] = {"clock": Clock(), "emit": self.emit}
        paces = Paces(self.store.engine, clock=Clock())
        take_back = TakeBack(self.store, channels, {}, paces, **shared)
        return Delivery(self.store, channels, self.gate, paces, take_back, **shared)

    def new_post(self, kind: Kind, **values: Any) -> Post:
        name = uuid.uuid4().hex
        known: dict[str, Any] = {
            "post_id": name,
            "text": f"A post of the tests, {name}.",
            "account": self.account,
            "due_at": Clock().now(),
            "latest_at": Clock().now() + timedelta(hours=1),
        }
        return a_post(kind=kind, **(known | values))

    async def send(self, post: Post) -> Outcome:
        await self.delivery().settle(Job(post, 1, lambda: None))
        return self.said[-1]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "FIRST_RETRY_S", 0.02)
    monkeypatch.setattr(backoff, "LAST_RETRY_S", 0.05)
    monkeypatch.setattr(http, "TIMEOUT_S", 0.5)
    monkeypatch.setattr(email, "TIMEOUT_S", 0.5)


@pytest.fixture(autouse=True)
def no_secret_is_told(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """Whatever goes wrong: no token, password or secret address stands in a log."""
    yield
    said = "".join(capfd.readouterr())
    assert TOKEN not in said
    assert SECRET not in said


@pytest.fixture
async def store(system: System) -> AsyncIterator[Store]:
    engine = database.new_engine(system.database, schema=SCHEMA)
    yield Store(engine, publisher="faults")
    await engine.dispose()


SEEN: dict[tuple[str, Fault, Kind], str] = {}


@pytest.mark.parametrize("kind", ["offer", "update"])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", CHANNELS)
async def test_a_fault_ends_as_the_channels_capabilities_say(
    name: str, fault: Fault, kind: Kind, store: Store, system: System
) -> None:
    if (fault == "token expired" and name in NO_TOKEN) or (name, fault) == ("email", "500 behind"):
        SEEN[name, fault, kind] = "–"
        return
    async with a_case(name, system) as case:
        desk = Desk(store, f"a{uuid.uuid4().hex[:12]}", case.channel)
        await desk.send(desk.new_post("update"))  # A session is there, a connection is open.
        case.breaks(fault)
        post = desk.new_post(kind)
        outcome = await desk.send(post)
        count = case.standing(post.text)
    can = case.channel.capabilities
    is_known = can.idempotent_s > 0 and name != "email"
    was_found = can.reads_back != "none" and fault in ("500 behind", "reset behind", "answer lost")
    if is_known or was_found or fault not in UNKNOWN or (name, fault) == ("email", "500 before"):
        assert (outcome.result, count) == ("published", 1)
    elif kind == "offer":
        assert outcome.result == "uncertain"
        assert count <= 1, "an offer errs to zero times"
    else:
        assert outcome.result == "published"
        assert count in (1, 2), "an update errs to twice"
    entry = await store.find(post.post_id)
    told = f"{outcome!r} {entry!r} {case.channel!r} {desk.delivery().paces.circuits!r}"
    assert TOKEN not in told
    assert SECRET not in told
    times = {0: "not there", 1: "once", 2: "twice"}[count]
    SEEN[name, fault, kind] = f"{outcome.result}, {times}"


@pytest.mark.parametrize("name", [n for n in CHANNELS if n not in ("email", "teams")])
async def test_what_is_taken_back_is_gone(name: str, store: Store, system: System) -> None:
    async with a_case(name, system) as case:
        desk = Desk(store, f"a{uuid.uuid4().hex[:12]}", case.channel)
        post = desk.new_post("offer", labels={"line": uuid.uuid4().hex})
        await desk.send(post)
        matchers = f'{{line="{post.labels["line"]}"}}'
        hold = a_hold(matchers, take_back_s=3600, opened_at=Clock().now())
        await desk.delivery().take_back.take_back(hold)
        assert (desk.said[-1].result, case.standing(post.text)) == ("retracted", 0)
        if name == "mastodon":
            assert desk.said[-1].reason == "2 replies, 5 reshares of others were there"


@pytest.mark.parametrize("name", ["mastodon", "bluesky", "discord (bot)"])
async def test_a_long_update_is_a_thread_that_survives_a_lost_answer(
    name: str, store: Store, system: System
) -> None:
    words = " ".join(f"Sentence {n} of what there is to say about it." for n in range(60))
    async with a_case(name, system) as case:
        desk = Desk(store, f"a{uuid.uuid4().hex[:12]}", case.channel)
        case.breaks("reset behind")
        outcome = await desk.send(desk.new_post("update", text=words))
        said = [post["text"].rsplit(" (", 1)[0] for post in case.net.posts.values()]
        assert " ".join(said) == words
        assert outcome.publication is not None
        assert len(outcome.publication.split()) == len(said)
        offer = await desk.send(desk.new_post("offer", text=words))
        assert offer.result == "failed"
        assert "of at most" in offer.reason


@pytest.mark.parametrize("name", ["mastodon", "bluesky", "discord (bot)"])
async def test_a_reserve_of_the_rate_is_kept_for_updates_by_every_publisher(
    name: str, store: Store, system: System
) -> None:
    """The server's clock is an hour wrong, and what it says of the reset is read by its own clock."""
    async with a_case(name, system) as case:
        case.net.left, case.net.skew = 15, timedelta(hours=1)
        account = f"a{uuid.uuid4().hex[:12]}"
        first, other = (Desk(store, account, case.channel) for _ in range(2))
        await first.send(first.new_post("update"))
        rates = "SELECT remaining, reset_at FROM rates WHERE account = :account"
        async with store.engine.connect() as connection:
            row = (await connection.execute(text(rates), {"account": account})).one()
        assert row.remaining == 15
        assert timedelta(0) < row.reset_at - Clock().now() < timedelta(seconds=70)
        other.gate.patience = 3
        offer = other.new_post("offer")
        assert (await other.send(offer)).result == "held", "it waited, until a hold came"
        assert case.standing(offer.text) == 0
        assert (await other.send(other.new_post("update"))).result == "published"


async def test_a_session_that_has_expired_is_refreshed_and_not_begun_again(
    store: Store, system: System
) -> None:
    async with a_case("bluesky", system) as case:
        desk = Desk(store, f"a{uuid.uuid4().hex[:12]}", case.channel)
        await desk.send(desk.new_post("offer"))
        case.net.expired = {f"{TOKEN}-1"}
        assert (await desk.send(desk.new_post("offer"))).result == "published"
        assert case.net.logins == 2


async def test_mail_goes_to_each_by_itself_and_a_hold_ends_it_in_the_middle(
    store: Store, system: System
) -> None:
    people = [f"p{n}@example.org" for n in range(5)]
    async with a_mailbox() as box:
        box.unknown = {people[1]}
        smtp = {"host": "127.0.0.1", "port": box.port, "security": "none"}
        values = {"sender": "status@northlink.example", "to": people, "smtp": smtp}
        account = an_account(accounts.EmailAccount, channel="email", **values)
        channel = Email(account, MailStore(store.engine), Clock(), base_url="")
        desk = Desk(store, f"a{uuid.uuid4().hex[:12]}", channel)
        outcome = await desk.send(desk.new_post("update"))
        assert outcome.result == "published"
        assert outcome.reason == "4 of 5 mails were sent, 1 refused"
        assert [address for address, _ in box.mails] == [people[0], *people[2:]]
        assert all(mail["To"] == address for address, mail in box.mails)
        box.mails.clear()
        hold_behind_the_second(channel, desk)
        outcome = await desk.send(desk.new_post("offer"))
        assert outcome.result == "uncertain"
        assert outcome.reason.startswith("2 mails were sent: ")
        assert len(box.mails) == 2


def hold_behind_the_second(channel: Email, desk: Desk) -> None:
    """Let the clearance run out behind two mails, as a hold comes."""

    class Late(Clock):
        looks = 0

        def monotonic_s(self) -> float:
            self.looks += 1
            if self.looks <= 3:  # One of them is refused.
                return super().monotonic_s()
            desk.gate.holds.apply(a_hold("{}"))
            return super().monotonic_s() + 60

    channel.clock = Late()


def table() -> Sequence[str]:
    faults = [fault for fault in FAULTS if fault != "none"]
    yield_ = ["| channel | kind | " + " | ".join(faults) + " |", "|" + " --- |" * (len(faults) + 2)]
    for name in CHANNELS:
        for kind in ("offer", "update"):
            cells = [SEEN[name, fault, kind] for fault in faults]
            yield_.append(f"| {name} | {kind} | " + " | ".join(cells) + " |")
    return yield_


def test_the_table_in_the_docs_is_what_was_seen() -> None:
    if len(SEEN) < len(CHANNELS) * len(FAULTS) * 2:
        pytest.skip("only a part of the table was seen")
    begin, end = "<!-- seen -->\n", "<!-- /seen -->"
    whole = DOCS.read_text()
    seen = begin + "\n".join(table()) + "\n" + end
    fresh = whole[: whole.index(begin)] + seen + whole[whole.index(end) + len(end) :]
    if os.environ.get("WRITE_DOCS"):
        DOCS.write_text(fresh)
    assert DOCS.read_text() == fresh, "WRITE_DOCS=1 writes it"
