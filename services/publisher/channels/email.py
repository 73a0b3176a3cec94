"""E-mail by SMTP (RFC 5321): one message a recipient, each written down before and behind its send.

- `List-Unsubscribe` and `List-Unsubscribe-Post` (RFC 2369, RFC 8058) for subscribers; `Auto-Submitted`
  (RFC 3834), so that nobody's holiday answers; a `Message-ID` made from post and recipient.
- 4xx: later, for two minutes; use a relay, which takes all at once. 5xx to the recipient: that one is refused, the others go on. A connection that breaks
  while the text is sent leaves that one unknown: an update is sent again, an offer is not.
- An offer's clearance is looked at before each message, right before its DATA, however long the server took to greet
  and to take the envelope: a hold in the middle of a list ends it there.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import format_datetime, formataddr
from typing import Any, Final, Protocol

import aiosmtplib

from schemas.channels import MediaLimit
from schemas.posts import Post
from services.kit.telemetry import Clock
from services.publisher.accounts import EmailAccount, Smtp
from services.publisher.channels import NotSent, Partly, Publication, Refused, Retracted, Uncertain
from services.publisher.channels.media import Attachment, Attachments, as_it_is
from services.publisher.clearance import Clearance
from services.publisher.gate import TooLate
from services.publisher.ledger import Capabilities
from services.publisher.mail_store import Delivered, Subscriber
from services.publisher.page import concerns
from services.publisher.texts import first_line

TIMEOUT_S: Final = 20.0
LATER: Final = (400, 500)
_MEDIA: Final = MediaLimit(
    most=4, bytes=5 * 1024 * 1024, alt=900
)  # A header's line: RFC 5322, 2.1.1.
PATIENCE_S: Final = (
    120.0  # A server that puts one off so long keeps nobody else from the next update.
)


class People(Protocol):
    """Who subscribed, and what became of each mail."""

    async def confirmed(self) -> list[Subscriber]: ...

    async def delivered(self, post_id: str) -> dict[str, Delivered]: ...

    async def note(
        self, post_id: str, recipient: str, state: Delivered, *, detail: str = ""
    ) -> None: ...

    async def forget_begun(self, post_id: str, recipient: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """One address, and how it gets rid of us."""

    address: str
    unsubscribe_url: str = ""


@dataclass(slots=True)
class _Round:
    """What one try achieved."""

    sent: int = 0
    refused: int = 0
    unknown: int = 0
    later: list[str] = field(default_factory=list)


class Email:
    """One sender."""

    capabilities = Capabilities(idempotent_s=math.inf, can_delete=False, media=_MEDIA)

    def __init__(
        self, account: EmailAccount, people: People, clock: Clock, *, base_url: str
    ) -> None:
        self.account, self.people, self.clock, self.base_url = account, people, clock, base_url
        self.attachments = Attachments(_MEDIA, allowed=account.picture_hosts)

    async def publish(self, clearance: Clearance, *, key: str) -> Publication:
        post, done = clearance.post, _Round()
        known = await self.people.delivered(key)
        recipients = await self._recipients(post)
        left = [one for one in recipients if self._is_left(post, known.get(one.address), done)]
        attachments: list[Attachment] = await self.attachments.of(post, as_it_is) if left else []
        if left:
            async with _connected(_ServerOf(self.account.smtp, clearance)) as client:
                for one in left:
                    if not await self._send(client, clearance, attachments, one, done):
                        break
        return self._result(key, len(recipients), done)

    def _is_left(self, post: Post, state: Delivered | None, done: _Round) -> bool:
        if state == "begun" and post.kind == "offer":
            done.unknown += 1
        done.sent += state == "sent"
        done.refused += state == "refused"
        return state is None or (state == "begun" and post.kind == "update")

    async def _send(
        self,
        client: aiosmtplib.SMTP,
        clearance: Clearance,
        attachments: list[Attachment],
        one: Recipient,
        done: _Round,
    ) -> bool:
        """Send one mail; False where the connection is of no more use, or the clearance ran out."""
        key = clearance.post.post_id
        message = self._message(clearance.post, key, one)
        for attachment in attachments:
            message.add_attachment(
                attachment.read(), maintype="image",
                subtype=attachment.media.type.partition("/")[2], filename=attachment.name,
                headers=[f"Content-Description: {attachment.media.alt}"],
            )  # fmt: skip
        await self.people.note(key, one.address, "begun")
        try:
            await client.send_message(message)
        except TooLate as error:
            await self.people.forget_begun(key, one.address)
            if not done.sent:
                raise
            raise Partly(f"{done.sent} mails were sent") from error
        except (aiosmtplib.SMTPRecipientsRefused, aiosmtplib.SMTPResponseException) as error:
            await self._on_refusal(error, clearance.post, key, one, done)
            return True
        except (aiosmtplib.SMTPException, OSError) as error:
            done.later.append(f"{one.address}: {str(error) or type(error).__name__}")
            done.unknown += clearance.post.kind == "offer"
            return False
        await self.people.note(key, one.address, "sent")
        done.sent += 1
        return True

    async def _on_refusal(
        self,
        error: aiosmtplib.SMTPRecipientsRefused | aiosmtplib.SMTPResponseException,
        post: Post,
        key: str,
        one: Recipient,
        done: _Round,
    ) -> None:
        first = (
            error.recipients[0] if isinstance(error, aiosmtplib.SMTPRecipientsRefused) else error
        )
        late_s = (self.clock.now() - post.due_at).total_seconds()
        of_us = isinstance(error, aiosmtplib.SMTPSenderRefused)  # A person's matter, not theirs.
        is_later = LATER[0] <= first.code < LATER[1] and late_s < PATIENCE_S
        if of_us or is_later:
            await self.people.forget_begun(key, one.address)
            done.later.append(f"{one.address}: {first.code} {first.message}")
        else:
            await self.people.note(
                key, one.address, "refused", detail=f"{first.code} {first.message}"
            )
            done.refused += 1

    def _result(self, key: str, count: int, done: _Round) -> Publication:
        if done.later:
            why = f"{done.sent} of {count} mails were sent; {done.later[-1]}"
            if done.sent or done.unknown:
                raise Partly(why, because=NotSent(why))
            raise NotSent(why)
        if count and done.refused == count:
            raise Refused("every recipient was refused")
        if done.unknown and not done.sent:
            raise Uncertain(f"{done.unknown} mails may have been sent, and no other was")
        said = f"{done.sent} of {count} mails were sent"
        for what, number in (("refused", done.refused), ("unknown", done.unknown)):
            said += f", {number} {what}" if number else ""
        return Publication(key, detail="" if done.sent == count and count else said)

    async def _recipients(self, post: Post) -> list[Recipient]:
        found = [Recipient(address=address) for address in self.account.to]
        if self.account.subscribers and post.kind == "update":  # What they asked for.
            for one in await self.people.confirmed():
                if post.language and one.language != post.language[:2]:
                    continue
                if concerns(one.matchers, post.labels):
                    url = (
                        f"{self.base_url}/unsubscribe/{one.subscriber_id}" if self.base_url else ""
                    )
                    found.append(Recipient(address=one.address, unsubscribe_url=url))
        return list({one.address: one for one in found}.values())

    def _message(self, post: Post, key: str, one: Recipient) -> EmailMessage:
        message = EmailMessage()
        message["From"] = formataddr((self.account.sender_name, self.account.sender))
        message["To"] = one.address
        message["Subject"] = first_line(post.text)
        message["Date"] = format_datetime(self.clock.now())
        name = hashlib.sha256(f"{key}\n{one.address}".encode()).hexdigest()[:32]
        message["Message-ID"] = f"<{name}@{self.account.sender.rsplit('@', 1)[1]}>"
        message["Auto-Submitted"] = "auto-generated"
        if post.language:
            message["Content-Language"] = post.language
        foot = ""
        if one.unsubscribe_url:
            message["List-Unsubscribe"] = f"<{one.unsubscribe_url}>"
            message["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
            foot = f"\n\n-- \n{one.unsubscribe_url}\n"
        message.set_content(post.text + foot)
        return message

    async def retract(self, publication: Publication) -> Retracted:
        raise Refused("a mail cannot be taken back")

    async def aclose(self) -> None:
        await self.attachments.aclose()


class _Server(aiosmtplib.SMTP):
    """The account's mail server."""

    def __init__(self, smtp: Smtp) -> None:
        super().__init__(
            hostname=smtp.host,
            port=smtp.port,
            use_tls=smtp.security == "tls",
            start_tls=smtp.security == "starttls",
            username=smtp.user,
            password=smtp.password.get_secret_value() if smtp.password else None,
            timeout=TIMEOUT_S,
        )


class _ServerOf(_Server):
    """The same for one post: its clearance is looked at behind the envelope, before the command that takes the mail."""

    def __init__(self, smtp: Smtp, clearance: Clearance) -> None:
        super().__init__(smtp)
        self.clearance = clearance

    async def data(self, message: str | bytes, /, **values: Any) -> aiosmtplib.SMTPResponse:
        await self.clearance.confirm()
        return await super().data(message, **values)


class _connected:  # noqa: N801  # Read as a verb.
    """A connection to the mail server, or NotSent."""

    def __init__(self, client: aiosmtplib.SMTP) -> None:
        self.client = client

    async def __aenter__(self) -> aiosmtplib.SMTP:
        try:
            await self.client.connect()
        except (aiosmtplib.SMTPException, OSError) as error:
            raise NotSent(f"no mail server: {str(error) or type(error).__name__}") from error
        return self.client

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.client.quit()
        except (aiosmtplib.SMTPException, OSError):
            self.client.close()


async def send_one(smtp: Smtp, message: EmailMessage) -> None:
    """Send one message that belongs to no post, such as a confirmation; raises NotSent."""
    async with _connected(_Server(smtp)) as client:
        try:
            await client.send_message(message)
        except (aiosmtplib.SMTPException, OSError) as error:
            raise NotSent(str(error)) from error
