"""Stand-ins for chats and status pages, with the semantics that their documentation states."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from schemas.channels import LINK
from tests.networks import TOKEN, Network


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
        body, media = await _with_files(request)
        response.headers.update(net.headers("x-ratelimit"))
        assert len(body["nonce"]) <= 25
        if body.get("enforce_nonce") and body["nonce"] in net.keys:
            return net.posts[net.keys[body["nonce"]]]
        made = _message(net, body["content"]) | {"media": media}
        net.posts[made["id"]] = made
        net.keys[body["nonce"]] = made["id"]
        return made

    @app.get("/api/v10/users/@me")
    async def who(request: Request) -> Any:
        net.must_know(request)
        return {"id": "bot"}

    @app.get(channel)
    async def messages(request: Request, response: Response) -> Any:
        net.must_know(request)
        response.headers.update(net.headers("x-ratelimit"))
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
        body, media = await _with_files(request)
        made = _message(net, body["content"]) | {"media": media}
        net.posts[made["id"]] = made
        return made

    @app.delete(hook + "/messages/{message_id}", status_code=204)
    async def withdraw(message_id: str) -> None:
        if net.posts.pop(message_id, None) is None:
            raise HTTPException(404, "Unknown Message")


async def _with_files(request: Request) -> tuple[Any, list[dict[str, Any]]]:
    if request.headers["content-type"] == "application/json":
        return await request.json(), []
    form: Any
    async with request.form() as form:
        body = json.loads(form["payload_json"])
        alts = [one["description"] for one in body["attachments"]]
        found = [
            {"hex": (await form[f"files[{n}]"].read()).hex(), "alt": alt}
            for n, alt in enumerate(alts)
        ]
    return body, found


def _message(net: Network, content: str) -> dict[str, Any]:
    if len(content) > 2_000:
        raise HTTPException(400, "Must be 2000 or fewer in length.")
    name = net.new_id()
    made = {
        "id": name, "content": content, "text": content, "author": {"id": "bot"},
        "timestamp": net.now().isoformat(),
    }  # fmt: skip
    net.posts[name] = made
    return made


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
        images = [one for one in body.get("blocks", ()) if one["type"] == "image"]
        made["media"] = [{"url": one["image_url"], "alt": one["alt_text"]} for one in images]
        net.posts[made["id"]] = made
        return {"ok": True, "ts": made["id"]}

    @app.post("/api/conversations.history")
    async def history(request: Request) -> Any:
        oldest = float((await request.json())["oldest"])
        newest = [
            post
            for post in list(net.posts.values())[::-1]
            if datetime.fromisoformat(post["timestamp"]).timestamp() > oldest
        ][:100]
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

    @app.post("/bot{token}/sendPhoto")
    @app.post("/bot{token}/sendVideo")
    async def show(token: str, request: Request) -> Any:
        assert token == TOKEN
        body = await request.json()
        made = _message(net, body["caption"])
        net.posts[made["id"]]["media"] = [
            {"url": body["photo" if request.url.path.endswith("Photo") else "video"]}
        ]
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
        block, *images = attachment["content"]["body"]
        media = [{"url": one["url"], "alt": one["altText"]} for one in images]
        net.posts[net.new_id()] = {"text": block["text"], "media": media}

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
        at = net.now().isoformat()
        said = {"body": given["body"], "status": incident["status"], "created_at": at}
        incident["incident_updates"].insert(0, said)
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
