"""HTTP for people who want mail: they ask, confirm by a link, and leave by one click.

Whether an address is known is told to nobody. A link only shows a button, since mail filters follow
links; what it does, it does by POST. `POST /unsubscribe/…` is RFC 8058's one click.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from datetime import timedelta
from email.message import EmailMessage
from email.utils import format_datetime, formataddr
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Depends, Form
from fastapi.responses import HTMLResponse

from services.kit.rates import PerMinute
from services.kit.telemetry import Clock
from services.kit.web import Problem, public
from services.publisher import rendering
from services.publisher.accounts import EmailAccount
from services.publisher.channels import NotSent
from services.publisher.channels.email import send_one
from services.publisher.mail_store import MailStore, Subscriber
from services.publisher.site import Site

ADDRESS: Final = re.compile(r"[^\s@<>,;:\"()\[\]]{1,64}@(?:[\w-]{1,63}\.)+[\w-]{2,63}")
FORGET_AFTER: Final = timedelta(days=1)
ASK_AGAIN_AFTER: Final = timedelta(minutes=10)
PER_MINUTE: Final = 60  # Of all visitors together: nobody sends mail through us.
NO_STORE: Final = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
log = structlog.get_logger()


def new_router(
    site: Site, mail: MailStore, account: EmailAccount | None, clock: Clock
) -> APIRouter:
    """Return the routes of subscribers."""
    router = APIRouter(dependencies=[Depends(public)], include_in_schema=False)
    desk = _Desk(site, mail, account, clock)

    @router.post("/subscribe")
    async def subscribe(
        address: Annotated[str, Form(max_length=254)],
        language: Annotated[str, Form(max_length=35)] = "en",
        component: Annotated[str, Form(max_length=63)] = "",
    ) -> HTMLResponse:
        return await desk.subscribe(address.strip(), language, component)

    @router.get("/confirm/{secret}")
    async def ask_to_confirm(secret: str) -> HTMLResponse:
        return await desk.show(secret, "confirm", action=f"/confirm/{secret}")

    @router.post("/confirm/{secret}")
    async def confirm(secret: str) -> HTMLResponse:
        known = await mail.find(secret)
        if known is not None:
            await mail.confirm(secret)
        return desk.say(known, "confirmed")

    @router.get("/unsubscribe/{secret}")
    async def ask_to_leave(secret: str) -> HTMLResponse:
        return await desk.show(secret, "unsubscribe", action=f"/unsubscribe/{secret}")

    @router.post("/unsubscribe/{secret}")
    async def leave(secret: str) -> HTMLResponse:
        known = await mail.find(secret)
        await mail.remove(secret)
        return desk.say(known, "unsubscribed")

    return router


class _Desk:
    """What the routes share."""

    def __init__(
        self, site: Site, mail: MailStore, account: EmailAccount | None, clock: Clock
    ) -> None:
        self.site, self.mail, self.account, self.clock = site, mail, account, clock
        self.rates = PerMinute(PER_MINUTE, now_s=clock.monotonic_s)
        self.tasks: set[asyncio.Task[None]] = set()

    async def subscribe(self, address: str, language: str, component: str) -> HTMLResponse:
        if self.account is None:
            raise Problem(
                404, "no e-mail account has `subscribers: true`, or there is no public URL"
            )
        languages = self.site.settings.languages
        language = language if language in languages else languages[0]
        matchers = self.site.settings.matchers_of(component)
        if matchers is None:
            raise Problem(422, f"component: the page has no {component}")
        if not ADDRESS.fullmatch(address):
            return self._page(language, "wrong", status=422)
        now = self.clock.now()
        if self.rates.take().is_over:
            raise Problem(429, "too many ask at once: try again in a minute")
        await self.mail.forget_unconfirmed(now - FORGET_AFTER)
        asked = Subscriber(
            subscriber_id=secrets.token_urlsafe(24),
            address=address,
            language=language[:2],
            matchers=matchers,
            state="asked",
            asked_at=now,
        )
        known = await self.mail.ask(asked, again_before=now - ASK_AGAIN_AFTER)
        if known.state == "asked" and known.asked_at == now:
            task = asyncio.create_task(self._send(self.account, known, language))
            self.tasks.add(task)  # The answer takes as long whether a mail is sent or not.
            task.add_done_callback(self.tasks.discard)
        return self._page(language, "asked")

    async def _send(self, account: EmailAccount, known: Subscriber, language: str) -> None:
        words = rendering.words_of(self.site.words, language)
        message = EmailMessage()
        message["From"] = formataddr((account.sender_name, account.sender))
        message["To"] = known.address
        message["Subject"] = words["confirm_subject"]
        message["Date"] = format_datetime(self.clock.now())
        message["Auto-Submitted"] = "auto-generated"
        link = f"{self.site.url}/confirm/{known.subscriber_id}"
        message.set_content(f"{words['confirm_text']}\n\n{link}\n\n{words['confirm_foot']}\n")
        try:
            await send_one(account.smtp, message)
        except NotSent as error:
            log.warning("a confirmation was not sent", why=str(error))

    async def show(self, secret: str, text: str, *, action: str) -> HTMLResponse:
        known = await self.mail.find(secret)
        return self.say(known, text, action=action)

    def say(self, known: Subscriber | None, text: str, *, action: str = "") -> HTMLResponse:
        if known is None:
            return self._page(self.site.settings.languages[0], "unknown", status=404)
        return self._page(known.language, text, action=action)

    def _page(
        self, language: str, text: str, *, action: str = "", status: int = 200
    ) -> HTMLResponse:
        settings = self.site.settings
        title = settings.titles.get(language, settings.title)
        body = rendering.message(self.site.words, language, title=title, text=text, action=action)
        return HTMLResponse(body, status, headers=NO_STORE)
