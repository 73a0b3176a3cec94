"""Every channel under every fault, through the real delivery and ledger: what became of the post.

`docs/channels.md` is the table that this run makes; WRITE_DOCS=1 writes it.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from ops.embedded.system import System
from schemas.posts import Kind
from services.kit import database
from services.kit.telemetry import Clock
from services.publisher import accounts, backoff, doubts
from services.publisher.channels import email, http
from services.publisher.channels.email import Email
from services.publisher.mail_store import MailStore
from services.publisher.store import SCHEMA, Store
from tests import networks
from tests.builders import a_hold
from tests.channels import CHANNELS, SECRET, a_case, an_account, of_mastodon
from tests.desk import Desk
from tests.faulty import FAULTS, Fault, served
from tests.mailbox import a_mailbox
from tests.networks import TOKEN, Network

DOCS = Path(__file__).parents[2] / "docs" / "channels.md"
UNKNOWN: frozenset[Fault] = frozenset(
    {"500 before", "500 behind", "reset before", "reset behind", "answer lost", "nonsense"}
)
BEHIND: frozenset[Fault] = frozenset({"500 behind", "reset behind", "answer lost", "nonsense"})


CANNOT_DELETE = ("email", "teams", "apprise", "statuspage")
READS_NO_ANSWER = ("webhook", "teams", "apprise")  # But whether it is one of success.
NO_TOKEN = ("discord (webhook)", "webhook", "email", "teams", "apprise")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Retry at once; wait shortly where an answer is lost, and only there: a machine may be slow."""
    monkeypatch.setattr(backoff, "FIRST_RETRY_S", 0.02)
    monkeypatch.setattr(backoff, "LAST_RETRY_S", 0.05)
    monkeypatch.setattr(doubts, "LANDS_S", 0.05)
    given = getattr(request.node, "callspec", None)
    if given is not None and given.params.get("fault") == "answer lost":
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
    if (fault == "token expired" and name in NO_TOKEN) or (
        name == "email" and fault in ("500 behind", "nonsense")
    ):
        SEEN[name, fault, kind] = "–"
        return
    async with a_case(name, system) as case:
        desk = Desk(store, f"a{uuid.uuid4().hex[:12]}", case.channel)
        await desk.send(desk.new_post("update"))  # A session is there, a connection is open.
        case.breaks(fault)
        post = desk.new_post(kind)
        outcome = await desk.send(post)
        count = case.standing(post.text)
    if (name, kind) == ("statuspage", "offer"):
        assert (outcome.result, count) == ("failed", 0)
        SEEN[name, fault, kind] = "refused"
        return
    can = case.channel.capabilities
    is_known = (can.idempotent_s > 0 or can.refuses_duplicates) and name != "email"
    was_found = can.reads_back != "none" and fault in BEHIND
    says_why = (fault not in UNKNOWN and (name, fault) != ("apprise", "429")) or (
        fault == "nonsense" and name in READS_NO_ANSWER
    )
    if is_known or was_found or says_why or (name, fault) == ("email", "500 before"):
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


@pytest.mark.parametrize("name", [n for n in CHANNELS if n not in CANNOT_DELETE])
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


@pytest.mark.parametrize("fault", ["reset before", "reset behind"])
@pytest.mark.parametrize("name", ["mastodon (GoToSocial)", "discord (bot)", "slack", "statuspage"])
async def test_words_that_stood_there_before_are_not_taken_for_ours(
    name: str, fault: Fault, store: Store, system: System
) -> None:
    """An offer of every week has the same words, and so has an update that says that nothing is new."""
    kind: Kind = "update" if name == "statuspage" else "offer"
    async with a_case(name, system) as case:
        case.channel.capabilities = replace(case.channel.capabilities, idempotent_s=0)
        desk = Desk(store, f"a{uuid.uuid4().hex[:12]}", case.channel)
        before = desk.new_post(kind, incident_id="an-incident")
        first = await desk.send(before)
        case.net.grows_old(timedelta(minutes=1))
        assert case.faulty is not None
        case.faulty.hits = b"PATCH" if name == "statuspage" else b"POST"
        case.breaks(fault)
        outcome = await desk.send(desk.new_post(kind, text=before.text, incident_id="an-incident"))
        times = case.standing(before.text)
    if fault == "reset before" and kind == "offer":
        assert (outcome.result, times) == ("uncertain", 1), "only what stood before is there"
    else:
        assert (outcome.result, times) == ("published", 2)
        assert name == "statuspage" or outcome.publication != first.publication


@pytest.mark.parametrize("software", ["gotosocial", "pixelfed", "snac"])
async def test_a_server_that_keeps_no_keys_is_sent_none(store: Store, software: str) -> None:
    """Pixelfed refuses the second of them, whatever became of the first."""
    net = Network()
    async with served(networks.mastodon(net, software)) as faulty:
        channel = of_mastodon(faulty.address)
        desk = Desk(store, f"a{uuid.uuid4().hex[:12]}", channel)
        faulty.fault = "429"
        outcome = await desk.send(desk.new_post("offer"))
        assert (outcome.result, set(net.keys)) == ("published", {""})
        assert channel.capabilities.idempotent_s == 0
        await channel.aclose()


async def test_a_server_that_does_not_say_which_it_is_is_asked_again(store: Store) -> None:
    """Until then a key is sent, and not relied on."""
    net = Network()
    async with served(networks.mastodon(net)) as faulty:
        channel = of_mastodon(faulty.address)
        desk = Desk(store, f"a{uuid.uuid4().hex[:12]}", channel)
        faulty.fault, faulty.hits = "500 before", b"GET"
        first = desk.new_post("offer")
        assert (await desk.send(first)).result == "published"
        assert set(net.keys) == {first.post_id}
        assert channel.capabilities.idempotent_s == 0
        assert (await desk.send(desk.new_post("offer"))).result == "published"
        assert channel.capabilities.idempotent_s > 0
        await channel.aclose()


@pytest.mark.parametrize("first", ["none", "500 before"])
async def test_a_send_that_another_left_is_not_searched_for_where_keys_are_kept(
    store: Store, first: Fault
) -> None:
    """Whoever takes it over asks the server which it is, again if it did not say; the token may only write."""
    net = Network(may_read=False)
    async with served(networks.mastodon(net)) as faulty:
        channel = of_mastodon(faulty.address)
        desk = Desk(store, f"a{uuid.uuid4().hex[:12]}", channel)
        post = desk.new_post("offer")
        other = Store(store.engine, publisher="another")
        assert await other.record_intent(post, attempt=1, fence=None, at=Clock().now())
        faulty.fault, faulty.hits = first, b"GET"
        assert (await desk.send(post)).result == "published"
        assert set(net.keys) == {post.post_id}
        await channel.aclose()


async def test_a_duplicate_that_is_refused_is_evidence_only_behind_a_try_of_ours(
    store: Store, system: System
) -> None:
    """Else it is another post of the same words, and ours is not there."""
    async with a_case("x", system) as case:
        desk = Desk(store, f"a{uuid.uuid4().hex[:12]}", case.channel)
        first = desk.new_post("offer")
        await desk.send(first)
        same = await desk.send(desk.new_post("offer", text=first.text))
        assert same.result == "failed"
        assert "duplicate content" in same.reason
        case.breaks("reset behind")
        lost = await desk.send(desk.new_post("offer"))
        assert (lost.result, lost.publication) == ("published", None)
        assert "under an id that it did not tell" in lost.reason


async def test_a_session_that_has_expired_is_refreshed_and_not_begun_again(
    store: Store, system: System
) -> None:
    async with a_case("bluesky", system) as case:
        desk = Desk(store, f"a{uuid.uuid4().hex[:12]}", case.channel)
        await desk.send(desk.new_post("offer"))
        case.net.expired = {f"{TOKEN}-1"}
        assert (await desk.send(desk.new_post("offer"))).result == "published"
        assert case.net.logins == 2


async def test_a_status_page_has_one_incident_for_all_that_is_said_of_it(
    store: Store, system: System
) -> None:
    async with a_case("statuspage", system) as case:
        desk = Desk(store, f"a{uuid.uuid4().hex[:12]}", case.channel)
        about: dict[str, Any] = {"incident_id": uuid.uuid4().hex, "labels": {"line": "coast"}}
        opened = desk.new_post("update", moment="opened", severity="critical", **about)
        await desk.send(opened)
        (incident,) = case.net.posts.values()
        assert incident["status"] == "investigating"
        assert incident["components"] == {"c0ast": "major_outage"}
        written = desk.new_post("update", moment="written", severity="critical", **about)
        await desk.send(written)
        assert incident["components"] == {"c0ast": "major_outage"}
        assert incident["status"] == "investigating"
        over = desk.new_post("update", moment="resolved", severity="critical", **about)
        outcome = await desk.send(over)
        assert incident["status"] == "resolved"
        assert incident["components"] == {"c0ast": "operational"}
        assert outcome.url == incident["shortlink"]
        said = [update["body"] for update in incident["incident_updates"]]
        assert said == [over.text, written.text, opened.text]


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
        hold_behind_the_second(desk)
        outcome = await desk.send(desk.new_post("offer"))
        assert outcome.result == "uncertain"
        assert ": 2 mails were sent: " in outcome.reason
        assert len(box.mails) == 2


def hold_behind_the_second(desk: Desk) -> None:
    """Let the clearance run out behind two mails, as a hold comes."""

    class Late(Clock):
        looks = 0

        def monotonic_s(self) -> float:
            self.looks += 1
            if self.looks <= 2:
                return super().monotonic_s()
            desk.gate.holds.apply(a_hold("{}"))
            return super().monotonic_s() + 60

    desk.clock = Late()


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
