"""Stand-ins for networks, with the semantics that their documentation states.

Each is a small application in memory: what it was asked to create stands in `posts`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse

WINDOW_S = 60
DID = "did:plc:northlink"
POSTS = f"at://{DID}/app.bsky.feed.post/"
TOKEN = "the-secret-token-of-the-tests"
BROKEN = b"nobody can play this"


@dataclass
class Network:
    """What stands on a network, and how it tells of its rate; its clock may be wrong."""

    posts: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    media: dict[str, dict[str, Any]] = field(default_factory=dict)
    looks: int = 0  # How often a picture is not ready yet.
    may_read: bool = True  # Whether the token's scopes allow it.
    left: int = 100
    skew: timedelta = timedelta(0)
    expired: set[str] = field(default_factory=set)
    logins: int = 0
    number: int = 1_000

    def now(self) -> datetime:
        return datetime.now(UTC) + self.skew

    def grows_old(self, age: timedelta) -> None:
        """Let what stands there be of an earlier time."""
        for post in self.posts.values():
            for dated in (post, *post.get("incident_updates", ())):
                for name in {"created_at", "timestamp"} & dated.keys():
                    dated[name] = (datetime.fromisoformat(dated[name]) - age).isoformat()

    def new_id(self) -> str:
        self.number += 1
        return str(self.number)

    def keep(self, content: bytes, **values: Any) -> str:
        name = self.new_id()
        self.media[name] = {"hex": content.hex()} | values
        return name

    def headers(self, prefix: str, *, is_iso: bool = False) -> dict[str, str]:
        reset_at = self.now() + timedelta(seconds=WINDOW_S)
        return {
            f"{prefix}-limit": "100",
            f"{prefix}-remaining": str(self.left),
            f"{prefix}-reset": reset_at.isoformat() if is_iso else str(reset_at.timestamp()),
            "date": format_datetime(self.now(), usegmt=True),
        }

    def must_know(self, request: Request, token: str = TOKEN) -> None:
        given = request.headers.get("authorization", "").split(" ")[-1]
        if given != token or given in self.expired:
            raise HTTPException(401, "The access token is invalid")

    def must_read(self, request: Request) -> None:
        self.must_know(request)
        if not self.may_read:
            raise HTTPException(403, "This action is outside the authorized scopes")


def mastodon(net: Network, software: str = "mastodon") -> FastAPI:
    """Return docs.joinmastodon.org's statuses API."""
    app = FastAPI()

    @app.post("/api/v1/statuses")
    async def create(request: Request, response: Response) -> Any:
        net.must_know(request)
        form: Any = await request.form()
        response.headers.update(net.headers("x-ratelimit", is_iso=True))
        key = request.headers.get("idempotency-key", "")
        if (known := net.posts.get(net.keys.get(key, ""))) and software == "mastodon":
            return known
        if len(form["status"]) > 500 and "http" not in form["status"]:
            raise HTTPException(422, "Validation failed: Text character limit of 500 exceeded")
        made = {
            "id": net.new_id(), "content": f"<p>{form['status']}</p>", "text": form["status"],
            "in_reply_to_id": form.get("in_reply_to_id"), "replies_count": 2, "reblogs_count": 5,
            "created_at": net.now().isoformat(),
        }  # fmt: skip
        made["url"] = f"https://social.example/@northlink/{made['id']}"
        made["media"] = [net.media[name] for name in form.getlist("media_ids[]")]
        net.posts[made["id"]] = made
        net.keys[key] = made["id"]
        return made

    @app.get("/api/v1/accounts/verify_credentials")
    async def who(request: Request) -> Any:
        net.must_read(request)
        return {"id": "7"}

    @app.get("/api/v1/accounts/7/statuses")
    async def statuses(request: Request, response: Response) -> Any:
        net.must_know(request)
        response.headers.update(net.headers("x-ratelimit", is_iso=True))
        return list(net.posts.values())[::-1][:40]

    @app.delete("/api/v1/statuses/{status_id}")
    async def remove(status_id: str, request: Request, response: Response) -> Any:
        net.must_know(request)
        response.headers.update(net.headers("x-ratelimit", is_iso=True))
        if status_id not in net.posts:
            raise HTTPException(404, "Record not found")
        return net.posts.pop(status_id)

    _add_node_info(app, software)
    _add_pictures(app, net)
    return app


def gotosocial(net: Network) -> FastAPI:
    """Return the same API of a server that keeps no keys."""
    return mastodon(net, "gotosocial")


def _add_node_info(app: FastAPI, software: str) -> None:
    @app.get("/.well-known/nodeinfo")
    async def nodeinfo() -> Any:
        return {"links": [{"href": "https://social.example/nodeinfo/2.0"}]}

    @app.get("/nodeinfo/2.0")
    async def about() -> Any:
        return {"software": {"name": software}}


def _add_pictures(app: FastAPI, net: Network) -> None:
    @app.post("/api/v2/media", status_code=202)
    async def upload(request: Request) -> Any:
        net.must_know(request)
        net.looks = 1
        form: Any
        async with request.form() as form:
            return {"id": net.keep(await form["file"].read(), alt=form["description"])}

    @app.get("/api/v1/media/{name}")
    async def look(name: str) -> Any:
        net.looks -= 1
        return JSONResponse({"id": name}, 206 if net.looks >= 0 else 200)


def bluesky(net: Network) -> FastAPI:
    """Return the XRPC of a personal data server, as @atproto/pds answers."""
    app = FastAPI()

    def session() -> dict[str, str]:
        net.logins += 1
        access = f"{TOKEN}-{net.logins}"
        return {"did": DID, "accessJwt": access, "refreshJwt": f"refresh-{access}"}

    @app.post("/xrpc/com.atproto.server.createSession")
    async def login(request: Request) -> Any:
        if (await request.json())["password"] != TOKEN:
            return _xrpc(401, "AuthenticationRequired", "Invalid identifier or password")
        return session()

    @app.post("/xrpc/com.atproto.server.refreshSession")
    async def refresh(request: Request) -> Any:
        assert request.headers["authorization"].startswith("Bearer refresh-")
        return session()

    _add_records(app, net)
    _add_blobs(app, net)
    return app


def _add_blobs(app: FastAPI, net: Network) -> None:
    @app.post("/xrpc/com.atproto.repo.uploadBlob")
    async def upload(request: Request) -> Any:
        if answer := _wrong(net, request):
            return answer
        content, kind = await request.body(), request.headers["content-type"]
        assert len(content) == int(request.headers["content-length"])
        name = net.keep(content)
        return {"blob": {"$type": "blob", "ref": {"$link": name}, "mimeType": kind, "size": 1}}


def _add_records(app: FastAPI, net: Network) -> None:
    @app.post("/xrpc/com.atproto.repo.createRecord")
    async def create(request: Request, response: Response) -> Any:
        if answer := _wrong(net, request):
            return answer
        body = await request.json()
        response.headers.update(net.headers("ratelimit"))
        uri = f"{POSTS}{body['rkey']}"
        if uri in net.posts:
            return _xrpc(500, "InternalServerError", "Internal Server Error")
        net.posts[uri] = body["record"] | {"cid": f"cid-{net.new_id()}"}
        embed = body["record"].get("embed", {})
        images = embed.get("images", [embed] if "video" in embed else ())
        found = [
            net.media[one["video" if "video" in one else "image"]["ref"]["$link"]]
            | {"alt": one["alt"]}
            for one in images
        ]
        net.posts[uri]["media"] = found
        return {"uri": uri, "cid": net.posts[uri]["cid"]}

    @app.get("/xrpc/com.atproto.repo.getRecord")
    async def get(rkey: str) -> Any:
        uri = f"{POSTS}{rkey}"
        if uri not in net.posts:
            return _xrpc(400, "RecordNotFound", f"Could not locate record: {uri}")
        return {"uri": uri, "cid": net.posts[uri]["cid"], "value": net.posts[uri]}

    @app.post("/xrpc/com.atproto.repo.deleteRecord")
    async def remove(request: Request) -> Any:
        if answer := _wrong(net, request):
            return answer
        net.posts.pop(f"{POSTS}{(await request.json())['rkey']}", None)
        return {}


def _wrong(net: Network, request: Request) -> JSONResponse | None:
    given = request.headers.get("authorization", "").split(" ")[-1]
    if given in net.expired:
        return _xrpc(400, "ExpiredToken", "Token has expired")
    if not given.startswith(TOKEN):
        return _xrpc(401, "AuthMissing", "Authentication Required")
    return None


def _xrpc(status: int, error: str, message: str) -> JSONResponse:
    return JSONResponse({"error": error, "message": message}, status)


def webhook(net: Network) -> FastAPI:
    """Return a receiver that passes over a `webhook-id` it has seen."""
    app = FastAPI()

    @app.post("/hook")
    async def take(request: Request) -> Any:
        body = await request.json()
        key = request.headers["webhook-id"]
        if body["type"] == "post.retracted":
            net.posts.pop(body["data"]["publication"], None)
        elif key not in net.keys:
            net.keys[key] = key
            net.posts[key] = {"text": body["data"]["text"], "media": body["data"].get("media")}
        return {}

    return app


def x(net: Network) -> FastAPI:
    """Return docs.x.com's posts: it refuses a text that it has, and signatures are not checked."""
    app = FastAPI()

    def must_know(request: Request) -> None:
        given = request.headers.get("authorization", "")
        assert 'oauth_signature_method="HMAC-SHA1"' in given
        if TOKEN in net.expired or f'oauth_token="{TOKEN}"' not in given:
            raise HTTPException(401, "Unauthorized")

    @app.post("/2/tweets", status_code=201)
    async def create(request: Request, response: Response) -> Any:
        must_know(request)
        body = await request.json()
        text, ids = body["text"], body.get("media", {}).get("media_ids", ())
        response.headers.update(net.headers("x-rate-limit"))
        if any(post["text"] == text for post in net.posts.values()):
            why = "You are not allowed to create a Tweet with duplicate content."
            return JSONResponse({"detail": why, "title": "Forbidden", "status": 403}, 403)
        name = net.new_id()
        net.posts[name] = {"text": text, "media": [net.media[one] for one in ids]}
        return {"data": {"id": name, "text": text}}

    @app.post("/2/media/upload")
    async def upload(request: Request) -> Any:
        must_know(request)
        form: Any
        async with request.form() as form:
            assert form["media_category"] == "tweet_image"
            return {"data": {"id": net.keep(await form["media"].read())}}

    _add_videos(app, net, must_know)

    @app.post("/2/media/metadata")
    async def describe(request: Request) -> Any:
        must_know(request)
        body = await request.json()
        net.media[body["id"]]["alt"] = body["metadata"]["alt_text"]["text"]
        return {}

    @app.delete("/2/tweets/{post_id}")
    async def remove(post_id: str, request: Request) -> Any:
        must_know(request)
        net.posts.pop(post_id, None)
        return {"data": {"deleted": True}}

    return app


def _add_videos(app: FastAPI, net: Network, must_know: Callable[[Request], None]) -> None:
    """Add docs.x.com's upload in segments: it is worked on until it was asked for twice."""

    def state(name: str) -> Any:
        net.looks -= 1
        is_done = net.looks < 0
        info: dict[str, Any] = {
            "state": "succeeded" if is_done else "in_progress", "check_after_secs": 0,
        }  # fmt: skip
        if net.media[name]["hex"].endswith(BROKEN.hex()):
            info = {"state": "failed", "error": {"message": "file is corrupt"}}
        return {"data": {"id": name, "processing_info": info}}

    @app.post("/2/media/upload/initialize")
    async def initialize(request: Request) -> Any:
        must_know(request)
        wanted = await request.json()
        assert (wanted["media_category"], wanted["media_type"]) == ("tweet_video", "video/mp4")
        net.looks = 2
        return {"data": {"id": net.keep(b"", total=wanted["total_bytes"])}}

    @app.post("/2/media/upload/{name}/append")
    async def append(name: str, request: Request) -> Any:
        must_know(request)
        form: Any
        async with request.form() as form:
            one = net.media[name]
            assert int(form["segment_index"]) == one.setdefault("segments", 0)
            one["segments"] += 1
            one["hex"] += (await form["media"].read()).hex()
        return {}

    @app.post("/2/media/upload/{name}/finalize")
    async def finalize(name: str, request: Request) -> Any:
        must_know(request)
        assert len(net.media[name]["hex"]) == 2 * net.media[name].pop("total")
        return state(name)

    @app.get("/2/media/upload")
    async def look(command: str, media_id: str, request: Request) -> Any:
        must_know(request)
        assert command == "STATUS"
        return state(media_id)
