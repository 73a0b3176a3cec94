"""A server for the sources that are asked: a status page, an index of CAP, a producer of SIRI."""

from __future__ import annotations

import hashlib
import json
import threading
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.doors import SAMPLES

AN_INDEX = b'<feed xmlns="http://www.w3.org/2005/Atom"><id>i</id>%s</feed>'


class Handler(BaseHTTPRequestHandler):
    page: Page

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["content-length"]))
        if b"SubscriptionRequest" in asked:
            self.page.subscribed.append(asked.decode())
            self.answer((SAMPLES / "siri-sx" / "subscribed.xml").read_bytes())
            return
        self.answer(self.page.siri if b"SituationExchangeRequest" in asked else b"")

    def answer(self, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(200 if body else 404)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def dated(self, body: bytes) -> None:
        """Answer as a server that knows dates and no tags; each body has its own."""
        stamp = zlib.crc32(body) % 3600
        date = f"Sat, 17 Oct 2026 18:{stamp // 60:02}:{stamp % 60:02} GMT"
        if self.headers.get("if-modified-since") != date:
            self.answer(body, ("last-modified", date))
            return
        self.page.not_modified += 1
        self.send_response(304)
        self.end_headers()

    def do_GET(self) -> None:
        if self.path.startswith("/cap/"):
            self.dated(self.page.cap.get(self.path.removeprefix("/cap/"), b""))
            return
        self.page.asked += 1
        body = json.dumps(self.page.summary).encode()
        tag = f'"{hashlib.sha256(body).hexdigest()}"'
        known = self.headers.get("if-none-match") == tag
        self.page.unchanged += known and self.page.status == 200
        self.send_response(304 if known and self.page.status == 200 else self.page.status)
        self.send_header("etag", tag)
        self.send_header("content-length", "0" if known else str(len(body)))
        self.end_headers()
        if not known:
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return


class Page:
    """Somebody else's status page: it serves what it is told to, and counts how it was asked."""

    def __init__(self) -> None:
        self.summary: dict[str, Any] = {"components": [], "incidents": []}
        self.status, self.asked, self.unchanged, self.not_modified = 200, 0, 0, 0
        self.subscribed: list[str] = []
        self.cap: dict[str, bytes] = {"index.atom": AN_INDEX % b""}
        self.siri = (SAMPLES / "siri-sx" / "delivery.xml").read_bytes()  # Of a day that has passed.
        bound = type("Bound", (Handler,), {"page": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), bound)
        self.url = self.at("/summary.json")
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def at(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server.server_port}{path}"

    def shows(self, *names: str) -> None:
        one = {"status": "investigating", "impact": "major", "updated_at": "2026-10-17T18:00:00Z"}
        incidents = [one | {"id": name, "name": name, "components": []} for name in names]
        self.summary = {"components": [], "incidents": incidents}
