"""Stand-ins for networks, with the semantics that their documentation states.

Each is a small application in memory: what it was asked to create stands in `posts`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from services.publisher.texts import LINK

WINDOW_S = 60
DID = "did:plc:northlink"
POSTS = f"at://{DID}/app.bsky.feed.post/"
TOKEN = "the-secret-token-of-the-tests"


@dataclass
class Network:
    """What stands on a network, and how it tells of its rate; its clock may be wrong."""

    posts: dict[str, dict[str, Any]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    left: int = 100
    skew: timedelta = timedelta(0)
    expired: set[str] = field(default_factory=set)
    logins: int = 0
    number: int = 1_000

    def now(self) -> datetime:
        return datetime.now(UTC) + self.skew

    def new_id(self) -> str:
        self.number += 1
        return str(self.number)

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


def mastodon(net: Network) -> FastAPI:
    """Return docs.joinmastodon.org's statuses API."""
    app = FastAPI()

    @app.post("/api/v1/statuses")
    async def create(request: Request, response: Response) -> Any:
        net.must_know(request)
        form: Any = await request.form()
        response.headers.update(net.headers("x-ratelimit", is_iso=True))
        key = request.headers.get("idempotency-key", "")
        if key in net.keys and net.keys[key] in net.posts:
            return net.posts[net.keys[key]]
        if len(form["status"]) > 500 and "http" not in form["status"]:
            raise HTTPException(422, "Validation failed: Text character limit of 500 exceeded")
        made = {
            "id": net.new_id(), "content": f"<p>{form['status']}</p>", "text": form["status"],
            "in_reply_to_id": form.get("in_reply_to_id"), "replies_count": 2, "reblogs_count": 5,
        }  # fmt: skip
        made["url"] = f"https://social.example/@northlink/{made['id']}"
        net.posts[made["id"]] = made
        net.keys[key] = made["id"]
        return made

    @app.get("/api/v1/accounts/verify_credentials")
    async def who(request: Request) -> Any:
        net.must_know(request)
        return {"id": "7"}

    @app.get("/api/v1/accounts/7/statuses")
    async def statuses(request: Request) -> Any:
        net.must_know(request)
        return list(net.posts.values())[::-1][:40]

    @app.delete("/api/v1/statuses/{status_id}")
    async def remove(status_id: str, request: Request, response: Response) -> Any:
        net.must_know(request)
        response.headers.update(net.headers("x-ratelimit", is_iso=True))
        if status_id not in net.posts:
            raise HTTPException(404, "Record not found")
        return net.posts.pop(status_id)

    return app


def discord(net: Network) -> FastAPI:
    """Return discord.com/developers/docs' messages, of a bot and of a webhook."""
    app = FastAPI()
    _add_bot(app, net, "/api/v10/channels/42/messages")
    _add_hook(app, net, f"/api/webhooks/1/{TOKEN}")
    return app


def _add_bot(app: FastAPI, net: Network, channel: str) -> None:
    @app.post(channel)
    async def create(request: Request, response: Response) -> Any:
        net.must_know(request)
        body = await request.json()
        response.headers.update(net.headers("x-ratelimit"))
        assert len(body["nonce"]) <= 25
        if body.get("enforce_nonce") and body["nonce"] in net.keys:
            return net.posts[net.keys[body["nonce"]]]
        made = _message(net, body["content"])
        net.keys[body["nonce"]] = made["id"]
        return made

    @app.get("/api/v10/users/@me")
    async def who(request: Request) -> Any:
        net.must_know(request)
        return {"id": "bot"}

    @app.get(channel)
    async def messages(request: Request) -> Any:
        net.must_know(request)
        return list(net.posts.values())[::-1][:100]

    @app.delete(channel + "/{message_id}", status_code=204)
    async def remove(message_id: str, request: Request) -> None:
        net.must_know(request)
        if net.posts.pop(message_id, None) is None:
            raise HTTPException(404, "Unknown Message")


def _add_hook(app: FastAPI, net: Network, hook: str) -> None:
    @app.post(hook)
    async def execute(request: Request, response: Response) -> Any:
        response.headers.update(net.headers("x-ratelimit"))
        return _message(net, (await request.json())["content"])

    @app.delete(hook + "/messages/{message_id}", status_code=204)
    async def withdraw(message_id: str) -> None:
        if net.posts.pop(message_id, None) is None:
            raise HTTPException(404, "Unknown Message")


def _message(net: Network, content: str) -> dict[str, Any]:
    if len(content) > 2_000:
        raise HTTPException(400, "Must be 2000 or fewer in length.")
    name = net.new_id()
    made = {"id": name, "content": content, "text": content, "author": {"id": "bot"}}
    net.posts[name] = made
    return made


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
    return app


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
            net.posts[key] = {"text": body["data"]["text"]}
        return {}

    return app


def slack(net: Network) -> FastAPI:
    """Return docs.slack.dev's Web API: every answer is a 200, and says whether it is one."""
    app = FastAPI()

    async def known(request: Request) -> dict[str, Any] | None:
        given = request.headers.get("authorization", "").split(" ")[-1]
        wrong = given != TOKEN or given in net.expired
        return None if wrong else await request.json()

    @app.post("/api/chat.postMessage")
    async def create(request: Request) -> Any:
        body = await known(request)
        if body is None:
            return {"ok": False, "error": "token_expired"}
        made = _message(net, body["text"]) | {"bot_id": "B1"}
        made["ts"] = made["id"]
        net.posts[made["id"]] = made
        return {"ok": True, "ts": made["id"]}

    @app.post("/api/conversations.history")
    async def history(request: Request) -> Any:
        newest = list(net.posts.values())[::-1][:100]
        shown = [post | {"text": LINK.sub(r"<\g<0>>", post["text"])} for post in newest]
        return {"ok": True, "messages": shown}

    @app.post("/api/chat.delete")
    async def remove(request: Request) -> Any:
        body = await known(request)
        if body is None or net.posts.pop(body["ts"], None) is None:
            return {"ok": False, "error": "message_not_found"}
        return {"ok": True}

    return app


def telegram(net: Network) -> FastAPI:
    """Return core.telegram.org/bots/api's methods."""
    app = FastAPI()

    @app.post("/bot{token}/sendMessage")
    async def create(token: str, request: Request) -> Any:
        if token != TOKEN or token in net.expired:
            wrong = {"ok": False, "error_code": 401, "description": "Unauthorized"}
            return JSONResponse(wrong, 401)
        made = _message(net, (await request.json())["text"])
        return {"ok": True, "result": {"message_id": int(made["id"])}}

    @app.post("/bot{token}/deleteMessage")
    async def remove(token: str, request: Request) -> Any:
        if token != TOKEN or net.posts.pop(str((await request.json())["message_id"]), None) is None:
            why = "Bad Request: message to delete not found"
            return JSONResponse({"ok": False, "error_code": 400, "description": why}, 400)
        return {"ok": True, "result": True}

    return app


def teams(net: Network) -> FastAPI:
    """Return a workflow's webhook: it takes a card, and answers 202."""
    app = FastAPI()

    @app.post("/workflows/" + TOKEN, status_code=202)
    async def take(request: Request) -> None:
        (attachment,) = (await request.json())["attachments"]
        (block,) = attachment["content"]["body"]
        net.posts[net.new_id()] = {"text": block["text"]}

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
        text = (await request.json())["text"]
        response.headers.update(net.headers("x-rate-limit"))
        if any(post["text"] == text for post in net.posts.values()):
            why = "You are not allowed to create a Tweet with duplicate content."
            return JSONResponse({"detail": why, "title": "Forbidden", "status": 403}, 403)
        name = net.new_id()
        net.posts[name] = {"text": text}
        return {"data": {"id": name, "text": text}}

    @app.delete("/2/tweets/{post_id}")
    async def remove(post_id: str, request: Request) -> Any:
        must_know(request)
        net.posts.pop(post_id, None)
        return {"data": {"deleted": True}}

    return app


def statuspage(net: Network) -> FastAPI:
    """Return developer.statuspage.io's incidents of one page."""
    app = FastAPI()

    @app.get("/v1/pages/page1/incidents")
    async def incidents(request: Request) -> Any:
        net.must_know(request)
        return list(net.posts.values())[::-1][:100]

    @app.post("/v1/pages/page1/incidents", status_code=201)
    async def create(request: Request) -> Any:
        net.must_know(request)
        given = (await request.json())["incident"]
        if any(not isinstance(value, dict) for value in given["metadata"].values()):
            raise HTTPException(422, "metadata: all top-level values must be objects")
        made = given | {"id": net.new_id(), "incident_updates": [], "text": ""}
        made["shortlink"] = f"https://stspg.example/{made['id']}"
        net.posts[made["id"]] = made
        return say(made, given)

    @app.patch("/v1/pages/page1/incidents/{name}")
    async def change(name: str, request: Request) -> Any:
        net.must_know(request)
        if name not in net.posts:
            raise HTTPException(404, "Couldn't find Incident")
        given = (await request.json())["incident"]
        net.posts[name] |= given
        return say(net.posts[name], given)

    def say(incident: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
        incident["incident_updates"].insert(
            0, {"body": given["body"], "status": incident["status"]}
        )
        incident["text"] += given["body"] + "\n"
        return incident

    return app


def apprise(net: Network) -> FastAPI:
    """Return what Apprise's own `json://` calls."""
    app = FastAPI()

    @app.post("/notify")
    async def take(request: Request) -> Any:
        net.posts[net.new_id()] = {"text": (await request.json())["message"]}
        return {}

    return app
