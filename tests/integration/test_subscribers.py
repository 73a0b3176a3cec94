"""People who want mail: asking, confirming, getting an update, leaving by one click."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from ops.embedded.system import System
from services.kit import database
from services.kit.telemetry import Clock
from services.publisher import subscribe
from services.publisher.accounts import EmailAccount
from services.publisher.channels.email import Email
from services.publisher.mail_store import MailStore
from services.publisher.page import PageSettings
from services.publisher.rendering import Ways
from services.publisher.site import Site
from services.publisher.store import SCHEMA
from tests.builders import a_clearance, a_post
from tests.mailbox import Mailbox, a_mailbox

URL = "https://status.northlink.example"


@dataclass
class Desk:
    public: httpx.AsyncClient
    box: Mailbox
    mail: MailStore
    account: EmailAccount

    async def ask(self, address: str, language: str = "en") -> httpx.Response:
        return await self.public.post("/subscribe", data={"address": address, "language": language})

    async def mail_to(self, address: str, *, count: int = 1) -> list[EmailMessage]:
        async with asyncio.timeout(10):
            while len(found := [m for to, m in self.box.mails if to == address]) < count:
                self.box.came.clear()
                await self.box.came.wait()
        return found

    async def update(self, language: str = "en", **labels: str) -> None:
        channel = Email(self.account, self.mail, Clock(), base_url=URL)
        post = a_post(
            post_id=uuid.uuid4().hex, kind="update", text="Still working on it.",
            language=language, labels=labels,
        )  # fmt: skip
        await channel.publish(a_clearance(post), key=post.post_id)


@pytest.fixture
async def desk(system: System) -> AsyncIterator[Desk]:
    engine = database.new_engine(system.database, schema=SCHEMA)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM subscribers"))
    mail = MailStore(engine)
    async with a_mailbox() as box:
        smtp = {"host": "127.0.0.1", "port": box.port, "security": "none"}
        values: dict[str, Any] = {"channel": "email", "sender": "status@northlink.example"}
        account = EmailAccount.model_validate(values | {"smtp": smtp, "subscribers": True})
        app = FastAPI()
        settings = PageSettings(title="Northlink status", languages=("en", "fr"))

        async def posts() -> list[Any]:
            return []

        async def known() -> None:
            return

        site = Site(
            settings, url=URL, clock=Clock(), incidents=list, known=known, posts=posts,
            ways=Ways(mail=True),
        )  # fmt: skip
        app.include_router(subscribe.new_router(site, mail, account, Clock()))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as public:
            yield Desk(public, box, mail, account)
    await engine.dispose()


def link_in(message: EmailMessage, word: str) -> str:
    found = re.search(rf"{URL}(/{word}/\S+)", message.get_content())
    assert found is not None
    return found.group(1)


async def test_nobody_gets_updates_who_has_not_confirmed_and_who_has_leaves_by_one_click(
    desk: Desk,
) -> None:
    address = "ada@example.org"
    assert "a message with a link is on its way" in (await desk.ask(address)).text
    (asked,) = await desk.mail_to(address)
    assert asked["Subject"] == "Confirm your subscription"
    await desk.update()
    assert len(await desk.mail_to(address)) == 1, "no update: nothing is confirmed"
    link = link_in(asked, "confirm")
    shown = await desk.public.get(link)
    assert "<button>Confirm that you want updates</button>" in shown.text
    await desk.update()
    assert len(await desk.mail_to(address)) == 1, (
        "a mail filter that follows links confirms nothing"
    )
    await desk.public.post(link)
    await desk.update()
    *_, update = await desk.mail_to(address, count=2)
    assert update["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    leave = update["List-Unsubscribe"].strip("<>").removeprefix(URL)
    click = await desk.public.post(leave, data={"List-Unsubscribe": "One-Click"})
    assert "your address is deleted" in click.text
    assert await desk.mail.find_address(address) is None
    await desk.update()
    assert len(await desk.mail_to(address, count=2)) == 2
    assert (await desk.public.post(leave)).status_code == 404


async def test_whether_an_address_is_known_is_told_to_nobody(desk: Desk) -> None:
    first, again = await desk.ask("ada@example.org"), await desk.ask("ada@example.org")
    assert (first.status_code, first.text) == (again.status_code, again.text)
    assert len(await desk.mail_to("ada@example.org")) == 1, "nor is anybody sent two mails"


@pytest.mark.parametrize(
    "wrong", ["ada", "a@b", "a b@example.org", "a@example.org\nBcc: x@y.example"]
)
async def test_what_is_no_address_is_told(desk: Desk, wrong: str) -> None:
    answer = await desk.ask(wrong)
    assert answer.status_code == 422
    assert "This is no e-mail address." in answer.text


async def test_who_asked_in_french_is_answered_and_told_in_french(desk: Desk) -> None:
    address = "zoe@example.org"
    await desk.ask(address, "fr")
    (asked,) = await desk.mail_to(address)
    assert asked["Subject"] == "Confirmez votre abonnement"
    await desk.public.post(link_in(asked, "confirm"))
    await desk.update("en")
    await desk.update("fr")
    assert len(await desk.mail_to(address, count=2)) == 2


async def test_a_stranger_changes_nothing_of_who_has_confirmed(desk: Desk) -> None:
    address = "zoe@example.org"
    await desk.ask(address, "fr")
    (asked,) = await desk.mail_to(address)
    await desk.public.post(link_in(asked, "confirm"))
    before = await desk.mail.find_address(address)
    await desk.ask(address, "en")
    assert await desk.mail.find_address(address) == before


async def test_a_link_that_was_made_up_says_so(desk: Desk) -> None:
    answer = await desk.public.get("/confirm/nobody")
    assert answer.status_code == 404
    assert "nothing is known of it" in answer.text
