"""Asking a source. The address that was configured is trusted; nothing that its answers name is.

| where it leads | headers of the source | where it may be |
| --- | --- | --- |
| the configured origin, also the same host behind https | sent | anywhere |
| any other, by a link of an index or by a redirect | never | at public addresses, or a host of `hosts` |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import httpx

from services.detector.ingest.reading import CannotRead
from services.detector.sources import Poll
from services.kit import outbound

BODY_BYTES: Final = 16 * 1_048_576
TIMEOUT_S: Final = 20.0
REDIRECTS: Final = 5
AGENT: Final = {"user-agent": "Interlock (incident-aware publishing)"}
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a source answered; no body: it is as it was."""

    body: bytes | None
    headers: httpx.Headers


class Fetcher:
    """The clients by which one source is asked."""

    def __init__(self, poll: Poll) -> None:
        self.poll, self._origin = poll, httpx.URL(poll.url)
        self._ours = httpx.AsyncClient(timeout=TIMEOUT_S, headers=AGENT)
        self._others = outbound.new_client(allowed=frozenset(poll.hosts))

    async def aclose(self) -> None:
        await self._ours.aclose()
        await self._others.aclose()

    async def fetch(
        self, url: str, *, validators: dict[str, str], content: bytes | None
    ) -> Fetched:
        """Ask; raises httpx.HTTPError, and CannotRead where an answer is too long or leads in circles."""
        try:
            at = httpx.URL(url)
            for _ in range(REDIRECTS + 1):
                found = await self._ask(at, validators=validators, content=content)
                if isinstance(found, Fetched):
                    return found
                at = found
        except httpx.InvalidURL as error:
            raise CannotRead("", f"{url}: it is no address: {error}") from error
        raise CannotRead("", f"{url}: more than {REDIRECTS} redirects")

    async def _ask(
        self, url: httpx.URL, *, validators: dict[str, str], content: bytes | None
    ) -> Fetched | httpx.URL:
        ours = is_ours(url, self._origin)
        client, headers = self._others, AGENT | validators
        if ours:
            client = self._ours
            secret = {name: value.get_secret_value() for name, value in self.poll.headers.items()}
            headers |= secret
        method = "GET"
        if content is not None:  # It is for whom it was written for: no redirect carries it on.
            method, headers = "POST", {"content-type": "application/xml"} | headers
        async with client.stream(method, url, headers=headers, content=content) as answer:
            if answer.status_code == httpx.codes.NOT_MODIFIED:
                return Fetched(None, answer.headers)
            if answer.has_redirect_location and content is None:
                return url.join(answer.headers["location"])
            answer.raise_for_status()
            body = b""
            async for chunk in answer.aiter_bytes():
                body += chunk
                if len(body) > BODY_BYTES:
                    raise CannotRead("", f"{url}: more than {BODY_BYTES} bytes")
        return Fetched(body, answer.headers)


def is_ours(url: httpx.URL, origin: httpx.URL) -> bool:
    """Say whether an address is of the configured origin, or the same host, now behind https."""
    if url.host != origin.host:
        return False
    if (url.scheme, _port(url)) == (origin.scheme, _port(origin)):
        return True
    upgraded = url.scheme == "https" and origin.scheme == "http"
    return upgraded and _port(url) == DEFAULT_PORTS["https"]


def _port(url: httpx.URL) -> int | None:
    return url.port or DEFAULT_PORTS.get(url.scheme)
