"""Browsers that want to be told: asking, the notification as a browser decrypts it, leaving."""

from __future__ import annotations

import base64
import json
import os
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import http_ece
import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fastapi import FastAPI, Request, Response
from py_vapid import Vapid02
from sqlalchemy import text

from ops.embedded.system import System
from schemas.posts import Post
from services.kit import database
from services.kit.telemetry import Clock
from services.publisher import push
from services.publisher.accounts import WebPushAccount
from services.publisher.channels import NotSent, Partly, Publication, Refused
from services.publisher.channels.webpush import WebPush, new_private_key, public_key
from services.publisher.page import PageSettings
from services.publisher.push_store import PushStore
from services.publisher.store import SCHEMA
from tests.builders import a_clearance, a_post
from tests.faulty import served

PRIVATE = new_private_key()
URL = "https://status.northlink.example"


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


@dataclass
class Browser:
    """One browser at the push service: its keys, and what it was shown."""

    name: str
    key: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    auth: bytes = field(default_factory=lambda: os.urandom(16))
    shown: dict[str, dict[str, str]] = field(default_factory=dict)
    status: int = 201

    def subscription(self, address: str) -> dict[str, Any]:
        point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        keys = {"p256dh": b64(point), "auth": b64(self.auth)}
        return {"endpoint": f"{address}/wpush/{self.name}", "keys": keys, "expirationTime": None}


class PushService:
    """RFC 8030: it takes what a sender with the right signature brings, and shows it in the browser."""

    def __init__(self) -> None:
        self.browsers: dict[str, Browser] = {}
        self.headers: list[dict[str, str]] = []
        self.app = FastAPI()

        @self.app.post("/wpush/{name}")
        async def take(name: str, request: Request) -> Response:
            self.headers.append(dict(request.headers))
            self.must_be_signed(request)
            browser = self.browsers[name]
            if browser.status == 201:
                body = await request.body()
                assert len(body) <= 4096
                plain = http_ece.decrypt(body, private_key=browser.key, auth_secret=browser.auth)
                said = json.loads(plain)
                browser.shown[said["tag"]] = said
            return Response(status_code=browser.status)

    def must_be_signed(self, request: Request) -> None:
        """Check the signature by the key that the page gave to browsers (RFC 8292, 3)."""
        parts = request.headers["authorization"].removeprefix("vapid ").split(",")
        found = dict(part.split("=", 1) for part in parts)
        assert found["k"] == public_key(PRIVATE)
        token, signature = found["t"].rsplit(".", 1)
        assert Vapid02.from_raw(PRIVATE.encode()).verify_token(token.encode(), signature)
        claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
        assert claims["aud"] == f"http://{request.headers['host']}"
        assert claims["sub"] == "mailto:status@northlink.example"

    def new_browser(self) -> Browser:
        made = Browser(uuid.uuid4().hex)
        self.browsers[made.name] = made
        return made


@dataclass
class Desk:
    public: httpx.AsyncClient
    service: PushService
    address: str
    store: PushStore
    channel: WebPush

    async def ask(self, browser: Browser, **values: Any) -> httpx.Response:
        body = {"subscription": browser.subscription(self.address)} | values
        return await self.public.post("/push", json=body)

    def update(self, **values: Any) -> Post:
        now = Clock().now()
        known: dict[str, Any] = {
            "post_id": uuid.uuid4().hex, "kind": "update", "text": "Trains stand at Saltmouth.",
            "language": "en", "due_at": now, "latest_at": now + timedelta(hours=1),
        }  # fmt: skip
        return a_post(**(known | values))

    async def publish(self, post: Post) -> Publication:
        return await self.channel.publish(a_clearance(post), key=post.post_id)


@pytest.fixture
async def desk(system: System) -> AsyncIterator[Desk]:
    engine = database.new_engine(system.database, schema=SCHEMA)
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM browsers"))
    store, service = PushStore(engine), PushService()
    async with served(service.app) as faulty:
        host = faulty.address.removeprefix("http://")
        values: dict[str, Any] = {"channel": "webpush", "private_key": PRIVATE}
        values |= {"contact": "mailto:status@northlink.example", "push_services": (host,)}
        account = WebPushAccount.model_validate(values)
        coast = {"id": "coast", "name": "Coast line", "matchers": '{line="coast"}'}
        page = PageSettings.model_validate({"languages": ("en", "fr"), "components": [coast]})
        app = FastAPI()
        app.include_router(push.new_router(page, store, account, Clock()))
        channel = WebPush(account, store, Clock(), url=URL)
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as public:
            yield Desk(public, service, faulty.address, store, channel)
        await channel.aclose()
    await engine.dispose()


async def test_a_browser_that_asked_decrypts_what_was_pushed_and_leaves_by_its_endpoint(
    desk: Desk,
) -> None:
    browser = desk.service.new_browser()
    assert (await desk.ask(browser)).status_code == 204
    post = desk.update(incident_id="inc-1")
    await desk.publish(post)
    assert browser.shown["inc-1"]["title"] == post.text
    assert browser.shown["inc-1"]["url"] == f"{URL}/#inc-1"
    (headers,) = desk.service.headers
    assert headers["content-encoding"] == "aes128gcm"
    assert 3_500 < int(headers["ttl"]) <= 3_600
    endpoint = browser.subscription(desk.address)["endpoint"]
    assert (await desk.public.post("/push/leave", json={"endpoint": endpoint})).status_code == 204
    await desk.publish(desk.update())
    assert len(desk.service.headers) == 1


async def test_the_second_try_tells_only_those_who_were_not_told(desk: Desk) -> None:
    told, deaf = desk.service.new_browser(), desk.service.new_browser()
    deaf.status = 503
    await desk.ask(told)
    await desk.ask(deaf)
    post = desk.update()
    with pytest.raises(Partly, match="1 of 2 browsers were not told"):
        await desk.publish(post)
    deaf.status = 201
    await desk.publish(post)
    assert len(desk.service.headers) == 3
    assert deaf.shown
    told.status = deaf.status = 503
    with pytest.raises(NotSent):
        await desk.publish(desk.update())


async def test_a_push_service_that_fails_keeps_nobody_from_the_next_update(desk: Desk) -> None:
    browser = desk.service.new_browser()
    browser.status = 500
    await desk.ask(browser)
    old = desk.update(due_at=Clock().now() - timedelta(minutes=3))
    assert (await desk.publish(old)).detail == "1 refused"


async def test_a_browser_that_is_gone_is_forgotten(desk: Desk) -> None:
    browser = desk.service.new_browser()
    browser.status = 410
    await desk.ask(browser)
    assert (await desk.publish(desk.update())).detail == "1 gone and forgotten"
    assert await desk.store.browsers() == []


async def test_each_hears_of_what_it_chose_in_its_language(desk: Desk) -> None:
    all_, coast, french = (desk.service.new_browser() for _ in range(3))
    await desk.ask(all_)
    await desk.ask(coast, component="coast")
    await desk.ask(french, language="fr")
    await desk.publish(desk.update(labels={"network": "northlink", "line": "valley"}))
    assert [len(one.shown) for one in (all_, coast, french)] == [1, 0, 0]
    await desk.publish(desk.update(labels={"network": "northlink", "line": "coast"}))
    assert [len(one.shown) for one in (all_, coast, french)] == [2, 1, 0]


async def test_an_address_that_the_push_service_changed_keeps_its_choices(desk: Desk) -> None:
    old, new = desk.service.new_browser(), desk.service.new_browser()
    await desk.ask(old, language="fr", component="coast")
    await desk.ask(new, replaces=old.subscription(desk.address)["endpoint"])
    (known,) = await desk.store.browsers()
    assert known.endpoint.endswith(new.name)
    assert (known.language, known.matchers) == ("fr", '{line="coast"}')


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"endpoint": "http://169.254.169.254/latest"}, "subscription/endpoint"),
        ({"endpoint": "https://evil.example/fcm.googleapis.com"}, "subscription/endpoint"),
        ({"keys": {"p256dh": "A" * 87, "auth": "A" * 22}}, "subscription/keys"),
    ],
)
async def test_nobody_makes_us_call_another_server(
    desk: Desk, wrong: dict[str, Any], field: str
) -> None:
    subscription = desk.service.new_browser().subscription(desk.address) | wrong
    answer = await desk.public.post("/push", json={"subscription": subscription})
    assert answer.status_code == 422
    assert await desk.store.browsers() == []


async def test_no_offer_is_pushed(desk: Desk) -> None:
    await desk.ask(desk.service.new_browser())
    with pytest.raises(Refused, match="no offer is pushed"):
        await desk.publish(desk.update(kind="offer"))


async def test_ten_thousand_characters_are_not_cut_silently(desk: Desk) -> None:
    browser = desk.service.new_browser()
    await desk.ask(browser)
    await desk.publish(desk.update(text="Trains stand. " * 600))
    (said,) = browser.shown.values()
    assert said["body"].endswith(" …")
