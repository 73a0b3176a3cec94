"""Mastodon, and servers that speak its API, through Mastodon.py (synchronous: it runs in threads).

Mastodon keeps an Idempotency-Key for an hour and writes it after the create, so that a second try
within that hour is recognised, though not airtight against a crash of the server between the two.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import requests
from mastodon import Mastodon as Client
from mastodon import errors

from services.kit.telemetry import Clock
from services.publisher.accounts import MastodonAccount
from services.publisher.channels import NotSent, Publication, Refused, Unknown
from services.publisher.gate import Cleared
from services.publisher.ledger import Capabilities

TIMEOUT_S = 10
THREADS = 2  # One for offers and one for updates: neither waits for the other.
IDEMPOTENT_S = 3_600
MASTODON_CHARS = 500
T = TypeVar("T")


class Mastodon:
    """One account on one server."""

    capabilities = Capabilities(idempotent_s=IDEMPOTENT_S, can_delete=True)

    def __init__(self, account: MastodonAccount, clock: Clock) -> None:
        self.account, self.clock = account, clock
        self.threads = ThreadPoolExecutor(THREADS, thread_name_prefix="mastodon")
        self.client = Client(
            access_token=account.token.get_secret_value(),
            api_base_url=account.url,
            request_timeout=TIMEOUT_S,
            ratelimit_method="throw",
            version_check_mode="none",
        )

    async def publish(self, cleared: Cleared, *, key: str) -> Publication:
        if len(cleared.post.text) > MASTODON_CHARS:
            raise Refused(f"the text has more than {MASTODON_CHARS} characters")

        def create() -> Publication:
            cleared.check(self.clock.monotonic_s())  # In the thread: it may have waited for one.
            made = self.client.status_post(
                cleared.post.text,
                idempotency_key=key,
                visibility=self.account.visibility,
                language=(cleared.post.language or "")[:2] or None,
            )
            return Publication(str(made["id"]), made.get("url"))

        return await self._call(create)

    async def retract(self, publication: Publication) -> None:
        def remove() -> None:
            try:
                self.client.status_delete(publication.id)
            except errors.MastodonNotFoundError:
                return  # Gone already: that is what was wanted.

        await self._call(remove)

    async def aclose(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)

    async def _call(self, act: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self.threads, act)
        except errors.MastodonRatelimitError as error:
            raise NotSent(f"rate limit: {error}", retry_after_s=30) from error
        except (errors.MastodonServerError, errors.MastodonReadTimeout) as error:
            raise Unknown(str(error)) from error
        except errors.MastodonNetworkError as error:
            if isinstance(error.__cause__ or error.__context__, requests.ConnectTimeout):
                raise NotSent(f"no connection: {error}") from error
            if "Connection refused" in str(error) or "NewConnectionError" in str(error):
                raise NotSent(f"no connection: {error}") from error
            raise Unknown(str(error)) from error
        except (errors.MastodonAPIError, errors.MastodonIllegalArgumentError) as error:
            raise Refused(str(error)) from error
