"""Asking a source: what its answers name gets none of its secrets, and leads to no private address."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from services.detector.fetch import REDIRECTS, Fetcher, is_ours
from services.detector.ingest.reading import CannotRead
from services.detector.sources import Poll
from services.kit.outbound import Forbidden

SECRET = {"X-Api-Key": "tell-nobody"}


class Site:
    """A server that answers, or redirects to where it is told, and keeps what it was asked with."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.to = ""
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked.append({name.lower(): value for name, value in self.headers.items()})
                self.send_response(302 if site.to else 200)
                if site.to:
                    self.send_header("location", site.to)
                self.send_header("content-length", "0" if site.to else "2")
                self.end_headers()
                if not site.to:
                    self.wfile.write(b"{}")

            do_POST = do_GET  # noqa: N815  # The name the library calls.

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/feed"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def sites() -> Iterator[tuple[Site, Site]]:
    made = (Site(), Site())
    yield made
    for site in made:
        site.close()


async def ask(poll: Poll, url: str = "", content: bytes | None = None) -> bytes | None:
    fetcher = Fetcher(poll)
    try:
        found = await fetcher.fetch(url or poll.url, validators={}, content=content)
        return found.body
    finally:
        await fetcher.aclose()


def poll_of(site: Site, **values: Any) -> Poll:
    return Poll.model_validate({"url": site.url, "headers": SECRET} | values)


async def test_the_configured_address_gets_the_secret_and_may_be_private(
    sites: tuple[Site, Site],
) -> None:
    assert await ask(poll_of(sites[0])) == b"{}"
    assert sites[0].asked[0]["x-api-key"] == SECRET["X-Api-Key"]


@pytest.mark.parametrize("how", ["link", "redirect"])
async def test_what_an_answer_names_is_not_asked_at_private_addresses(
    sites: tuple[Site, Site], how: str
) -> None:
    ours, theirs = sites
    ours.to = theirs.url if how == "redirect" else ""
    with pytest.raises(Forbidden, match="not public"):
        await ask(poll_of(ours), theirs.url if how == "link" else "")
    assert theirs.asked == []


@pytest.mark.parametrize("how", ["link", "redirect"])
async def test_where_it_may_lead_it_gets_no_secret(sites: tuple[Site, Site], how: str) -> None:
    ours, theirs = sites
    ours.to = theirs.url if how == "redirect" else ""
    poll = poll_of(ours, hosts=["127.0.0.1"])
    assert await ask(poll, theirs.url if how == "link" else "") == b"{}"
    assert "x-api-key" not in theirs.asked[0]


async def test_a_redirect_carries_no_body_on(sites: tuple[Site, Site]) -> None:
    ours, theirs = sites
    ours.to = theirs.url
    with pytest.raises(httpx.HTTPStatusError):
        await ask(poll_of(ours, hosts=["127.0.0.1"]), content=b"<Subscribe/>")
    assert theirs.asked == []


async def test_a_redirect_in_circles_ends(sites: tuple[Site, Site]) -> None:
    ours, _ = sites
    ours.to = ours.url
    with pytest.raises(CannotRead, match="redirects"):
        await ask(poll_of(ours))
    assert len(ours.asked) == REDIRECTS + 1


@pytest.mark.parametrize("link", ["http://[::1", "http://a:b:c/", "http://\u2000/"])
async def test_a_link_that_is_no_address_is_an_answer_that_cannot_be_read(
    sites: tuple[Site, Site], link: str
) -> None:
    """It ended the detector, and again when it was started anew."""
    with pytest.raises(CannotRead, match="no address"):
        await ask(poll_of(sites[0]), link)


@pytest.mark.parametrize("to", ["http://[::1", "//[x", "http://a:b:c/"])
async def test_a_redirect_to_what_is_no_address_fails_as_any_bad_answer(
    sites: tuple[Site, Site], to: str
) -> None:
    sites[0].to = to
    with pytest.raises(httpx.HTTPError):
        await ask(poll_of(sites[0]))


@pytest.mark.parametrize("link", ["https://.../feed", "https://feeds.example:99999/"])
async def test_a_link_that_leads_nowhere_fails_as_any_that_does_not_answer(
    sites: tuple[Site, Site], link: str
) -> None:
    with pytest.raises(httpx.ConnectError):
        await ask(poll_of(sites[0]), link)


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        ("http://feeds.example/other", True),
        ("https://feeds.example/feed", True),
        ("http://feeds.example:8080/feed", False),
        ("https://feeds.example:8443/feed", False),
        ("http://feeds.example.evil.example/feed", False),
        ("http://user@feeds.example/feed", True),
        ("http://feeds.example@evil.example/feed", False),
    ],
)
def test_whose_address_it_is(url: str, *, ours: bool) -> None:
    assert is_ours(httpx.URL(url), httpx.URL("http://feeds.example/feed")) is ours


def test_https_is_not_left_for_http() -> None:
    assert not is_ours(httpx.URL("http://a.example/"), httpx.URL("https://a.example/"))
