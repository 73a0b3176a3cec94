"""A mail server of the tests: real SMTP, by aiosmtpd, with faults to switch on."""

from __future__ import annotations

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP

SLOW_S = 0.2
LOST_S = 2.0


class Mailbox:
    """What was taken, newest last; `fault` happens to the next mail, once."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, EmailMessage]] = []
        self.fault, self.port = "none", 0
        self.came = asyncio.Event()
        self.unknown: set[str] = set()  # Addresses that do not exist.

    async def handle_RCPT(self, _: Any, __: Any, envelope: Any, address: str, ___: Any) -> str:  # noqa: N802
        if address in self.unknown:
            return "550 5.1.1 no such user"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, _: Any, envelope: Any) -> str:  # noqa: N802
        fault, self.fault = self.fault, "none"
        if fault == "slow":
            await asyncio.sleep(SLOW_S)
        if fault == "429":
            return "451 4.7.1 too many, try again later"
        if fault == "500 before":
            return "421 4.3.0 not now"
        if fault == "reset before":
            server.transport.abort()
            return "421"
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.mails += [(address, message) for address in envelope.rcpt_tos]
        self.came.set()
        if fault == "reset behind":
            server.transport.abort()
        if fault == "answer lost":
            await asyncio.sleep(LOST_S)
        return "250 OK"


@asynccontextmanager
async def a_mailbox() -> AsyncIterator[Mailbox]:
    """Run a mail server on a port of its own."""
    box, loop = Mailbox(), asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(box, loop=loop), "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    yield box
    server.close()
