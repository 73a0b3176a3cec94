"""The sandbox network: Mastodon's API for posting, a timeline page, faults, and its own record.

It knows nothing of Interlock. What it writes down, with the time of this machine's monotonic clock,
is evidence: it is what arrived.

- `POST /api/v1/statuses`, `DELETE /api/v1/statuses/{id}` and a little around them, as Mastodon has
  them; a bearer token is the account's handle.
- `POST /hooks/{name}` takes any webhook, and writes it down.
- `GET /` is the timeline, `GET /sandbox/record` the record, `PUT /sandbox/faults` makes it slow
  (`slow_s`), fail before the create (`fail_next`), or lose the answer after it (`lose_next`).
"""

from __future__ import annotations

import asyncio
import html
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, Field

LOST_AFTER_S = 60.0
PAGE_POSTS = 100


class Faults(BaseModel):
    """What the sandbox shall do wrong, until told otherwise."""

    slow_s: float = Field(default=0, ge=0, le=120)
    fail_next: int = Field(default=0, ge=0)
    lose_next: int = Field(default=0, ge=0)


class Seen(BaseModel):
    """One thing that arrived. Times: UTC, and seconds of CLOCK_MONOTONIC."""

    what: Literal["published", "again", "deleted", "hook"]
    at: datetime
    at_s: float
    account: str
    id: str
    key: str = ""
    text: str = ""


class Sandbox:
    """The network's state: posts, idempotency keys, faults, and the record."""

    def __init__(self, record: Path | None) -> None:
        self.posts: dict[str, dict[str, Any]] = {}
        self.gone: dict[
            str, dict[str, Any]
        ] = {}  # For the page alone: whoever watches sees them go.
        self.keys: dict[tuple[str, str], str] = {}
        self.faults = Faults()
        self.record: list[Seen] = []
        self._file = record.open("a") if record else None

    def note(self, what: Any, *, account: str, post_id: str, key: str = "", text: str = "") -> None:
        seen = Seen(
            what=what,
            at=datetime.now(UTC),
            at_s=time.monotonic(),
            account=account,
            id=post_id,
            key=key,
            text=text,
        )
        self.record.append(seen)
        if self._file:
            self._file.write(seen.model_dump_json() + "\n")
            self._file.flush()

    async def create(
        self, account: str, text: str, language: str | None, key: str
    ) -> dict[str, Any]:
        await asyncio.sleep(self.faults.slow_s)
        if self.faults.fail_next:
            self.faults.fail_next -= 1
            raise HTTPException(503, "the sandbox was told to fail")
        known = self.keys.get((account, key)) if key else None
        if known and known in self.posts:
            self.note("again", account=account, post_id=known, key=key)
            return self.posts[known]
        post_id = str(time.time_ns())
        self.posts[post_id] = _status(post_id, account, text, language)
        if key:
            self.keys[(account, key)] = post_id
        self.note("published", account=account, post_id=post_id, key=key, text=text)
        if self.faults.lose_next:
            self.faults.lose_next -= 1
            await asyncio.sleep(LOST_AFTER_S)
        return self.posts[post_id]


def _status(post_id: str, account: str, text: str, language: str | None) -> dict[str, Any]:
    return {
        "id": post_id,
        "uri": f"sandbox:{post_id}",
        "url": f"/#{post_id}",
        "created_at": datetime.now(UTC).isoformat(),
        "content": f"<p>{html.escape(text)}</p>",
        "text": text,
        "language": language,
        "visibility": "public",
        "sensitive": False,
        "spoiler_text": "",
        "media_attachments": [],
        "mentions": [],
        "tags": [],
        "emojis": [],
        "reblogs_count": 0,
        "favourites_count": 0,
        "replies_count": 0,
        "account": {"id": account, "username": account, "acct": account, "display_name": account},
    }


def new_app(record: Path | None = None) -> FastAPI:
    """Return the sandbox network as an application."""
    app, sandbox = FastAPI(title="Sandbox network"), Sandbox(record)

    @app.post("/api/v1/statuses")
    async def create(request: Request) -> dict[str, Any]:
        form: Any = await (
            request.json() if "json" in request.headers["content-type"] else request.form()
        )
        key = request.headers.get("idempotency-key", "")
        return await sandbox.create(_account(request), form["status"], form.get("language"), key)

    @app.delete("/api/v1/statuses/{post_id}")
    async def remove(post_id: str, request: Request) -> dict[str, Any]:
        account = _account(request)
        post = sandbox.posts.pop(post_id, None)
        if post is None:
            raise HTTPException(404, "Record not found")
        sandbox.gone[post_id] = post
        sandbox.note("deleted", account=account, post_id=post_id)
        return post

    @app.get("/api/v1/timelines/public")
    async def timeline() -> list[dict[str, Any]]:
        return list(reversed(sandbox.posts.values()))[:PAGE_POSTS]

    @app.post("/hooks/{name}")
    async def hook(name: str, request: Request) -> dict[str, str]:
        await asyncio.sleep(sandbox.faults.slow_s)
        text = (await request.body()).decode(errors="replace")
        message_id = request.headers.get("webhook-id", "")
        sandbox.note("hook", account=name, post_id=message_id, key=message_id, text=text)
        return {"status": "ok"}

    _add_descriptions(app)
    _add_controls(app, sandbox)
    return app


def _add_descriptions(app: FastAPI) -> None:
    """Say what it is, as Mastodon and NodeInfo have it: a client learns from there that keys are kept."""

    @app.get("/api/v1/instance")
    async def instance() -> dict[str, Any]:
        return {"uri": "sandbox", "title": "Sandbox network", "version": "4.3.0", "urls": {}}

    @app.get("/.well-known/nodeinfo")
    async def nodeinfo() -> dict[str, Any]:
        return {"links": [{"href": "/nodeinfo/2.0"}]}

    @app.get("/nodeinfo/2.0")
    async def about() -> dict[str, Any]:
        return {"software": {"name": "mastodon", "version": "4.3.0"}}


def _add_controls(app: FastAPI, sandbox: Sandbox) -> None:
    @app.get("/sandbox/record")
    async def read_record() -> list[Seen]:
        return sandbox.record

    @app.put("/sandbox/faults")
    async def set_faults(faults: Faults) -> Faults:
        sandbox.faults = faults
        return faults

    @app.get("/readyz")
    async def readyz() -> dict[str, Any]:
        return {"status": "ready", "missing": {}}

    @app.get("/", response_class=HTMLResponse)
    async def page() -> str:
        newest = sorted({**sandbox.posts, **sandbox.gone}.items(), reverse=True)[:PAGE_POSTS]
        posts = "".join(
            f'<article id="{i}" class="{"gone" if i in sandbox.gone else ""}">'
            f"<b>@{html.escape(p['account']['acct'])}</b> <time>{p['created_at'][11:19]}</time>"
            f"{p['content']}</article>"
            for i, p in newest
        )
        return _PAGE.replace("POSTS", posts or "<p>Nobody has posted yet.</p>")


def _account(request: Request) -> str:
    _, _, token = request.headers.get("authorization", "").partition(" ")
    if not token:
        raise HTTPException(401, "The access token is invalid")
    return token


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="2">
<meta name="viewport" content="width=device-width"><title>Sandbox network</title><style>
body{font:16px/1.5 system-ui;max-width:40rem;margin:1rem auto;padding:0 1rem;background:#f4f4f8;color:#222}
article{background:#fff;border-radius:.5rem;padding:.75rem 1rem;margin:.75rem 0;box-shadow:0 1px 2px #0002}
article p{margin:.25rem 0}time{opacity:.6;font-size:.85rem;margin-left:.5rem}
.gone{opacity:.55;text-decoration:line-through}.gone::after{content:" deleted by its author"}</style>
<h1>Sandbox network</h1><p>Newest first. What was deleted is struck out here, and gone from the timeline.</p>POSTS</html>"""


def main() -> None:
    """Serve on INTERLOCK_PORT; the record goes to SANDBOX_RECORD."""
    import uvicorn

    record = os.environ.get("SANDBOX_RECORD")
    port = int(os.environ.get("INTERLOCK_PORT", "0"))
    app = new_app(Path(record) if record else None)
    host = os.environ.get("SANDBOX_HOST", "127.0.0.1")
    uvicorn.run(app, host=host, port=port, access_log=False, loop="uvloop")


if __name__ == "__main__":
    main()
