"""Offers as marketing writes, finds and takes them back: labels, links, lists, calendars."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from icalendar import Calendar
from typer.testing import CliRunner

from services.cli import app
from services.kit import database
from services.scheduler.store import SCHEMA
from services.scheduler.stream import LOOK_S
from tests.integration.test_campaigns import HOUR, add, body
from tests.journey import Journey, wait_for


def test_what_can_be_asked_nowhere_is_refused_when_it_is_written(journey: Journey) -> None:
    campaign, bad = journey.campaign(labels={}), "http://[::1"
    media = [{"url": "https://.../a.png", "type": "image/png", "alt": "The sea"}]
    card = {"url": bad, "title": "To the sea"}
    wrong = add(journey, campaign, **HOUR, account="web", media=media, card=card).json()["errors"]
    assert {one["pointer"] for one in wrong} == {"/0/media/0/url", "/0/card/url"}
    made = add(journey, campaign, **HOUR, account="web").json()
    path, headers = f"/v1/posts/{made['post_id']}", {"if-match": f'"{made["version"]}"'}
    changed = journey.marketing.patch(path, json={"card": card}, headers=headers)
    assert [one["pointer"] for one in changed.json()["errors"]] == ["/card/url"]
    with journey.system.client("scheduler", "admin") as admin:
        hook = admin.post("/v1/webhooks", json={"url": bad})
    assert hook.status_code == 422
    assert hook.json()["errors"][0]["pointer"] == "/url"


def test_a_typo_in_a_label_is_refused_and_what_is_doubtful_is_said(journey: Journey) -> None:
    file = journey.system.data / "labels.yaml"
    before = file.read_text()
    campaign = journey.campaign(labels={})
    try:
        file.write_text(
            "others: refuse\nlabels: {network: {expected: true}, line: {values: {coast: Coast line}}}\n"
        )

        def refused() -> list[dict[str, str]]:
            answer = add(journey, campaign, **HOUR, labels={"lien": "coast", "line": "caost"})
            found: list[dict[str, str]] = answer.json().get("errors", [])
            return found

        errors = {one["pointer"]: one["detail"] for one in wait_for("the file", refused)}
        assert errors == {
            "/0/labels/lien": "there is no label lien: did you mean line?",
            "/0/labels/line": "there is no line caost: did you mean coast?",
        }
        text = uuid.uuid4().hex
        first = add(journey, campaign, **HOUR, text=text, labels={"line": "coast"}).json()
        assert first["warnings"] == [
            "without a `network` label this offer is held by every incident on any network"
        ]
        tried = journey.marketing.post(
            f"/v1/campaigns/{campaign}/posts/dry-run", json=body(**HOUR, text=text)
        ).json()[0]
        assert first["post_id"] in tried["warnings"][1], "the same words on the same account"
        day_later = body(text=text, due_at="2099-06-02T10:00:00Z", labels={"network": "n"})
        later = journey.marketing.post(f"/v1/campaigns/{campaign}/posts", json=day_later).json()
        assert later["warnings"] == []
        labels = {one["name"]: one for one in journey.marketing.get("/v1/labels").json()}
        assert (labels["line"]["values"], labels["network"]["expected"]) == (1, True)
        found = journey.marketing.get("/v1/labels/line", params={"like": "cost"}).json()
        assert found == [{"value": "coast", "means": "Coast line"}]
        assert journey.marketing.get("/v1/labels/lane").status_code == 404
    finally:
        file.write_text(before)
    wait_for(
        "the file as it was",
        lambda: "region" in [one["name"] for one in journey.marketing.get("/v1/labels").json()],
    )
    network = journey.marketing.get("/v1/labels/network").json()
    assert "n" in [one["value"] for one in network]


def test_links_of_a_campaign_are_marked_before_their_length_is_counted(journey: Journey) -> None:
    campaign = journey.campaign(utm={"campaign": "autumn"})
    made = add(journey, campaign, **HOUR, text="https://a.example/x").json()
    marks = "utm_source=social-en&utm_medium=social&utm_campaign=autumn"
    assert made["text"] == f"https://a.example/x?{marks}"
    changed = journey.marketing.patch(
        f"/v1/posts/{made['post_id']}", json={"text": "https://b.example"}
    )
    assert changed.json()["text"] == f"https://b.example?{marks}"


def test_a_thread_is_checked_part_by_part_and_goes_out_in_order(journey: Journey) -> None:
    campaign = journey.campaign(utm={"campaign": "autumn"})
    wrong = add(journey, campaign, **HOUR, thread=["short", "x" * 501]).json()["errors"]
    assert [one["pointer"] for one in wrong] == ["/0/thread/1"]
    part = "\U0001f682" * 10_000
    large = add(journey, campaign, **HOUR, text=part, thread=[part] * 19).json()["errors"]
    assert "bytes as JSON" in {one["pointer"]: one["detail"] for one in large}["/0/thread"]
    not_here = add(journey, campaign, **HOUR, account="web", thread=["and more"]).json()["errors"]
    assert not_here[0]["pointer"] == "/0/thread"
    assert "one part only" in not_here[0]["detail"]
    made = add(journey, campaign, **HOUR, thread=["first", "second"]).json()
    path = f"/v1/posts/{made['post_id']}"
    changed = journey.marketing.patch(path, json={"thread": ["https://a.example"]}).json()
    assert changed["thread"] == [
        "https://a.example?utm_source=social-en&utm_medium=social&utm_campaign=autumn"
    ]
    assert changed["text"] == made["text"]
    name = uuid.uuid4().hex
    sent = add(journey, campaign, text=f"{name} 1", thread=[f"{name} 2", f"{name} 3"]).json()
    journey.wait_state(sent["post_id"], "published")
    parts = [f"{sent['post_id']}.{number}" for number in (1, 2, 3)]
    seen = journey.seen(among=parts)
    assert [one["text"] for one in seen] == [f"{name} {number}" for number in (1, 2, 3)]
    assert journey.standing(parts) == set(parts)
    journey.marketing.post(f"/v1/posts/{sent['post_id']}/retract").raise_for_status()
    journey.wait_state(sent["post_id"], "retracted")
    assert journey.standing(parts) == set()


def test_an_offer_that_is_out_is_taken_back_on_request(journey: Journey) -> None:
    campaign = journey.campaign()
    waiting = add(journey, campaign, **HOUR).json()["post_id"]
    assert journey.marketing.post(f"/v1/posts/{waiting}/retract").status_code == 409
    post_id = add(journey, campaign).json()["post_id"]
    journey.wait_state(post_id, "published")
    refused = journey.marketing.post(f"/v1/posts/{post_id}/cancel")
    assert (refused.status_code, "ask for its retraction" in refused.json()["detail"]) == (
        409,
        True,
    )
    asked = {"comment": "the price was wrong"}
    assert journey.marketing.post(f"/v1/posts/{post_id}/retract", json=asked).status_code == 202
    journey.wait_state(post_id, "retracted")
    assert journey.standing([post_id]) == set()
    steps = journey.marketing.get(f"/v1/posts/{post_id}/why").json()["steps"]
    assert "post retract asked: the price was wrong" in [step["what"] for step in steps]
    assert journey.marketing.post(f"/v1/posts/{post_id}/retract").status_code == 409


def test_offers_are_listed_by_what_is_asked_and_no_more_of_them(journey: Journey) -> None:
    campaign = journey.campaign(labels={"network": journey.network})
    coast = add(journey, campaign, **HOUR, labels={"line": "coast"}, external_id="c-1").json()
    add(
        journey, campaign, due_at="2099-06-03T10:00:00Z", labels={"line": "valley"}
    ).raise_for_status()
    add(journey, campaign, **HOUR, account="web")

    def listed(**wanted: Any) -> list[dict[str, Any]]:
        params = {"campaign_id": campaign} | wanted
        answer = journey.marketing.get("/v1/posts", params=params).raise_for_status()
        found: list[dict[str, Any]] = answer.json()["posts"]
        return found

    assert len(listed()) == 3
    assert [one["post_id"] for one in listed(matchers='{line="coast"}')] == [coast["post_id"]]
    assert len(listed(matchers='{line!="coast"}')) == 2
    assert [one["labels"]["line"] for one in listed(due_from="2099-06-02T00:00:00Z")] == ["valley"]
    assert len(listed(due_before="2099-06-02T00:00:00Z", account="social-en")) == 1
    assert listed(external_id="c-1", fields="post_id,state") == [
        {"post_id": coast["post_id"], "state": "queued"}
    ]
    refused = journey.marketing.get("/v1/posts", params={"fields": "post_id,secret"})
    assert refused.json()["errors"][0]["pointer"] == "/fields"
    refused = journey.marketing.get("/v1/posts", params={"matchers": "{line"})
    assert refused.json()["errors"][0]["pointer"] == "/matchers"
    wait_for(
        "the counts in the list",
        lambda: {one["campaign_id"]: one["counts"] for one in journey.marketing.get("/v1/campaigns").json()}[campaign]
        == {"queued": 3},
    )  # fmt: skip


def test_a_calendar_shows_offers_with_their_states(journey: Journey) -> None:
    campaign = journey.campaign()
    made = add(journey, campaign, **HOUR, text="To the sea; from 29, now\nWith love").json()
    params = {"begin": "2099-06-01", "end": "2099-06-02", "campaign_id": campaign}
    answer = journey.marketing.get("/v1/calendar.ics", params=params).raise_for_status()
    assert answer.headers["content-type"].startswith("text/calendar")
    (event,) = Calendar.from_ical(answer.content).walk("VEVENT")
    assert event["uid"] == f"{made['post_id']}@interlock"
    assert event["summary"] == "social-en: To the sea; from 29, now (queued)"
    assert event.decoded("dtstart") == datetime(2099, 6, 1, 10, tzinfo=UTC)


def test_an_evening_is_rehearsed_against_the_real_queue(
    journey: Journey, repository: Path, tmp_path: Path
) -> None:
    """And nothing of the queue is changed by it."""
    labels = {"network": journey.network, "line": "coast"}
    campaign = journey.campaign(labels=labels, recovery={"plan": "resume"}, quiet_s=60)
    posts = {
        minute: add(journey, campaign, due_at=f"2098-05-01T18:{minute:02}:00Z").json()["post_id"]
        for minute in (5, 20, 50)
    }
    disruption = {
        "disruption_id": "d", "network": journey.network, "title": "Trains are standing",
        "labels": {"line": "coast"},
    }  # fmt: skip
    file = tmp_path / "evening.yaml"
    steps = [
        {"minute": 10, "disruption": disruption | {"status": "opened"}},
        {"minute": 30, "disruption": disruption | {"status": "resolved"}},
    ]
    file.write_text(yaml.safe_dump({"steps": steps, "until_minute": 60}))
    policy = repository / "ops" / "policies" / "default.yaml"
    command = [
        "rehearse", str(file), "--policy", str(policy), "--begin", "2098-05-01T18:00:00",
        "--scheduler", journey.system.address("scheduler"), "--key", journey.system.keys["viewer"],
    ]  # fmt: skip
    played = CliRunner().invoke(app, command)
    assert played.exit_code == 0, played.output
    assert (
        f"{posts[20]}, due 2098-05-01T18:20:00Z: late, goes out 2098-05-01T18:36:00Z"
        in played.output
    )
    assert posts[5] not in played.output, "it goes out as planned"
    assert "Trains are standing" in played.output
    assert {journey.state(one) for one in posts.values()} == {"queued"}


FORGOTTEN = """
    UPDATE posts SET state = 'handed', attempt = greatest(attempt, 1), due_at = now() - interval '2 hours',
        latest_at = now() - interval '90 minutes', changed_at = now() - interval '70 minutes'
    WHERE post_id = ANY(:ids)
"""


async def _forget(address: str, *post_ids: str) -> None:
    engine = database.new_engine(address, schema=SCHEMA)
    async with engine.begin() as connection:
        await connection.execute(database.sql(FORGOTTEN), {"ids": list(post_ids)})
    await engine.dispose()


def test_of_an_offer_that_was_never_answered_the_publisher_says_what_it_knows(
    journey: Journey,
) -> None:
    """What Kafka had deleted before it was read, and what was said of an offer likewise, left it in hand for ever."""
    sent, never = journey.offers(journey.campaign(), {}, HOUR)
    journey.wait_state(sent, "published")
    asyncio.run(_forget(journey.system.database, sent, never))
    assert (journey.state(sent), journey.state(never)) == ("handed", "handed")
    wait_for("its end", lambda: journey.state(never) == "expired", patience_s=2 * LOOK_S)
    journey.wait_state(sent, "published")
    assert journey.ledger(sent)["state"] == "sent"  # type: ignore[index]
