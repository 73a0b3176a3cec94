"""The long tail, by Apprise (github.com/caronc/apprise): some hundred services, each by its address.

Apprise says whether it worked and not why: what failed may have arrived, so that it stays unknown. It
knows no key, reads nothing back, deletes nothing. It is synchronous and runs in a thread of its own; the
clearance is looked at there, right before it begins. The address holds the secrets, so Apprise's own log
is off.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import apprise

from services.kit.telemetry import Clock
from services.publisher.accounts import AppriseAccount
from services.publisher.channels import NotSent, Publication, Refused, Retracted, Unknown
from services.publisher.clearance import Clearance
from services.publisher.ledger import Capabilities

THREADS: Final = 5  # One for offers and four for updates: none waits for another.
logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)


class Apprise:
    """One address."""

    capabilities = Capabilities(idempotent_s=0, can_delete=False)

    def __init__(self, account: AppriseAccount, _: Clock) -> None:
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="apprise")
        self.target = apprise.Apprise()
        self.is_known = self.target.add(account.address.get_secret_value())

    async def publish(self, clearance: Clearance, *, key: str) -> Publication:
        if not self.is_known:
            raise NotSent("Apprise does not know the kind of the account's address")

        def notify() -> bool:
            clearance.check()  # In the thread: it may have waited for one.
            return bool(self.target.notify(body=clearance.post.text))

        if not await asyncio.get_running_loop().run_in_executor(self.threads, notify):
            raise Unknown("Apprise says that it did not work, and not why")
        return Publication(key)

    async def retract(self, publication: Publication) -> Retracted:
        raise Refused("Apprise deletes nothing")

    async def aclose(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)
