"""GoToSocial, unmodified: Mastodon's API as another server speaks it, which keeps no keys.

It runs where `gotosocial` is on the path, with its `web` folder beside it, as a release has it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI, Response

from ops.embedded.process import free_port
from schemas.posts import Kind, Media, MediaType
from services.kit.telemetry import Clock
from services.publisher.accounts import MastodonAccount
from services.publisher.channels import NotSent
from services.publisher.channels.mastodon import Mastodon
from services.publisher.clearance import Clearance
from services.publisher.store import Store
from tests.builders import a_clearance, a_post
from tests.contracts.test_faults import store
from tests.desk import Desk
from tests.faulty import Fault, before, served
from tests.journey import wait_for

__all__ = ["store"]  # A fixture.
NAME, MAIL, PASSWORD = "northlink", "a@northlink.example", "the-Password-0f-the-tests!"
NOWHERE = "urn:ietf:wg:oauth:2.0:oob"
SCOPES = "read write"
MP4 = (Path(__file__).parents[1] / "samples" / "media" / "harbour.mp4").read_bytes()
PNG = (Path(__file__).parents[2] / "docs" / "page-phone.png").read_bytes()


@dataclass(frozen=True)
class Server:
    """Where it listens, and the token of its one account."""

    url: str
    token: str

    def statuses(self) -> list[dict[str, Any]]:
        headers = {"authorization": f"Bearer {self.token}"}
        with httpx.Client(base_url=self.url, headers=headers) as client:
            me = client.get("/api/v1/accounts/verify_credentials").raise_for_status().json()["id"]
            found = client.get(f"/api/v1/accounts/{me}/statuses", params={"limit": 40})
            statuses: list[dict[str, Any]] = found.raise_for_status().json()
        return statuses


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = shutil.which("gotosocial")
    if found is None:
        pytest.skip("no GoToSocial: put a release's gotosocial on the path")
    folder, port, web = (
        tmp_path_factory.mktemp("gotosocial"),
        free_port(),
        Path(found).parent / "web",
    )
    settings = {
        "GTS_HOST": f"localhost:{port}", "GTS_PROTOCOL": "http", "GTS_BIND_ADDRESS": "127.0.0.1",
        "GTS_PORT": str(port), "GTS_DB_TYPE": "sqlite", "GTS_DB_ADDRESS": str(folder / "db"),
        "GTS_STORAGE_LOCAL_BASE_PATH": str(folder / "storage"), "GTS_LOG_LEVEL": "warn",
        "GTS_WEB_TEMPLATE_BASE_DIR": f"{web / 'template'}/",
        "GTS_WEB_ASSET_BASE_DIR": f"{web / 'assets'}/",
    }  # fmt: skip
    env = os.environ | settings
    with subprocess.Popen(
        [found, "server", "start"], env=env, stdout=subprocess.DEVNULL
    ) as process:
        try:
            url = f"http://localhost:{port}"
            wait_for("the server", lambda: _answers(url))
            who = ["--username", NAME]
            made = ["create", *who, "--email", MAIL, "--password", PASSWORD]
            for act in (made, ["confirm", *who]):
                command = [found, "admin", "account", *act]
                subprocess.run(command, env=env, check=True, capture_output=True)
            yield Server(url, _token(url))
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.HTTPError:
        return False


def _token(url: str) -> str:
    """Sign in as a person does, and let an application write."""
    with httpx.Client(base_url=url, follow_redirects=True, headers={"accept": "*/*"}) as client:
        wanted = {"client_name": "interlock", "redirect_uris": NOWHERE, "scopes": SCOPES}
        app = client.post("/api/v1/apps", data=wanted).raise_for_status().json()
        ids = {"client_id": app["client_id"], "redirect_uri": NOWHERE}
        asked = ids | {"response_type": "code", "scope": SCOPES}
        pages = {"accept": "text/html"}
        client.get("/oauth/authorize", params=asked, headers=pages).raise_for_status()
        who = {"username": MAIL, "password": PASSWORD}
        client.post("/auth/sign_in", data=who, headers=pages).raise_for_status()
        done = client.post("/oauth/authorize", headers=pages)
        (code,) = parse_qs(urlsplit(str(done.url)).query)["code"]
        ids |= {"client_secret": app["client_secret"], "grant_type": "authorization_code"}
        answer = client.post("/oauth/token", data=ids | {"code": code, "scope": SCOPES})
        return str(answer.raise_for_status().json()["access_token"])


def an_account(url: str, token: str) -> MastodonAccount:
    values = {"channel": "mastodon", "url": url, "token": token, "characters": 5_000}
    return MastodonAccount.model_validate(values)


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[Mastodon]:
    made = Mastodon(an_account(server.url, server.token), Clock())
    yield made
    await made.aclose()


def cleared(text: str, **values: Any) -> Clearance:
    post = a_post(post_id=uuid.uuid4().hex, text=text, due_at=Clock().now(), **values)
    return a_clearance(post)


def test_it_keeps_no_keys(server: Server) -> None:
    """What the channel relies on: two requests with one key are two statuses."""
    headers = {"authorization": f"Bearer {server.token}", "idempotency-key": uuid.uuid4().hex}
    with httpx.Client(base_url=server.url, headers=headers) as client:
        made = [
            client.post("/api/v1/statuses", data={"status": "Twice"})
            .raise_for_status()
            .json()["id"]
            for _ in range(2)
        ]
        assert made[0] != made[1]
        for name in made:
            client.delete(f"/api/v1/statuses/{name}").raise_for_status()


async def test_what_is_published_is_found_by_its_words_and_taken_back(
    server: Server, channel: Mastodon
) -> None:
    post = cleared(
        "Half price & <more> on the coast line https://northlink.example/a_b #coast @nobody\n\nNow."
    )
    made = await channel.publish(post, key="a-key")
    assert made.told is not None
    assert made.told.limit > made.told.remaining > 0
    assert (channel.software, channel.capabilities.idempotent_s) == ("gotosocial", 0)
    found = await channel.look_up(post.post, key="a-key", age_s=1.0)
    assert found is not None
    assert found.id == made.id
    assert await channel.look_up(post.post, key="a-key", age_s=-60) is None
    await channel.retract(made)
    await channel.retract(made)
    assert await channel.look_up(post.post, key="a-key", age_s=1.0) is None
    assert server.statuses() == []


async def test_a_thread_hangs_together(server: Server) -> None:
    account = an_account(server.url, server.token).model_copy(update={"characters": 200})
    channel = Mastodon(account, Clock())
    words = " ".join(f"Sentence {n} of what there is to say about it." for n in range(14))
    made = await channel.publish(cleared(words, kind="update"), key="long")
    above = {one["id"]: one["in_reply_to_id"] for one in server.statuses()}
    parts = made.id.split()
    assert len(parts) > 2
    assert [above[name] for name in parts] == [None, *parts[:-1]]
    await channel.retract(made)
    assert server.statuses() == []
    await channel.aclose()


@pytest.mark.parametrize(
    ("kind", "content", "shown_as", "width"),
    [("image/png", PNG, "image", int.from_bytes(PNG[16:20])), ("video/mp4", MP4, "video", 64)],
)
async def test_a_picture_or_a_video_stands_there_with_its_words(
    server: Server, kind: MediaType, content: bytes, shown_as: str, width: int
) -> None:
    app = FastAPI()

    @app.get("/harbour")
    async def get() -> Response:
        return Response(content)

    async with served(app) as files:
        account = an_account(server.url, server.token)
        hosts = account.model_copy(update={"picture_hosts": ("127.0.0.1",)})
        channel = Mastodon(hosts, Clock())
        media = Media(url=f"{files.address}/harbour", type=kind, alt="A harbour")
        made = await channel.publish(cleared("To the sea", media=(media,)), key=f"seen {kind}")
        (status,) = server.statuses()
        (shown,) = status["media_attachments"]
        assert (shown["type"], shown["description"]) == (shown_as, "A harbour")
        assert shown["meta"]["original"]["width"] == width
        await channel.retract(made)
        await channel.aclose()


@pytest.mark.parametrize(
    ("kind", "fault", "becomes"),
    [
        ("offer", "reset behind", ("published", 1)),
        ("offer", "reset before", ("uncertain", 0)),
        ("update", "reset behind", ("published", 1)),
        ("update", "reset before", ("published", 1)),
        ("offer", "429", ("published", 1)),
    ],
)
async def test_an_offer_errs_to_zero_times_and_an_update_to_twice(
    server: Server, store: Store, kind: Kind, fault: Fault, becomes: tuple[str, int]
) -> None:
    async with before(urlsplit(server.url).port or 0) as faulty:
        channel = Mastodon(an_account(faulty.address, server.token), Clock())
        desk = Desk(store, f"a{uuid.uuid4().hex[:12]}", channel)
        post = desk.new_post(kind)
        faulty.fault = fault
        outcome = await desk.send(post)
        standing = [one for one in server.statuses() if post.post_id in one["content"]]
        assert (outcome.result, len(standing)) == becomes
        await channel.aclose()


async def test_a_wrong_token_is_a_persons_matter(server: Server) -> None:
    channel = Mastodon(an_account(server.url, "wrong"), Clock())
    with pytest.raises(NotSent, match="401"):
        await channel.publish(cleared("One"), key="k")
    await channel.aclose()
