"""Pictures and videos on every channel that takes them: what stands there, with its words; and what goes wrong."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from fastapi import FastAPI, Response

from ops.embedded.system import System
from schemas.channels import MediaLimit
from schemas.posts import MOST_MEDIA, Card, Media, Post
from services.kit import database
from services.kit.outbound import Forbidden, is_public, new_client
from services.publisher.channels import NotSent, Refused
from services.publisher.channels.feed import Feed
from services.publisher.channels.media import Attachments
from services.publisher.gate import TooLate
from services.publisher.ledger import Capabilities, refusal
from services.publisher.page_store import PageStore
from services.publisher.store import SCHEMA
from tests.builders import a_clearance, a_post
from tests.channels import CHANNELS, Case, a_case
from tests.faulty import Faulty, served
from tests.networks import BROKEN

PNG = b"\x89PNG\r\n\x1a\n" + b"a harbour in the sun"
MP4 = b"\x00\x00\x00\x18ftypmp42" + b"a harbour in the wind" * 2_000
ALT = "A harbour in the sun"
UPLOADED = ("mastodon", "bluesky", "discord (bot)", "discord (webhook)", "x")
LINKED = ("slack", "teams", "webhook")
LIMIT = MediaLimit(most=4, bytes=1_000, alt=1_000, video_bytes=1_000)


@dataclass
class Files:
    """A web server with pictures, and how often it was asked."""

    address: str = ""
    asked: list[str] = field(default_factory=list)
    faulty: Faulty | None = None

    def media(self, name: str = "harbour.png") -> Media:
        kind: Literal["video/mp4", "image/png"] = (
            "video/mp4" if name.endswith("mp4") else "image/png"
        )
        return Media(url=f"{self.address}/{name}", type=kind, alt=ALT)


@pytest.fixture
async def files() -> AsyncIterator[Files]:
    found, app = Files(), FastAPI()
    bodies = {
        "harbour.png": PNG, "page.html": b"<html>", "big.png": PNG + b"a" * 20_000_000,
        "harbour.mp4": MP4, "broken.mp4": MP4 + BROKEN, "page.mp4": b"<html>",
    }  # fmt: skip

    @app.get("/{name}")
    async def get(name: str) -> Response:
        found.asked.append(name)
        return Response(bodies[name]) if name in bodies else Response(status_code=404)

    async with served(app) as faulty:
        found.address, found.faulty = faulty.address, faulty
        yield found


def offer(*media: Media, **values: Any) -> Post:
    name = uuid.uuid4().hex
    return a_post(post_id=name, text=f"To the sea, {name}", media=media, **values)


async def publish(case: Case, *media: Media) -> None:
    post = offer(*media)
    await case.channel.publish(a_clearance(post), key=post.post_id)


def shown(case: Case) -> list[dict[str, Any]]:
    (post,) = case.net.posts.values()
    found: list[dict[str, Any]] = post["media"]
    return found


@pytest.mark.parametrize("name", UPLOADED)
async def test_a_picture_stands_there_with_its_words(
    name: str, files: Files, system: System
) -> None:
    async with a_case(name, system) as case:
        await publish(case, files.media())
        assert shown(case) == [{"hex": PNG.hex(), "alt": ALT}]


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("name", UPLOADED)
async def test_a_video_stands_there_with_its_words(
    name: str, in_memory: bool, files: Files, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    """X takes words for pictures only."""
    monkeypatch.setattr("services.publisher.channels.x.SEGMENT_BYTES", len(MP4) // 3)
    if not in_memory:
        monkeypatch.setattr("services.publisher.channels.media.IN_MEMORY_BYTES", len(MP4) // 2)
    async with a_case(name, system) as case:
        await publish(case, files.media("harbour.mp4"))
        (one,) = shown(case)
        assert bytes.fromhex(one["hex"]) == MP4
        assert one.get("alt") == (None if name == "x" else ALT)
        assert one.get("segments") == (3 if name == "x" else None)


async def test_a_video_that_x_cannot_use_is_refused(files: Files, system: System) -> None:
    async with a_case("x", system) as case:
        post = offer(files.media("broken.mp4"))
        with pytest.raises(Refused, match="file is corrupt"):
            await case.channel.publish(a_clearance(post), key=post.post_id)
        assert case.net.posts == {}


@pytest.mark.parametrize("name", ["telegram", "webhook"])
async def test_a_video_is_fetched_by_the_network_where_it_fetches(
    name: str, files: Files, system: System
) -> None:
    async with a_case(name, system) as case:
        await publish(case, files.media("harbour.mp4"))
        (one,) = shown(case)
        assert one["url"] == files.media("harbour.mp4").url
        assert files.asked == []


@pytest.mark.parametrize("name", ["slack", "teams", "email"])
async def test_who_takes_no_videos_says_so(name: str, files: Files, system: System) -> None:
    async with a_case(name, system) as case:
        found = refusal(offer(files.media("harbour.mp4")), case.channel.capabilities)
    assert found == "media/0/type: videos are not taken"


def test_a_video_stands_alone() -> None:
    files = Files("https://a.example")
    one, two = files.media("harbour.mp4"), files.media()
    assert "stands alone" in LIMIT.refusal([one, two])
    assert "stands alone" in LIMIT.refusal([two, one])
    assert "stands alone" in LIMIT.refusal([one, one])
    assert not LIMIT.refusal([one])


@pytest.mark.parametrize("name", LINKED)
async def test_a_network_that_fetches_for_itself_is_told_where(
    name: str, files: Files, system: System
) -> None:
    async with a_case(name, system) as case:
        await publish(case, files.media())
        (one,) = shown(case)
        assert (one["url"], one["alt"]) == (files.media().url, ALT)
        assert files.asked == []


async def test_telegram_shows_one_under_a_shorter_text(files: Files, system: System) -> None:
    async with a_case("telegram", system) as case:
        post = offer(files.media())
        await case.channel.publish(a_clearance(post), key=post.post_id)
        assert shown(case) == [{"url": files.media().url}]
        long = post.model_copy(update={"text": "a" * 1_025})
        with pytest.raises(Refused, match="1025 of at most 1024"):
            await case.channel.publish(a_clearance(long), key=long.post_id)
        assert "at most 1 are taken" in refusal(
            offer(files.media(), files.media()), case.channel.capabilities
        )


async def test_a_mail_carries_it(files: Files, system: System) -> None:
    async with a_case("email", system) as case:
        assert case.box is not None
        post = offer(files.media())
        await case.channel.publish(a_clearance(post), key=post.post_id)
        ((_, mail),) = case.box.mails
        (part,) = mail.iter_attachments()
        assert (part.get_content(), part["Content-Description"]) == (PNG, ALT)


@pytest.mark.parametrize("name", ["harbour.png", "harbour.mp4"])
async def test_our_own_feed_links_it_with_its_words(
    name: str, files: Files, system: System
) -> None:
    engine = database.new_engine(system.database, schema=SCHEMA)
    rows, post = PageStore(engine), offer(files.media(name))
    await Feed(rows).publish(a_clearance(post), key=post.post_id)
    (row,) = [one for one in await rows.read_feed() if one.post_id == post.post_id]
    assert row.media == ((files.media(name).url, ALT),)
    await engine.dispose()


@pytest.mark.parametrize("name", UPLOADED)
async def test_what_was_uploaded_is_not_uploaded_again_behind_a_clearance_that_ran_out(
    name: str, files: Files, system: System
) -> None:
    """Or a picture that takes longer than a clearance would never go out."""
    async with a_case(name, system) as case:
        post = offer(files.media())
        with pytest.raises(TooLate):
            await case.channel.publish(a_clearance(post, until_s=0), key=post.post_id)
        assert case.net.posts == {}
        await case.channel.publish(a_clearance(post), key=post.post_id)
        assert len(shown(case)) == 1
        assert files.asked == ["harbour.png"]
        assert len(case.net.media) <= 1


@pytest.mark.parametrize("name", ["mastodon", "bluesky", "x"])
async def test_an_upload_whose_answer_is_lost_published_nothing(
    name: str, files: Files, system: System
) -> None:
    async with a_case(name, system) as case:
        first = offer()
        await case.channel.publish(a_clearance(first), key=first.post_id)  # A session is there.
        post = offer(files.media())
        case.breaks("reset behind")
        with pytest.raises(NotSent, match="was not uploaded"):
            await case.channel.publish(a_clearance(post), key=post.post_id)
        await case.channel.publish(a_clearance(post), key=post.post_id)
        assert case.standing(post.text) == 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("page.html", "is no image/png"),
        ("big.png", "more than 1000 bytes"),
        ("gone.png", "HTTP 404"),
        ("page.mp4", "is no video/mp4"),
        ("harbour.mp4", "more than 1000 bytes"),
    ],
)
async def test_what_is_not_what_it_is_said_to_be_is_refused_by_its_address(
    name: str, why: str, files: Files
) -> None:
    attachments = Attachments(LIMIT, allowed=frozenset({"127.0.0.1"}))
    with pytest.raises(Refused, match=why) as told:
        await attachments.of(offer(files.media(name)), _nothing)
    assert name in str(told.value)
    await attachments.aclose()


@pytest.mark.parametrize(
    ("url", "error"),
    [("http://[::1", Refused), ("https://.../a.png", NotSent), ("https://a.example:99999/a.png", NotSent)],
)  # fmt: skip
async def test_an_address_that_cannot_be_ends_nothing_but_the_post(
    url: str, error: type[Exception]
) -> None:
    """It ended the publisher."""
    attachments, media = (
        Attachments(LIMIT),
        {"url": url, "type": "image/png", "alt": "The harbour."},
    )
    with pytest.raises(error):
        await attachments.of(offer(Media.model_validate(media)), _nothing)
    await attachments.aclose()


async def test_a_private_address_is_asked_only_where_it_is_allowed(files: Files) -> None:
    attachments = Attachments(LIMIT)
    with pytest.raises(Refused, match="not public"):
        await attachments.of(offer(files.media()), _nothing)
    assert files.asked == []
    await attachments.aclose()


async def test_a_name_that_leads_to_a_private_address_is_no_way_round() -> None:
    async with new_client() as client:
        with pytest.raises(Forbidden, match=r"localhost is (127\.0\.0\.1|::1)"):
            await client.get("http://localhost:1/")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.1", "224.0.0.1", "::1", "fe80::1%eth0", "fc00::1", "::ffff:10.0.0.1",
     "2002:7f00:1::", "64:ff9b:1::1", "64:ff9b::7f00:1", "2001:0:0:1::1"],
)  # fmt: skip
def test_what_is_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_what_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("name", [n for n in CHANNELS if n not in ("apprise", "statuspage")])
async def test_too_many_or_too_wordy_is_refused_before_anything_is_fetched(
    name: str, system: System
) -> None:
    async with a_case(name, system) as case:
        can = case.channel.capabilities
    assert can.media is not None
    media = Media(url="https://a.example/a.png", type="image/png", alt="a" * 1_000)
    assert refusal(offer(*[media] * can.media.most), can) in (
        "", "media/0/alt: 1000 of at most 900 characters"
    )  # fmt: skip
    assert can.media.most <= MOST_MEDIA


def test_a_channel_without_pictures_says_so() -> None:
    media = Media(url="https://a.example/a.png", type="image/png", alt=ALT)
    can = Capabilities(idempotent_s=0, can_delete=False)
    assert refusal(offer(media), can) == "media: this channel takes no pictures and no videos"
    assert refusal(offer(), None) == "there is no channel account social-en"


async def test_a_link_is_a_card_where_the_network_does_not_look(system: System) -> None:
    async with a_case("bluesky", system) as case:
        card = Card(url="https://northlink.example/sea", title="To the sea", description="From 29")
        post = offer(card=card)
        await case.channel.publish(a_clearance(post), key=post.post_id)
        (record,) = case.net.posts.values()
        assert record["embed"] == {
            "$type": "app.bsky.embed.external",
            "external": {
                "uri": card.url, "title": card.title, "description": card.description,
            },
        }  # fmt: skip


async def _nothing(_: Any) -> None:
    raise AssertionError("it was to be refused")
