"""Bluesky's own server, unmodified: our records, keys, threads and deletions, as it takes them.

It runs where its packages are: `npm install` in tests/contracts/pds (a compiler is needed for one).
"""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Response

from ops.embedded.process import free_port
from schemas.posts import Media
from services.kit.telemetry import Clock
from services.publisher.accounts import BlueskyAccount
from services.publisher.channels import NotSent, Refused
from services.publisher.channels.bluesky import COLLECTION, Bluesky
from services.publisher.clearance import Clearance
from tests.builders import a_clearance, a_post
from tests.faulty import served
from tests.journey import wait_for

PDS = Path(__file__).with_name("pds")
MP4 = Path(__file__).parents[1] / "samples" / "media" / "harbour.mp4"
HANDLE, PASSWORD = "northlink.test", "the-password-of-the-tests"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    if not shutil.which("node") or not (PDS / "node_modules").exists():
        pytest.skip("no Bluesky server: npm install in tests/contracts/pds brings one")
    plc, port = free_port(), free_port()
    url = f"http://localhost:{port}"
    command = ["node", "run.js", str(plc), str(port)]
    with subprocess.Popen(command, cwd=PDS, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for("the server", lambda: _answers(url))
            account = {"email": "a@example.org", "handle": HANDLE, "password": PASSWORD}
            made = httpx.post(f"{url}/xrpc/com.atproto.server.createAccount", json=account)
            assert made.status_code == 200, made.text
            yield url
        finally:
            process.terminate()


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/xrpc/_health").is_success
    except httpx.HTTPError:
        return False


@pytest.fixture
async def channel(server: str) -> AsyncIterator[Bluesky]:
    values = {"channel": "bluesky", "url": server, "handle": HANDLE, "password": PASSWORD}
    made = Bluesky(BlueskyAccount.model_validate(values), Clock())
    yield made
    await made.aclose()


def cleared(text: str, **values: Any) -> Clearance:
    post = a_post(post_id=uuid.uuid4().hex, text=text, due_at=Clock().now(), **values)
    return a_clearance(post)


async def records(server: str, channel: Bluesky) -> dict[str, Any]:
    params: dict[str, Any] = {"repo": channel.session["did"], "collection": COLLECTION}
    async with httpx.AsyncClient(base_url=server) as client:
        answer = await client.get("/xrpc/com.atproto.repo.listRecords", params=params)
    return {record["uri"]: record["value"] for record in answer.json()["records"]}


async def test_a_post_stands_once_however_often_it_is_tried(server: str, channel: Bluesky) -> None:
    post = cleared("Half price on the coast line https://northlink.example #coast")
    first = await channel.publish(post, key="a-key")
    assert first.told is not None
    again = await channel.publish(post, key="a-key")
    assert again.id == first.id
    known = await records(server, channel)
    assert known[first.id]["text"] == post.post.text
    assert len(known[first.id]["facets"]) == 2
    found = await channel.look_up(post.post, key="a-key", age_s=60)
    assert found is not None
    assert found.id == first.id
    await channel.retract(first)
    await channel.retract(first)
    assert await records(server, channel) == {}
    assert await channel.look_up(post.post, key="a-key", age_s=60) is None


async def test_a_key_that_another_post_has_is_refused(channel: Bluesky) -> None:
    post = cleared("One post")
    made = await channel.publish(post, key="one")
    other = a_clearance(post.post.model_copy(update={"text": "Another"}))
    with pytest.raises(Refused, match="is another post"):
        await channel.publish(other, key="one")
    await channel.retract(made)


async def test_a_thread_hangs_together(server: str, channel: Bluesky) -> None:
    words = " ".join(f"Sentence {n} of what there is to say about it." for n in range(14))
    made = await channel.publish(cleared(words, kind="update"), key="long")
    root, *rest = made.id.split()
    known = await records(server, channel)
    assert [known[uri]["reply"]["root"]["uri"] for uri in rest] == [root] * len(rest)
    await channel.retract(made)
    assert await records(server, channel) == {}


async def test_a_video_is_uploaded_and_embedded_with_its_words(server: str) -> None:
    app = FastAPI()

    @app.get("/harbour.mp4")
    async def get() -> Response:
        return Response(MP4.read_bytes())

    async with served(app) as files:
        values = {
            "channel": "bluesky", "url": server, "handle": HANDLE, "password": PASSWORD,
            "picture_hosts": ["127.0.0.1"],
        }  # fmt: skip
        channel = Bluesky(BlueskyAccount.model_validate(values), Clock())
        media = Media(url=f"{files.address}/harbour.mp4", type="video/mp4", alt="A harbour")
        made = await channel.publish(cleared("To the sea", media=(media,)), key="played")
        (record,) = (await records(server, channel)).values()
        embed = record["embed"]
        assert (embed["$type"], embed["alt"]) == ("app.bsky.embed.video", "A harbour")
        assert (embed["video"]["mimeType"], embed["video"]["size"]) == (
            "video/mp4",
            MP4.stat().st_size,
        )
        await channel.retract(made)
        await channel.aclose()


async def test_a_session_whose_token_is_no_good_is_renewed(channel: Bluesky) -> None:
    await channel.retract(await channel.publish(cleared("One"), key="one-more"))
    channel.session["accessJwt"] = channel.session["refreshJwt"]
    await channel.retract(await channel.publish(cleared("Two"), key="and-two"))


async def test_a_wrong_password_is_a_persons_matter(server: str) -> None:
    values = {"channel": "bluesky", "url": server, "handle": HANDLE, "password": "wrong"}
    channel = Bluesky(BlueskyAccount.model_validate(values), Clock())
    with pytest.raises(NotSent, match="401"):
        await channel.publish(cleared("One"), key="k")
    await channel.aclose()
