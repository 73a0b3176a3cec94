"""The public site: everything is rendered when it has changed, and answered from memory or by a cache.

It stands before the service's own routes: a visitor costs a look into a table. What it holds may be
written into a folder as well, for a web server or a content network to serve without us.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import os
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
import yaml
from starlette.types import ASGIApp, Receive, Scope, Send

from schemas.incidents import Incident
from services.kit.telemetry import Clock
from services.publisher import rendering
from services.publisher.formats import cap, feeds, gtfs_realtime, statuspage
from services.publisher.page import Page, PageSettings, Said, gather

AT_MOST_EVERY_S: Final = 0.3
AFTER_S: Final = 0.1  # What changes the page makes updates as well, and these go first.
SHARE: Final = 10  # Of a core, one part for the page: the gate is in the same process.
AT_LEAST_EVERY_S: Final = 10.0  # What other publishers put on the page shows this late.
CACHE: Final = b"public, max-age=5, stale-while-revalidate=30, stale-if-error=86400"
TYPES: Final = {
    ".atom": b"application/atom+xml; charset=utf-8", ".rss": b"application/rss+xml; charset=utf-8",
    ".ics": b"text/calendar; charset=utf-8", ".json": b"application/json",
    ".pb": b"application/x-protobuf", ".xml": b"application/cap+xml; charset=utf-8", ".js": b"text/javascript; charset=utf-8",
}  # fmt: skip
HTML: Final = b"text/html; charset=utf-8"
POLICY: Final = (
    b"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-%s'; connect-src 'self';"
    b" worker-src 'self';"
    b" form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
WORKER: Final = Path(__file__).with_name("templates") / "sw.js"
WORDS: Final = Path(__file__).with_name("templates") / "words.yaml"
log = structlog.get_logger()
Posts = Callable[[], Awaitable[Iterable[Said]]]


@dataclass(frozen=True, slots=True)
class Rendered:
    """One document as it is answered: plain, compressed, or not modified."""

    tag: bytes
    plain: bytes
    small: bytes
    headers: list[tuple[bytes, bytes]]


class Site:
    """All public documents, and when they were made."""

    def __init__(
        self,
        settings: PageSettings,
        *,
        url: str,
        clock: Clock,
        incidents: Callable[[], Iterable[Incident]],
        known: Callable[[], Awaitable[None]],
        posts: Posts,
        ways: rendering.Ways,
        folder: Path | None = None,
    ) -> None:
        self.settings, self.url, self.clock, self.folder = settings, url, clock, folder
        self.words: rendering.Words = yaml.safe_load(WORDS.read_text())
        self._incidents, self._known, self._posts, self._ways = incidents, known, posts, ways
        self._changed = asyncio.Event()
        self.documents: dict[str, Rendered] = {}
        self._wrong: dict[str, str] = {}  # What stays as it was, and why.

    def changed(self) -> None:
        """Say that something may look different now."""
        self._changed.set()

    def not_ready(self) -> dict[str, str]:
        """Say so while there is no page yet."""
        return {} if self.documents else {"page": "the public page is not rendered yet"}

    def remarks(self) -> dict[str, str]:
        """Say what of the page stays as it was, and why."""
        return self._wrong

    async def keep_fresh(self) -> None:
        """Render what has changed, for ever; not before the incidents are known: all would seem well."""
        while True:
            self._changed.clear()
            begun_s = self.clock.monotonic_s()
            try:
                if not self.documents:
                    await self._known()
                await self.render()
            except Exception as error:  # The database's: the page stays as it is.
                log.error("page not rendered", error=str(error))
                self._wrong = {"page": f"stays as it was: {type(error).__name__}: {error}"}
            took_s = self.clock.monotonic_s() - begun_s
            await asyncio.sleep(max(AT_MOST_EVERY_S, SHARE * took_s))
            try:
                async with asyncio.timeout(AT_LEAST_EVERY_S):
                    await self._changed.wait()
                    await asyncio.sleep(AFTER_S)
            except TimeoutError:
                continue

    async def render(self) -> None:
        """Render all of it, beside the loop that others wait for."""
        page = gather(
            self.settings, self._incidents(), await self._posts(),
            url=self.url, at=self.clock.now(),
        )  # fmt: skip
        self.documents = await asyncio.to_thread(self._render, page)

    def _render(self, page: Page) -> dict[str, Rendered]:
        found = rendering.documents(page, self.words, self._ways)
        if self._ways.push_key:
            found["/sw.js"] = WORKER.read_bytes()
        kept: dict[str, Rendered] = {}
        wrong: dict[str, str] = {}
        for form in (statuspage, gtfs_realtime, cap, feeds):
            try:
                found |= form.documents(page)
            except Exception as error:  # What one cannot say keeps no other back: its own stay.
                name, why = form.__name__.rpartition(".")[2], f"{type(error).__name__}: {error}"
                log.error("not rendered", format=name, why=why)
                wrong[f"page as {name}"] = f"stays as it was: {why}"
                kept = self.documents
        self._wrong = wrong
        if self.folder is not None:
            self._write(self.folder, found)
        return kept | {path: self._as_answer(path, body) for path, body in found.items()}

    def _as_answer(self, path: str, body: bytes) -> Rendered:
        known = self.documents.get(path)
        if known is not None and known.plain == body:
            return known
        tag = b'W/"' + hashlib.sha256(body).hexdigest()[:20].encode() + b'"'
        kind = TYPES.get(Path(path).suffix, HTML)
        headers = [(b"content-type", kind), (b"cache-control", CACHE), (b"etag", tag),
                   (b"vary", b"accept-encoding"), (b"access-control-allow-origin", b"*")]  # fmt: skip
        if kind == HTML:
            headers += _safety(body)
        return Rendered(tag, body, gzip.compress(body, 6, mtime=0), headers)

    def _write(self, folder: Path, found: dict[str, bytes]) -> None:
        """Put each document into the folder in one step: whoever reads sees the old or the new."""
        for path, body in found.items():
            target = folder / (path.lstrip("/") + ("index.html" if path.endswith("/") else ""))
            known = self.documents.get(path)
            if known is not None and known.plain == body and target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as out:
                out.write(body)
            Path(out.name).chmod(0o644)
            os.replace(out.name, target)  # noqa: PTH105  # The same, and it says what it does.


def _safety(body: bytes) -> list[tuple[bytes, bytes]]:
    """Return headers that let the page run its one script and no other."""
    script = body.partition(b"<script>")[2].partition(b"</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script).digest())
    return [
        (b"content-security-policy", POLICY.replace(b"%s", digest)),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
    ]


class SiteLayer:
    """Answers what the site has; everything else goes on to the service's routes."""

    def __init__(self, app: ASGIApp, *, site: Site) -> None:
        self.app, self.site = app, site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
            found = self.site.documents.get(scope["path"])
            if found is not None:
                await _answer(found, scope, send)
                return
        await self.app(scope, receive, send)


async def _answer(found: Rendered, scope: Scope, send: Send) -> None:
    asked: dict[bytes, bytes] = dict(scope["headers"])
    is_known = found.tag in asked.get(b"if-none-match", b"")
    is_small = b"gzip" in asked.get(b"accept-encoding", b"")
    body = b"" if is_known else found.small if is_small else found.plain
    headers: list[Any] = list(found.headers)
    if not is_known:
        headers.append((b"content-length", str(len(body)).encode()))
        if is_small:
            headers.append((b"content-encoding", b"gzip"))
    status = 304 if is_known else 200
    await send({"type": "http.response.start", "status": status, "headers": headers})
    body = b"" if scope["method"] == "HEAD" else body
    await send({"type": "http.response.body", "body": body})
