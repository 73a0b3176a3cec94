"""The life of a campaign and its offers: approval, pauses, plans, changes, questions."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from ops.embedded.keys import add_key
from tests.journey import Journey, wait_for

HOUR = {"due_at": "2099-06-01T10:00:00Z"}


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def body(**values: Any) -> dict[str, Any]:
    return {"account": "social-en", "text": uuid.uuid4().hex, "due_at": soon(0)} | values


def add(journey: Journey, campaign: str, **values: Any) -> httpx.Response:
    return journey.marketing.post(f"/v1/campaigns/{campaign}/posts", json=body(**values))


def act(journey: Journey, campaign: str, action: str, *, by: str = "marketing") -> httpx.Response:
    client = journey.approver if by == "approver" else journey.marketing
    return client.post(f"/v1/campaigns/{campaign}/{action}")


def why(journey: Journey, post_id: str) -> str:
    answer = journey.marketing.get(f"/v1/posts/{post_id}/why").raise_for_status().json()
    said: str = answer["answer"]
    return said


def test_nothing_of_a_campaign_goes_out_unread_that_needs_approval(journey: Journey) -> None:
    campaign = journey.campaign(needs_approval=True)
    post = add(journey, campaign).json()
    assert post["state"] == "unapproved"
    assert act(journey, campaign, "start").status_code == 409
    assert act(journey, campaign, "submit").json()["state"] == "in_review"
    assert act(journey, campaign, "approve", by="approver").json()["state"] == "approved"
    assert journey.state(post["post_id"]) in ("queued", "held")
    assert "approved and was not started" in why(journey, post["post_id"])
    assert act(journey, campaign, "start").json()["state"] == "running"
    journey.wait_state(post["post_id"], "review")  # It was due before anybody started it.
    later = add(journey, campaign).json()["post_id"]
    assert journey.state(later) == "unapproved", "what is added behind the approval is read as well"
    journey.approver.post(f"/v1/posts/{later}/approve").raise_for_status()
    journey.wait_state(later, "published")


def test_an_edit_behind_an_approval_needs_a_new_one(journey: Journey) -> None:
    campaign = journey.campaign(needs_approval=True)
    post_id = add(journey, campaign, **HOUR).json()["post_id"]
    journey.approver.post(f"/v1/posts/{post_id}/approve").raise_for_status()
    changed = journey.marketing.patch(f"/v1/posts/{post_id}", json={"text": "Two for one"})
    assert (changed.json()["state"], changed.json()["approver"]) == ("unapproved", None)


def test_nobody_gets_round_the_four_eyes(journey: Journey) -> None:
    """Neither by switching them off, nor by putting one's own words into another's offer."""
    campaign = journey.campaign(needs_approval=True)
    path = f"/v1/campaigns/{campaign}"
    assert journey.marketing.patch(path, json={"needs_approval": False}).status_code == 409
    post_id = add(journey, campaign, **HOUR).json()["post_id"]
    with two_roles(journey) as both:
        wait_for("the key", lambda: both.get("/v1/summary").is_success)
        both.patch(f"/v1/posts/{post_id}", json={"text": "My own words"}).raise_for_status()
        assert both.post(f"/v1/posts/{post_id}/approve").status_code == 403
        both.patch(path, json={"name": "My own campaign"}).raise_for_status()
        act(journey, campaign, "submit").raise_for_status()
        assert both.post(f"{path}/approve").status_code == 403
    assert journey.approver.post(f"/v1/posts/{post_id}/approve").is_success


def two_roles(journey: Journey) -> httpx.Client:
    """Return a client of somebody who writes and approves."""
    keys = journey.system.data / "keys.json"
    name = f"both-{uuid.uuid4().hex[:8]}"
    key = add_key(keys, name=name, roles=("marketing", "approver"))
    address = journey.system.address("scheduler")
    return httpx.Client(base_url=address, headers={"authorization": f"Bearer {key}"})


def test_a_pause_is_no_hold_and_what_fell_due_meanwhile_is_not_sent_in_a_burst(
    journey: Journey,
) -> None:
    campaign = journey.campaign()
    act(journey, campaign, "pause").raise_for_status()
    due, later = (add(journey, campaign, due_at=soon(s)).json()["post_id"] for s in (0, 3))
    assert journey.holds() == []
    assert why(journey, due) == "It waits: marketing paused its campaign."
    act(journey, campaign, "resume").raise_for_status()
    journey.wait_state(due, "review")
    journey.wait_state(later, "published")


@pytest.mark.parametrize(
    ("plan", "then"),
    [
        ({"plan": "resume"}, "published"),
        ({"plan": "expire", "after_s": 3600}, "published"),
        ({"plan": "spread", "per_hour": 3600}, "published"),
        ({"plan": "shift"}, "published"),
        ({"plan": "review"}, "review"),
    ],
)
def test_the_plan_of_the_campaign_decides_behind_a_hold(
    journey: Journey, plan: dict[str, Any], then: str
) -> None:
    hold_id = journey.hold(f'{{network="{journey.network}"}}')
    campaign = journey.campaign(recovery=plan)
    posts = [add(journey, campaign).json()["post_id"] for _ in range(3)]
    journey.wait_state(posts[0], "held")
    wait_for("the queue knows", lambda: "It is held: test" in why(journey, posts[0]))
    preview = journey.marketing.get(f"/v1/campaigns/{campaign}/recovery").json()
    assert set(preview["counts"]) == {"queued" if then == "published" else then}
    journey.release(hold_id)
    for post_id in posts:
        journey.wait_state(post_id, then)


def test_a_shift_moves_what_is_due_later_as_well(journey: Journey) -> None:
    hold_id = journey.hold(f'{{network="{journey.network}"}}')
    campaign = journey.campaign(recovery={"plan": "shift"})
    post = add(journey, campaign, **HOUR).json()
    journey.wait_state(post["post_id"], "held")
    journey.release(hold_id)
    journey.wait_state(post["post_id"], "queued")
    moved = journey.marketing.get(f"/v1/posts/{post['post_id']}").json()
    shift = datetime.fromisoformat(moved["due_at"]) - datetime.fromisoformat(post["due_at"])
    assert timedelta(0) < shift < timedelta(seconds=30)
    useful = datetime.fromisoformat(moved["latest_at"]) - datetime.fromisoformat(moved["due_at"])
    assert useful == timedelta(hours=1)


def test_a_change_of_a_version_that_somebody_else_changed_is_refused(journey: Journey) -> None:
    campaign = journey.campaign()
    post_id = add(journey, campaign, **HOUR).json()["post_id"]
    seen = journey.marketing.get(f"/v1/posts/{post_id}").headers["etag"]
    path, headers = f"/v1/posts/{post_id}", {"if-match": seen}
    first = journey.marketing.patch(path, json={"text": "First"}, headers=headers)
    assert first.json()["text"] == "First"
    second = journey.marketing.patch(path, json={"text": "Second"}, headers=headers)
    assert second.status_code == 412
    again = journey.marketing.patch(
        path, json={"text": "Third"}, headers={"if-match": first.headers["etag"]}
    )
    assert again.json()["text"] == "Third"


def test_a_post_that_is_moved_goes_out_then_and_by_its_new_labels(journey: Journey) -> None:
    hold_id = journey.hold(f'{{network="{journey.network}",line="coast"}}')
    campaign = journey.campaign()
    post_id = add(journey, campaign, labels={"line": "coast"}, **HOUR).json()["post_id"]
    journey.wait_state(post_id, "held")
    change = {"labels": {"line": "valley"}, "due_at": soon(0)}
    journey.marketing.patch(f"/v1/posts/{post_id}", json=change).raise_for_status()
    journey.wait_state(post_id, "published")
    assert journey.marketing.patch(f"/v1/posts/{post_id}", json=change).status_code == 409
    journey.release(hold_id)


def test_one_request_is_an_offer_for_each_account_and_each_time(journey: Journey) -> None:
    campaign = journey.campaign(accounts=["social-en", "social-fr"], time_zone="Europe/London")
    made = journey.marketing.post(
        f"/v1/campaigns/{campaign}/posts",
        json={
            "text": "To the sea", "variants": {"social-fr": "À la mer"}, "external_id": "sea",
            "thread": ["Trains run hourly.", "Bring a hat."], "threads": {"social-fr": ["Un chapeau !"]},
            "due_at": "2099-03-28T09:00:00+00:00", "recurring": "FREQ=DAILY;COUNT=3",
        },
    ).json()  # fmt: skip
    assert {(post["account"], post["text"]) for post in made} == {
        ("social-en", "To the sea"), ("social-fr", "À la mer"),
    }  # fmt: skip
    assert {(post["account"], *post["thread"]) for post in made} == {
        ("social-en", "Trains run hourly.", "Bring a hat."), ("social-fr", "Un chapeau !"),
    }  # fmt: skip
    assert sorted({post["due_at"] for post in made}) == [
        "2099-03-28T09:00:00Z",
        "2099-03-29T08:00:00Z",  # Summer time began: nine o'clock in London all the same.
        "2099-03-30T08:00:00Z",
    ]
    assert len({post["external_id"] for post in made}) == 6


def test_the_next_free_slot_is_as_far_from_the_last_as_the_drip_says(journey: Journey) -> None:
    campaign = journey.campaign(
        per_hour=4, time_zone="Europe/London", hours={"begin": "09:00", "end": "09:40"},
        begins_at="2099-06-01T07:00:00Z", ends_at="2099-06-03T00:00:00Z",
    )  # fmt: skip
    bodies = [{"account": "social-en", "text": f"{n}", "slot": "next"} for n in range(7)]
    answer = journey.marketing.post(f"/v1/campaigns/{campaign}/posts", json=bodies)
    (wrong,) = answer.json()["errors"]
    assert wrong == {"pointer": "/6/slot", "detail": "no slot is free before the campaign ends"}
    made = journey.marketing.post(f"/v1/campaigns/{campaign}/posts", json=bodies[:4]).json()
    due = [post["due_at"][5:16] for post in made]
    assert due == ["06-01T08:00", "06-01T08:15", "06-01T08:30", "06-02T08:00"]


def test_all_that_is_wrong_is_said_at_once_and_nothing_is_queued(journey: Journey) -> None:
    campaign = journey.campaign(
        time_zone="Europe/London", hours={"begin": "08:00", "end": "20:00"}, budget=5
    )
    wait_for("the accounts", lambda: add(journey, campaign, account="socail-en").status_code == 422)
    bodies = [
        body(account="socail-en", **HOUR),
        body(text="a" * 501, **HOUR),
        body(due_at="2099-06-01T22:00:00Z"),
        body(due_at="2099-06-01T10:00:00Z", recurring="FREQ=HOURLY"),
        body(due_at="2099-06-01T10:00:00Z", latest_at="2099-06-01T09:00:00Z"),
        body(variants={"other": "x"}, threads={"no": ["y"]}, **HOUR),
        body(thread=["a" * 501], threads={"social-en": ["b", "c" * 502]}, **HOUR),
    ]
    answer = journey.marketing.post(f"/v1/campaigns/{campaign}/posts", json=bodies)
    told = {one["pointer"]: one["detail"] for one in answer.json()["errors"]}
    assert "did you mean social-en?" in told["/0/account"]
    assert "takes 500 graphemes, this has 501" in told["/1/text"]
    assert "outside the campaign's hours, 08:00 to 20:00 Europe/London" in told["/2/due_at"]
    assert "more than 1000 times" in told["/3/recurring"]
    assert told["/4/latest_at"] == "must be later than due_at"
    assert told["/5/variants/other"] == "is none of this offer's accounts"
    assert told["/5/threads/no"] == "is none of this offer's accounts"
    assert "this has 502" in told["/6/threads/social-en/1"]
    assert "/6/thread/0" not in told, "that account has its own"
    tried = journey.marketing.post(f"/v1/campaigns/{campaign}/posts/dry-run", json=bodies)
    assert tried.json()["errors"] == answer.json()["errors"]
    assert journey.marketing.get(f"/v1/campaigns/{campaign}").json()["counts"] == {}
    many = [body(**HOUR) for _ in range(6)]
    refused = journey.marketing.post(f"/v1/campaigns/{campaign}/posts", json=many)
    assert "has room for 5 more" in refused.json()["detail"]


def test_an_external_id_is_queued_once(journey: Journey) -> None:
    campaign = journey.campaign()
    first = add(journey, campaign, external_id="crm-7", **HOUR)
    assert first.json()["external_id"] == "crm-7"
    assert add(journey, campaign, external_id="crm-7", **HOUR).json() == []
    assert journey.marketing.get(f"/v1/campaigns/{campaign}").json()["counts"] == {"queued": 1}


def test_what_a_hold_would_stop_is_said_before_it_is_one(journey: Journey) -> None:
    campaign = journey.campaign(name="Autumn by rail")
    for line in ("coast", "coast", "valley"):
        add(journey, campaign, labels={"line": line}, **HOUR).raise_for_status()
    asked = {"matchers": f'{{network="{journey.network}",line="coast"}}'}
    plan = journey.marketing.post("/v1/holds/dry-run", json=asked).json()
    ours = [one for one in plan["hours"] if one["campaign_id"] == campaign]
    assert [(one["hour"], one["offers"]) for one in ours] == [("2099-06-01T10:00:00Z", 2)]
    assert ours[0]["campaign"] == "Autumn by rail"


def test_many_are_decided_at_once_and_spread(journey: Journey) -> None:
    campaign = journey.campaign(needs_approval=True)
    posts = [add(journey, campaign, **HOUR).json()["post_id"] for _ in range(3)]
    decision = {"decision": "approve", "post_ids": posts, "comment": "fine"}
    assert journey.marketing.post("/v1/reviews", json=decision).status_code == 403
    done = journey.approver.post("/v1/reviews", json=decision).raise_for_status().json()
    assert {post["approver"] for post in done} == {"dev-approver"}
    assert journey.approver.post("/v1/reviews", json=decision).status_code == 409
    steps = journey.marketing.get(f"/v1/posts/{posts[0]}/why").json()["steps"]
    assert ("post approved: fine", "dev-approver") in [(s["what"], s["by"]) for s in steps]


def test_why_names_the_hold_the_fence_and_the_channels_answer(journey: Journey) -> None:
    campaign = journey.campaign()
    post_id = add(journey, campaign).json()["post_id"]
    journey.wait_state(post_id, "published")
    told = journey.marketing.get(f"/v1/posts/{post_id}/why").json()
    assert told["answer"].startswith("It went out.")
    (sent,) = [step for step in told["steps"] if step["by"] == "publisher"]
    assert sent["what"] == "try 1: it went out"
    assert sent["fence"] is not None


def test_a_finished_campaign_sends_nothing_more(journey: Journey) -> None:
    campaign = journey.campaign()
    post_id = add(journey, campaign, **HOUR).json()["post_id"]
    assert act(journey, campaign, "finish").json()["state"] == "done"
    assert journey.state(post_id) == "cancelled"
    assert act(journey, campaign, "cancel").status_code == 409
