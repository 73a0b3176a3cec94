"""The Python client: as the OpenAPI document says, both ways, against the running scheduler."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, get_args

import httpx
import interlock_client
import pytest
from interlock_client import AsyncInterlock, Interlock, NewPost, Refused
from interlock_client.types import CampaignState, State

from services.scheduler import bodies, campaign_life, event_api, life
from services.scheduler.answering import Why
from services.scheduler.label_api import Suggestion
from tests.client import FOLDER, TARGET, blocking
from tests.integration.test_campaigns import HOUR, soon
from tests.journey import Journey

EXAMPLES = FOLDER.parent / "examples"
MODELS: dict[str, Any] = {
    "Post": bodies.PostView, "NewPost": bodies.PostBody, "Campaign": bodies.Campaign,
    "Page": bodies.Page, "Event": event_api.Event, "Why": Why, "Suggestion": Suggestion,
}  # fmt: skip


def test_the_client_that_blocks_is_made_from_the_one_that_is_awaited() -> None:
    assert blocking() == TARGET.read_text(), "make it again: python -m tests.client"


@pytest.mark.parametrize("name", sorted(MODELS))
def test_its_types_are_the_services(name: str) -> None:
    ours = getattr(interlock_client, name)
    model = MODELS[name]
    assert set(ours.__annotations__) == set(model.model_fields)
    if name != "NewPost":
        optional = {field for field, one in model.model_fields.items() if not one.is_required()}
        assert ours.__optional_keys__ == optional


def test_its_states_are_the_services() -> None:
    assert get_args(State) == get_args(life.State)
    assert get_args(CampaignState) == get_args(campaign_life.State)


def test_offers_are_queued_found_changed_and_explained(journey: Journey) -> None:
    system = journey.system
    with Interlock(system.address("scheduler"), key=system.keys["marketing"]) as interlock:
        campaign = interlock.add_campaign(name="by client", labels={"network": journey.network})
        campaign_id = campaign["campaign_id"]
        with pytest.raises(Refused) as refused:
            interlock.add_posts(campaign_id, {"account": "nobody", "text": "", **HOUR})  # type: ignore[typeddict-item]
        assert {one["pointer"] for one in refused.value.wrong} == {"/0/text"}
        made = interlock.add_posts(
            campaign_id,
            *(NewPost(account="web", text=f"{n}", due_at=HOUR["due_at"]) for n in range(5)),
        )
        found = list(interlock.posts(campaign_id=campaign_id, limit=2))
        assert [one["post_id"] for one in found] == [one["post_id"] for one in made]
        post = found[0]
        changed = interlock.change_post(post["post_id"], version=post["version"], text="new")
        assert changed["text"] == "new"
        with pytest.raises(Refused, match="it has changed since"):
            interlock.change_post(post["post_id"], version=post["version"], text="newer")
        assert "It is due at" in interlock.why(post["post_id"])["answer"]
        assert interlock.cancel_post(post["post_id"])["state"] == "cancelled"
        assert interlock.move_campaign(campaign_id, "pause")["state"] == "paused"
        assert interlock.try_posts(campaign_id, {"account": "web", "text": "x", **HOUR})  # type: ignore[typeddict-item]


async def test_events_are_awaited_through_a_broken_line(journey: Journey) -> None:
    system = journey.system
    key, url = system.keys["marketing"], system.address("scheduler")
    inner, broken = httpx.AsyncHTTPTransport(), [True]

    async def breaks_once(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/stream") and broken:
            broken.pop()
            raise httpx.ReadError("the line broke", request=request)
        return await inner.handle_async_request(request)

    client = httpx.AsyncClient(transport=httpx.MockTransport(breaks_once))
    async with AsyncInterlock(url, key=key, client=client) as interlock:
        (post_id,) = journey.offers(journey.campaign(), {"text": uuid.uuid4().hex})
        async for event in interlock.events("offer.published", after="0-0"):
            if event["data"]["post_id"] == post_id:
                break
        assert (await interlock.post(post_id))["state"] == "published"
    assert not broken, "it was broken once"
    await inner.aclose()


def test_what_was_asked_once_is_made_once_though_its_answer_is_lost(journey: Journey) -> None:
    system = journey.system
    keys: list[str] = []

    def loses_the_answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["idempotency-key"])
        answer = httpx.post(request.url, content=request.content, headers=request.headers)
        if len(keys) == 1:
            raise httpx.ReadTimeout("lost", request=request)
        return httpx.Response(answer.status_code, json=answer.json())

    client = httpx.Client(transport=httpx.MockTransport(loses_the_answer))
    campaign_id = journey.campaign()
    with Interlock(
        system.address("scheduler"), key=system.keys["marketing"], client=client
    ) as interlock:
        interlock.add_posts(campaign_id, {"account": "web", "text": "once", "due_at": soon(999)})
    assert len(keys) == 2
    assert len(set(keys)) == 1
    found = journey.marketing.get("/v1/posts", params={"campaign_id": campaign_id}).json()
    assert len(found["posts"]) == 1


def test_the_examples_run(journey: Journey) -> None:
    told = run(journey, "queue_and_listen.py", "web", "An offer of the example")
    assert "offer.published" in told
    assert "It went out." in told
    assert "without a `line` label" in told
    assert "An example: 0" in run(journey, "held_now.py")


def run(journey: Journey, name: str, *arguments: str) -> str:
    env = os.environ | {
        "INTERLOCK_SCHEDULER": journey.system.address("scheduler"),
        "INTERLOCK_KEY": journey.system.keys["marketing"],
        "PYTHONPATH": str(Path(interlock_client.__file__).parents[1]),
    }
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
